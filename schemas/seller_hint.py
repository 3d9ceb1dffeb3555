"""`seller.hints` (key: seller_id): at most three tips for one version of a listing."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field

from schemas.base import Identifier, Locale, Message, Timestamp, TimeZone, Unit, Version
from schemas.listing_event import MAX_PHOTOS
from schemas.vocabulary import Issue

TOPIC = "seller.hints"
MAX_TIPS = 3


class Tip(Message):
    """One concrete action, in the seller's language.

    `kind` is an issue's name, `better_cover`, or a fix that was tried on the photo. `probability` is the model's for
    the issue; for `better_cover` it is the other photo's score, for a fix the photo's score after it. `photo_id` is the
    photo to retake, to fix or, for `better_cover`, to use.
    """

    kind: str = Field(max_length=64)
    issue: Issue | None = None
    probability: Unit
    photo_id: Identifier
    position: int = Field(ge=0, lt=MAX_PHOTOS)
    text: str = Field(min_length=1, max_length=500)


class SellerHint(Message):
    """The tips of one listing version, most useful first. It replaces those of older versions.

    An empty `tips` says that nothing is worth changing. `hint_id` is derived from the event and so is the
    same when the hint is sent again.
    """

    hint_id: UUID
    seller_id: Identifier
    listing_id: Identifier
    listing_version: Version
    locale: Locale
    score: Unit
    tips: tuple[Tip, ...] = Field(default=(), max_length=MAX_TIPS)
    created_at: Timestamp
    withdrawn: bool = False
    """The listing was deleted: older tips of it are void."""
    occurred_at: Timestamp | None = None
    """When the event happened that this answers."""
    time_zone: TimeZone | None = None

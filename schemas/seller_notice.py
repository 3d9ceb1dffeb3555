"""`seller.notices` (key: seller_id): what to tell a seller, and when; at most a few a day, a digest for what recurs."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import Field

from schemas.base import Identifier, Locale, Message, Timestamp
from schemas.seller_hint import MAX_TIPS, Tip

TOPIC = "seller.notices"
TICKS_TOPIC = "seller.notices.ticks"
"""Key: seller_id, value: an RFC 3339 time that has come, for which notices waited. The notices app's own."""
MAX_LISTINGS = 200
"""Listings of one notice, at most."""


class NoticeType(StrEnum):
    TIPS = "tips"
    """How to take better photos of one listing."""
    DIGEST = "digest"
    """What several listings have in common; it stands for their tips."""
    PRAISE = "praise"
    """A listing's photos are good."""
    WITHDRAWN = "withdrawn"
    """The listing is gone, or has better photos now: take back what was told of it. It is not shown."""


class SellerNotice(Message):
    """One notice. `notice_id` is the same when it is sent again; `at` is the time of the events that led to it."""

    notice_id: UUID
    type: NoticeType
    seller_id: Identifier
    listings: tuple[Identifier, ...] = Field(min_length=1, max_length=MAX_LISTINGS)
    locale: Locale
    text: str = Field(default="", max_length=500)
    tips: tuple[Tip, ...] = Field(default=(), max_length=MAX_TIPS)
    at: Timestamp

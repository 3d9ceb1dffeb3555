"""`seller.hint_feedback` (key: seller_id): what sellers did with a tip, as the marketplace's app saw it."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import Field

from schemas.base import Identifier, Locale, Message, Timestamp, Version

TOPIC = "seller.hint_feedback"


class FeedbackAction(StrEnum):
    SHOWN = "shown"
    OPENED = "opened"
    HELPFUL = "helpful"
    NOT_HELPFUL = "not_helpful"
    APPLIED = "applied"


class HintFeedback(Message):
    """One action on one tip. `feedback_id` is the same when it is sent again; `kind` and the version are the tip's."""

    feedback_id: UUID
    seller_id: Identifier
    listing_id: Identifier
    listing_version: Version
    kind: str = Field(min_length=1, max_length=64)
    locale: Locale
    action: FeedbackAction
    at: Timestamp

"""`listing.events.dlq` (key: the record's own): an input that could not become a score, and why."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from schemas.base import Message, Timestamp, WireBytes
from schemas.image_score import FailedPhoto
from schemas.listing_event import MAX_PHOTOS

TOPIC = "listing.events.dlq"


class DeadLetterType(StrEnum):
    INVALID_EVENT = "invalid_event"
    KEY_MISMATCH = "key_mismatch"
    NO_SCORABLE_PHOTO = "no_scorable_photo"
    UNEXPECTED = "unexpected"


class Stage(StrEnum):
    VALIDATE = "validate"
    FETCH = "fetch"
    INFER = "infer"
    UNKNOWN = "unknown"


class FailedAttempt(Message):
    """One try that failed."""

    at: Timestamp
    message: str = Field(max_length=500)


class DeadLetter(Message):
    """Everything needed to understand the failure and to replay the record.

    `key`, `value` and the headers' values are the record's bytes in base64; None where the record had none.
    """

    type: DeadLetterType
    message: str = Field(max_length=8000)
    stage: Stage
    attempts: int = Field(ge=1)
    history: tuple[FailedAttempt, ...] = ()
    """Each try that failed, oldest first, in place and through the retry topic."""
    photos: tuple[FailedPhoto, ...] = Field(default=(), max_length=MAX_PHOTOS)
    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)
    key: WireBytes | None = None
    headers: tuple[tuple[str, WireBytes | None], ...] = ()
    value: WireBytes | None = None
    failed_at: Timestamp

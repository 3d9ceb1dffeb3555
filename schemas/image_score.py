"""`image.scores` (compacted, key: listing_id): what the scorer found. A deleted listing gets a tombstone."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.base import Identifier, Locale, Message, Timestamp, TimeZone, Unit, Version
from schemas.listing_event import MAX_PHOTOS, ListingEventType
from schemas.vocabulary import Aspect, Issue

TOPIC = "image.scores"
VERSION_HEADER = "version"
"""Header of a deleted listing's tombstone: the version at which it was deleted, as a decimal number."""
EVENT_HEADER = "event"
"""Header of a deleted listing's tombstone: the `AnsweredEvent` that deleted it, as JSON."""
SHADOW_TOPIC = "image.scores.shadow"
"""What a candidate model says of the same events; nobody acts on it."""

ADVISED_TOPIC = "image.scores.advised"
"""The same scores, with what would raise those of weak photos; written by `advise`."""

COVER_WEIGHT = 0.7
"""Share of the cover photo in a listing's score: the cover is what a search result shows."""


class PhotoErrorType(StrEnum):
    """Why a photo could not be scored, for good."""

    URL_REFUSED = "url_refused"
    NOT_FOUND = "not_found"
    HTTP_ERROR = "http_error"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    NOT_AN_IMAGE = "not_an_image"
    UNREADABLE = "unreadable"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    UNAVAILABLE = "unavailable"


class PhotoError(Message):
    """`message` names the value and the remedy; `attempts` counts the tries to fetch the photo."""

    type: PhotoErrorType
    message: str = Field(max_length=1000)
    attempts: int = Field(default=1, ge=1)


class PhotoFix(Message):
    """What an editor could do to a photo, and the score that the photo has then."""

    fix: str = Field(max_length=64)
    score: Unit


class ScoredPhoto(Message):
    """A photo that was scored: everything is 0..1.

    `score` is the photo's quality; `class_probs` are the probabilities of the classes 1..5 and sum to 1;
    `issues` are independent probabilities.
    """

    photo_id: Identifier
    position: int = Field(ge=0, lt=MAX_PHOTOS)
    score: Unit
    class_probs: Annotated[tuple[Unit, ...], Field(min_length=5, max_length=5)]
    aspects: dict[Aspect, Unit]
    issues: dict[Issue, Unit]
    url: str | None = Field(default=None, max_length=2048)
    fixes: tuple[PhotoFix, ...] = Field(default=(), max_length=20)
    """In `image.scores.advised`: the fixes that raise the score, the most first."""


class FailedPhoto(Message):
    photo_id: Identifier
    position: int = Field(ge=0, lt=MAX_PHOTOS)
    error: PhotoError


class ModelInfo(Message):
    name: str = Field(max_length=128)
    version: int = Field(ge=0, le=2**32 - 1)


class AnsweredEvent(Message):
    """The event that a score answers."""

    event_id: UUID
    type: ListingEventType
    version: Version
    seller_id: Identifier
    locale: Locale
    occurred_at: Timestamp
    time_zone: TimeZone | None = None


class Timings(Message):
    """Milliseconds. `fetch` and `infer` are those of the slowest photo; `total` runs from the consumer's poll."""

    fetch: float = Field(ge=0)
    infer: float = Field(ge=0)
    total: float = Field(ge=0)


class ImageScore(Message):
    """The score of a listing, and of each photo or why it has none; at least one photo is scored."""

    listing_id: Identifier
    score: Unit
    photos: tuple[ScoredPhoto, ...] = Field(min_length=1, max_length=MAX_PHOTOS)
    failed: tuple[FailedPhoto, ...] = Field(default=(), max_length=MAX_PHOTOS)
    model: ModelInfo
    timings_ms: Timings
    event: AnsweredEvent
    scored_at: Timestamp

    @property
    def best(self) -> ScoredPhoto:
        """The photo with the highest score; of equals, the one shown first."""
        return max(self.photos, key=lambda photo: (photo.score, -photo.position))

    @property
    def cover(self) -> ScoredPhoto | None:
        """The listing's first photo; None when it could not be scored."""
        first = min([photo.position for photo in self.photos] + [photo.position for photo in self.failed])
        return next((photo for photo in self.photos if photo.position == first), None)


def listing_score(cover: float | None, scores: Sequence[float]) -> float:
    """Return a listing's score, 0..1, from its cover's score (None: not scored) and all photos' scores.

    COVER_WEIGHT * cover + (1 - COVER_WEIGHT) * mean; the mean alone when the cover has no score.
    """
    mean = sum(scores) / len(scores)
    return mean if cover is None else COVER_WEIGHT * cover + (1 - COVER_WEIGHT) * mean

"""`listing.events` (key: listing_id): a seller created, changed or deleted a listing."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import AnyUrl, Field, UrlConstraints, model_validator

from schemas.base import Identifier, Locale, Message, Timestamp, TimeZone, Version

TOPIC = "listing.events"
RETRY_TOPIC = "listing.events.retry"
"""Events whose photos could not be had, as they were; in headers, when they are tried again and what went wrong."""
BACKFILL_TOPIC = "listing.events.backfill"
"""Events that are scored again, without delaying new ones."""
MAX_PHOTOS = 20

PhotoUrl = Annotated[AnyUrl, UrlConstraints(max_length=2048, allowed_schemes=["http", "https"])]


class ListingEventType(StrEnum):
    CREATED = "created"
    PHOTOS_UPDATED = "photos_updated"
    DELETED = "deleted"


class ListingPhoto(Message):
    """One photo of a listing; `position` 0 is the cover that a search result shows."""

    photo_id: Identifier
    url: PhotoUrl
    position: int = Field(ge=0, lt=MAX_PHOTOS, strict=True)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    width: int | None = Field(default=None, ge=1, le=100_000, strict=True)
    height: int | None = Field(default=None, ge=1, le=100_000, strict=True)


class ListingEvent(Message):
    """A change of a listing.

    `photos` holds 1..20 photos with distinct positions and ids; it may be empty only when `type`
    is deleted. The photo with the lowest position is the cover.
    """

    event_id: UUID
    type: ListingEventType
    listing_id: Identifier
    seller_id: Identifier
    version: Version
    occurred_at: Timestamp
    locale: Locale = "en"
    time_zone: TimeZone | None = None
    category: str | None = Field(default=None, max_length=256)
    title: str | None = Field(default=None, max_length=512)
    price: float | None = Field(default=None, ge=0, le=1e12)
    currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")
    photos: tuple[ListingPhoto, ...] = Field(default=(), max_length=MAX_PHOTOS)

    @model_validator(mode="after")
    def _photos_agree(self) -> Self:
        if self.type is not ListingEventType.DELETED and not self.photos:
            raise ValueError(f"photos: a {self.type} event needs 1..{MAX_PHOTOS} photos")
        for field in ("position", "photo_id"):
            values = [getattr(photo, field) for photo in self.photos]
            if len(set(values)) != len(values):
                raise ValueError(f"photos: each photo needs its own {field}, got {values}")
        return self

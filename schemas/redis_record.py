"""What search reads: one Redis string per scored listing, 36 bytes, little-endian.

Key: `image_score:{<listing_id>}` (the braces are literal: a Redis Cluster hash tag). The key is absent
when the listing has no score, or was deleted: treat both as "no score", never as a low one.

| offset | type   | field                                                                          |
|-------:|--------|--------------------------------------------------------------------------------|
|      0 | uint8  | format version, 1                                                              |
|      1 | uint8  | flags: bit 0 = the cover photo has no score; bit 1 = some photos have no score |
|      2 | uint8  | position of the best photo, 0..19                                              |
|      3 | uint8  | number of scored photos, 1..20                                                 |
|      4 | uint16 | listing score, / 65535 = 0..1                                                  |
|      6 | uint16 | cover photo's score, / 65535 (0 when flag bit 0 is set)                        |
|      8 | 6 x u8 | best photo's aspects in the order of `schemas.vocabulary.ASPECTS`, / 255       |
|     14 | uint16 | reserved, 0                                                                    |
|     16 | uint64 | event version, at most 2^53 - 1                                                |
|     24 | int64  | scored_at, milliseconds since 1970-01-01 UTC                                   |
|     32 | uint32 | model version                                                                  |

A reader in any language: refuse a value shorter than 36 bytes or with format version 0; read these fields from
any other. Later format versions only append bytes after these, so ignore what follows.

A deleted listing leaves a tombstone under `image_score:{<listing_id>}:deleted`: its version as a decimal number,
which only the scorer reads; it expires.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import Field

from schemas.base import Message, MessageError, Timestamp, Unit, Version
from schemas.image_score import ImageScore
from schemas.listing_event import MAX_PHOTOS
from schemas.vocabulary import ASPECTS

FORMAT_VERSION = 1
VERSION_OFFSET = 16
_LAYOUT = struct.Struct("<BBBBHH6BHQqI")
SIZE = _LAYOUT.size
_COVER_UNSCORED, _PARTIAL = 1, 2


def record_key(listing_id: str) -> str:
    """Return the Redis key of a listing's record."""
    return f"image_score:{{{listing_id}}}"


def tombstone_key(listing_id: str) -> str:
    """Return the Redis key that remembers the version at which a listing was deleted."""
    return f"image_score:{{{listing_id}}}:deleted"


class RedisRecord(Message):
    """The fields of the record. Scores keep 16 bits (error below 1e-5), aspects 8 bits (below 2e-3)."""

    score: Unit
    cover_score: Unit | None
    best_position: int = Field(ge=0, lt=MAX_PHOTOS)
    scored_photos: int = Field(ge=1, le=MAX_PHOTOS)
    partial: bool
    aspects: Annotated[tuple[Unit, ...], Field(min_length=6, max_length=6)]
    event_version: Version
    scored_at: Timestamp
    model_version: int = Field(ge=0, le=2**32 - 1)

    @classmethod
    def of(cls, score: ImageScore) -> Self:
        """Return the record of a listing's score."""
        cover = score.cover
        return cls(
            score=score.score,
            cover_score=None if cover is None else cover.score,
            best_position=score.best.position,
            scored_photos=len(score.photos),
            partial=bool(score.failed),
            aspects=tuple(score.best.aspects[aspect] for aspect in ASPECTS),
            event_version=score.event.version,
            scored_at=score.scored_at,
            model_version=score.model.version,
        )

    def to_bytes(self) -> bytes:
        """Return the 36 bytes of the table above."""
        cover = self.cover_score
        return _LAYOUT.pack(
            FORMAT_VERSION,
            _COVER_UNSCORED * (cover is None) | _PARTIAL * self.partial,
            self.best_position,
            self.scored_photos,
            round(self.score * 65535),
            round((cover or 0.0) * 65535),
            *(round(aspect * 255) for aspect in self.aspects),
            0,
            self.event_version,
            round(self.scored_at.timestamp() * 1000),
            self.model_version,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a record of this or a later format version.

        Raises:
            MessageError: shorter than 36 bytes, format version 0, or a field out of its range.
        """
        if len(data) < SIZE or data[0] == 0:
            problem = f"needs {SIZE} bytes and format version 1 or later, got {data[:SIZE].hex() or 'nothing'}"
            raise MessageError("RedisRecord", [problem])
        fields = _LAYOUT.unpack_from(data)
        _, flags, best, count, score, cover = fields[:6]
        if best >= MAX_PHOTOS or not 1 <= count <= MAX_PHOTOS:
            raise MessageError("RedisRecord", [f"best_position {best} or scored_photos {count} out of range"])
        try:
            scored_at = datetime.fromtimestamp(fields[14] / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            raise MessageError("RedisRecord", [f"scored_at {fields[14]} ms out of range"]) from None
        return cls(
            score=score / 65535,
            cover_score=None if flags & _COVER_UNSCORED else cover / 65535,
            best_position=best,
            scored_photos=count,
            partial=bool(flags & _PARTIAL),
            aspects=tuple(aspect / 255 for aspect in fields[6:12]),
            event_version=fields[13],
            scored_at=scored_at,
            model_version=fields[15],
        )

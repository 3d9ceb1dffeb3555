"""Example messages."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from schemas import ASPECTS, ISSUES, ImageScore, Issue, ScoredPhoto
from schemas.image_score import AnsweredEvent, ModelInfo, Timings, listing_score
from schemas.listing_event import ListingEventType

EVENT: dict[str, Any] = {
    "event_id": "5b0f4c8e-6b1e-4f43-9d38-0d7f3f3ad1a4",
    "type": "created",
    "listing_id": "m123",
    "seller_id": "s9",
    "version": 3,
    "occurred_at": "2026-01-31T18:30:00+09:00",
    "locale": "ja-JP",
    "category": "t-shirt",
    "title": "Striped T-shirt",
    "price": 1200,
    "currency": "JPY",
    "photos": [{"photo_id": "p1", "url": "https://photos.example.com/p1.jpg", "position": 0}],
}


def event_json() -> bytes:
    return orjson.dumps(EVENT)


def scored_photo(position: int, score: float, issues: dict[Issue, float] | None = None) -> ScoredPhoto:
    return ScoredPhoto(
        photo_id=f"p{position}",
        position=position,
        score=score,
        class_probs=(0.1, 0.2, 0.4, 0.2, 0.1),
        aspects=dict.fromkeys(ASPECTS, 0.5),
        issues={**dict.fromkeys(ISSUES, 0.0), **(issues or {})},
    )


def image_score(
    scores: Sequence[float] = (0.5,), issues: dict[int, dict[Issue, float]] | None = None, locale: str = "en"
) -> ImageScore:
    """Return the score of a listing whose photos have these scores, and issues by position."""
    photos = tuple(scored_photo(i, score, (issues or {}).get(i)) for i, score in enumerate(scores))
    return ImageScore(
        listing_id="m123",
        score=listing_score(scores[0], scores),
        photos=photos,
        model=ModelInfo(name="image_score", version=1),
        timings_ms=Timings(fetch=1, infer=2, total=3),
        event=AnsweredEvent(
            event_id=uuid.uuid4(),
            type=ListingEventType.CREATED,
            version=3,
            seller_id="s9",
            locale=locale,
            occurred_at=datetime(2026, 1, 31, 9, 30, tzinfo=UTC),
        ),
        scored_at=datetime(2026, 1, 31, 9, 30, 1, tzinfo=UTC),
    )

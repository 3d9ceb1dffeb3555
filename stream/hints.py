"""The hints app: reads `image.scores`, tells each seller how to take a better photo on `seller.hints`.

A Faust app. A score that is delivered again makes the same hint again, with the same `hint_id`. It never declares
topics: `image-score topics create` does.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import faust

from schemas import ImageScore, MessageError, SellerHint
from schemas.image_score import EVENT_HEADER, AnsweredEvent
from stream.faust_app import faust_app, run_app
from stream.log import log
from stream.settings import Settings
from stream.tips import Policy, load_policy, tips_of

_NAMESPACE = uuid.UUID("0b9d1b0e-7f39-5c0f-9d0c-5a3c1ab05c1e")


def hint_of(score: ImageScore, settings: Settings, policy: Policy) -> SellerHint:
    """Return the hint that answers a score; the same event always gives the same `hint_id`."""
    return SellerHint(
        hint_id=uuid.uuid5(_NAMESPACE, str(score.event.event_id)),
        seller_id=score.event.seller_id,
        listing_id=score.listing_id,
        listing_version=score.event.version,
        locale=score.event.locale,
        score=score.score,
        tips=tips_of(score, policy, settings.tip_threshold, settings.cover_margin),
        created_at=datetime.now(UTC),
        occurred_at=score.event.occurred_at,
        time_zone=score.event.time_zone,
    )


def withdrawal_of(listing_id: str, event: AnsweredEvent) -> SellerHint:
    """Return the hint that takes back what was told of a deleted listing."""
    return SellerHint(
        hint_id=uuid.uuid5(_NAMESPACE, str(event.event_id)),
        seller_id=event.seller_id,
        listing_id=listing_id,
        listing_version=event.version,
        locale=event.locale,
        score=0.0,
        created_at=datetime.now(UTC),
        withdrawn=True,
        occurred_at=event.occurred_at,
        time_zone=event.time_zone,
    )


def hint_of_record(
    key: bytes, value: bytes | None, headers: Any, settings: Settings, policy: Policy
) -> SellerHint | None:
    """Return the hint that answers a record of `image.scores`; None for an old tombstone, which names no event.

    Raises:
        MessageError: it is no ImageScore, or names no AnsweredEvent.
    """
    if value is not None:
        return hint_of(ImageScore.from_json(value), settings, policy)
    event = dict(headers or {}).get(EVENT_HEADER)
    return withdrawal_of(key.decode(errors="replace"), AnsweredEvent.from_json(event)) if event else None


def make_app(settings: Settings, folder: str) -> faust.App:
    """Return the Faust app for these settings; Faust insists on a `folder` for its data, though it has none."""
    policy = load_policy(settings.model_metrics)
    app = faust_app(settings, settings.hints_group, folder)
    source = settings.advised_topic if settings.hints_from == "advised" else settings.scores_topic
    scores = app.topic(source, key_type=bytes, value_type=bytes)
    hints = app.topic(settings.hints_topic, key_type=bytes, value_type=bytes)

    @app.task  # type: ignore[untyped-decorator]
    async def ready() -> None:
        log.info("ready: answering scores of %s as group %s", source, settings.hints_group)

    @app.agent(scores)
    async def answer(stream: Any) -> None:
        async for record in stream.events():
            try:
                hint = hint_of_record(record.key, record.value, record.headers, settings, policy)
            except MessageError as error:
                log.warning("score of listing %r skipped: %s", record.key, error)
                continue
            # Faust keeps what is sent while a score is handled, produces it in one go when it is about to
            # commit that score's offset, and commits only after the brokers hold it.
            if hint is not None:
                await hints.send(key=hint.seller_id.encode(), value=hint.to_json())

    return app


def run(settings: Settings) -> None:
    """Run the app until SIGTERM or SIGINT."""
    run_app(lambda folder: make_app(settings, folder))

"""The notices app: reads `seller.hints`, tells sellers at the right time on `seller.notices` (rules: `notice_rules`).

A Faust app with a table of sellers, whose changelog is a topic. What a seller's state led to is kept in it, so a hint
that is handled again after a crash leads to the same notices, with the same ids: delivery is at least once, and whoever
shows notices shows each `notice_id` once. What waits for a time is told by a record of `seller.notices.ticks`, so that
this, too, is handled, committed and handled again like any other.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import faust
from confluent_kafka import Producer
from prometheus_client import start_http_server

from schemas import MessageError, SellerHint, SellerNotice
from stream.faust_app import faust_app, run_app
from stream.feedback import VoteReader, Votes
from stream.kafka import client_config
from stream.log import log
from stream.notice_rules import Rules, Seller, hear, tick
from stream.settings import Settings

_LOOK_S = 1.0


def rules_of(settings: Settings) -> Rules:
    return Rules(
        per_day=settings.notices_per_day,
        digest_from=settings.notices_digest_from,
        good_from=settings.notices_good_from,
        quiet_from=settings.notices_quiet_from,
        quiet_until=settings.notices_quiet_until,
    )


def make_app(settings: Settings, folder: str) -> faust.App:
    """Return the Faust app for these settings."""
    rules = rules_of(settings)
    # With transactions, Faust now and then does not come back from a restart with its table.
    options = {"store": "memory://", "topic_partitions": settings.partitions, "processing_guarantee": "at_least_once"}
    app = faust_app(settings, settings.notices_group, folder, **options)
    inputs = app.topic(settings.hints_topic, settings.notice_ticks_topic, key_type=bytes, value_type=bytes)
    notices = app.topic(settings.notices_topic, key_type=bytes, value_type=bytes)
    # To the partition that has the seller, whichever partitioner chose it.
    ticks = Producer(client_config(settings))
    sellers = app.Table("sellers", key_type=bytes, value_type=bytes)
    newest = [0.0]
    votes = Votes(settings.notices_not_helpful, settings.notices_votes)

    @app.task  # type: ignore[untyped-decorator]
    async def ready() -> None:
        VoteReader(settings, votes).start()
        if settings.notices_metrics_port:
            start_http_server(settings.notices_metrics_port)
        log.info("ready: telling sellers of %s as group %s", settings.hints_topic, settings.notices_group)

    @app.agent(inputs)
    async def tell(stream: Any) -> None:
        async for event in stream.events():
            found = _answer(sellers, event, settings.notice_ticks_topic, rules, votes.off)
            if found is None:
                continue
            seller, answer = found
            newest[0] = max(newest[0], seller.clock.timestamp())
            sellers[event.key] = seller.model_dump_json().encode()
            for notice in answer:
                await notices.send(key=event.key, value=notice.to_json())

    @app.timer(_LOOK_S)  # type: ignore[untyped-decorator]
    async def look() -> None:
        now = time.time() if settings.notices_clock == "wall" else newest[0]
        for key, value in list(sellers.items()):
            seller = Seller.model_validate_json(value)
            due = seller.due
            if due is not None and due.timestamp() <= now:
                ticks.produce(settings.notice_ticks_topic, due.isoformat(), key, seller.partition)
        ticks.poll(0)

    return app


def _answer(
    sellers: Any, event: Any, ticks_topic: str, rules: Rules, off: frozenset[str]
) -> tuple[Seller, list[SellerNotice]] | None:
    """Return the seller's new state and what to tell, without tips that are off; None: the record says nothing."""
    known = sellers.get(event.key)
    seller_id = (event.key or b"").decode(errors="replace")
    seller = Seller(seller_id=seller_id) if known is None else Seller.model_validate_json(known)
    seller.partition = event.message.partition
    if event.message.topic == ticks_topic:
        due = datetime.fromisoformat(event.value.decode()).astimezone(UTC)
        return seller, tick(seller, due, rules)
    try:
        hint = SellerHint.from_json(event.value or b"")
    except MessageError as error:
        log.warning("hint of seller %r skipped: %s", seller_id, error)
        return None
    tips = tuple(tip for tip in hint.tips if tip.kind not in off)
    return seller, hear(seller, hint.model_copy(update={"tips": tips}), rules)


def run(settings: Settings) -> None:
    """Run the app until SIGTERM or SIGINT."""
    run_app(lambda folder: make_app(settings, folder))

"""The scorer's process: wires consumer, fetcher, Triton, Redis and producer, and runs until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from enum import StrEnum
from typing import Any

import uvloop
from confluent_kafka import KafkaException

from stream import kafka
from stream.consumer import (
    ConsumerConfig,
    ConsumerStopped,
    DrainTimedOut,
    Fenced,
    ParallelConsumer,
    TooManyDeadLetters,
)
from stream.errors import DependencyError, DrainError, FencedError, ImageScoreError, TooManyDeadLettersError
from stream.fetch import PhotoFetcher
from stream.health import health_server
from stream.inference import TritonModel
from stream.log import log
from stream.scorer import Outcome, Scorer
from stream.settings import Settings
from stream.store import RecordStore

_REPORT_S = 10.0
_EXITS: dict[type[ConsumerStopped], type[ImageScoreError]] = {
    TooManyDeadLetters: TooManyDeadLettersError,
    DrainTimedOut: DrainError,
    Fenced: FencedError,
}


def consumer_config(settings: Settings, **changes: Any) -> ConsumerConfig:
    """Return the consumer's settings for scoring listing events; `changes` go over them."""
    config = ConsumerConfig(
        client={**kafka.client_config(settings), "error_cb": kafka.log_error},
        topic=settings.events_topic,
        group=settings.scorer_group,
        delivery=settings.delivery,
        protocol=settings.group_protocol,
        instance=settings.instance,
        session_s=settings.session_timeout_s,
        in_flight=settings.listings_in_flight,
        buffer=max(settings.listings_in_flight, 100),
        rate=settings.events_per_s,
        commit_s=settings.commit_interval_s,
        drain_s=settings.drain_timeout_s,
        revoke_s=settings.revoke_timeout_s,
        stuck_s=settings.stuck_after_s,
        attempts_in_place=1,  # the fetcher tries each photo again in place
        retry_topic=settings.retry_topic,
        retry_delays_s=settings.retry_delays_s,
        dead_letter_share=settings.dead_letter_share,
        dead_letter_window=settings.dead_letter_window,
        # Search reads Redis, which was written before: here whole batches matter more than milliseconds.
        producer={"linger.ms": 50, "message.max.bytes": kafka.MAX_LETTER_BYTES},
    )
    return replace(config, **changes)


async def score_events(
    settings: Settings,
    config: ConsumerConfig,
    skip_old: bool = False,
    until: Callable[[], Awaitable[None]] | None = None,
    kind: type[Scorer] = Scorer,
) -> Counter[Outcome]:
    """Score listing events until SIGTERM or SIGINT, or until `until` returns; return how many ended in which way.

    Raises:
        DependencyError: Kafka, Redis or Triton does not answer at the start, or Kafka refuses to go on.
        TooManyDeadLettersError, DrainError, FencedError: as their names say.
    """
    loop = asyncio.get_running_loop()
    # Names are resolved in threads; sellers' slow names must not keep the others waiting.
    loop.set_default_executor(ThreadPoolExecutor(settings.fetches + 8))
    async with AsyncExitStack() as stack:
        fetcher = await stack.enter_async_context(PhotoFetcher(settings))
        model = await stack.enter_async_context(TritonModel(settings))
        store = await stack.enter_async_context(RecordStore(settings))
        await asyncio.gather(model.check(), store.check(), asyncio.to_thread(kafka.check, settings))
        scorer = kind(settings, fetcher, model, store, skip_old)
        consumer = ParallelConsumer(config, scorer.handle, scorer.dead_letter, scorer.hold)
        await consume(settings, config, consumer, scorer.outcomes, Outcome, until)
        return scorer.outcomes


async def consume(
    settings: Settings,
    config: ConsumerConfig,
    consumer: ParallelConsumer,
    outcomes: Counter[Any],
    kinds: type[StrEnum],
    until: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run a consumer until SIGTERM or SIGINT, or until `until` returns; log the counts of `outcomes` as it goes.

    Raises:
        DependencyError: Kafka refuses to go on.
        TooManyDeadLettersError, DrainError, FencedError: as their names say.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, consumer.stop)
    async with AsyncExitStack() as stack:
        if settings.health_port:
            await stack.enter_async_context(health_server(settings.health_port, consumer.health))
        log.info("ready: reading %s as group %s", config.topic, config.group)
        tasks = [asyncio.create_task(_report(outcomes, kinds))]
        if until:
            tasks.append(asyncio.create_task(_stop_after(until(), consumer)))
        try:
            await consumer.run()
        except KafkaException as error:
            raise DependencyError(f"Kafka at {settings.kafka}: {error.args[0].str()}") from None
        except ConsumerStopped as stopped:
            raise _EXITS.get(type(stopped), DependencyError)(str(stopped)) from None
        finally:
            for task in tasks:
                task.cancel()
            log.info("stopped: %s", _line(outcomes, kinds))


async def _stop_after(end: Awaitable[None], consumer: ParallelConsumer) -> None:
    try:
        await end
    finally:
        consumer.stop()


def run(settings: Settings) -> Counter[Outcome]:
    """Run `score_events` in an event loop of its own."""
    return run_in_loop(score_events(settings, consumer_config(settings)))


def run_in_loop(main: Coroutine[Any, Any, Counter[Any]]) -> Counter[Any]:
    # Messages are trees without cycles: looking for cycles after every 700 objects is wasted on them.
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    return uvloop.run(main)


def _line(outcomes: Counter[Any], kinds: type[StrEnum]) -> str:
    return ", ".join(f"{outcomes[kind]} {kind.replace('_', ' ')}" for kind in kinds)


async def _report(outcomes: Counter[Any], kinds: type[StrEnum]) -> None:
    seen = 0
    while True:
        await asyncio.sleep(_REPORT_S)
        if outcomes.total() != seen:
            log.info("%s (%.1f events/s)", _line(outcomes, kinds), (outcomes.total() - seen) / _REPORT_S)
            seen = outcomes.total()

"""The scorer's process: wires consumer, fetcher, Triton, Redis and producer, and runs until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import uvloop
from confluent_kafka import KafkaException

from stream import kafka
from stream.consumer import RecordConsumer
from stream.errors import DependencyError
from stream.fetch import PhotoFetcher
from stream.inference import TritonModel
from stream.kafka import EventProducer
from stream.log import log
from stream.scorer import Outcome, Scorer
from stream.settings import Settings
from stream.store import RecordStore

_REPORT_S = 10.0


async def score_events(settings: Settings) -> Counter[Outcome]:
    """Score listing events until SIGTERM or SIGINT; return how many ended in which way.

    Raises:
        DependencyError: Kafka, Redis or Triton does not answer at the start, or Kafka refuses to go on.
    """
    # Names are resolved in threads; sellers' slow names must not keep the others waiting.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(settings.fetches + 8))
    async with AsyncExitStack() as stack:
        fetcher = await stack.enter_async_context(PhotoFetcher(settings))
        model = await stack.enter_async_context(TritonModel(settings))
        store = await stack.enter_async_context(RecordStore(settings))
        await asyncio.gather(model.check(), store.check(), asyncio.to_thread(kafka.check, settings))
        producer = await stack.enter_async_context(EventProducer(settings))
        scorer = Scorer(settings, fetcher, model, store, producer)
        consumer = RecordConsumer(settings, scorer.handle, is_full=lambda: fetcher.budget.exhausted)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, consumer.stop)
        log.info("ready: scoring events of %s as group %s", settings.events_topic, settings.scorer_group)
        reporter = asyncio.create_task(_report(scorer.outcomes))
        try:
            await consumer.run()
        except KafkaException as error:
            raise DependencyError(f"Kafka at {settings.kafka}: {error.args[0].str()}") from None
        finally:
            reporter.cancel()
            log.info("stopped: %s", _line(scorer.outcomes))
        return scorer.outcomes


def run(settings: Settings) -> Counter[Outcome]:
    """Run `score_events` in an event loop of its own."""
    # Messages are trees without cycles: looking for cycles after every 700 objects is wasted on them.
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    return uvloop.run(score_events(settings))


def _line(outcomes: Counter[Outcome]) -> str:
    return ", ".join(f"{outcomes[outcome]} {outcome.replace('_', ' ')}" for outcome in Outcome)


async def _report(outcomes: Counter[Outcome]) -> None:
    seen = 0
    while True:
        await asyncio.sleep(_REPORT_S)
        if outcomes.total() != seen:
            log.info("%s (%.1f events/s)", _line(outcomes), (outcomes.total() - seen) / _REPORT_S)
            seen = outcomes.total()

"""The consumer on the embedded Kafka: order per key, bounds, and commits."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from stream.consumer import Handler, Record, RecordConsumer
from stream.kafka import client_config
from stream.settings import Settings
from tests.pipeline import committed, isolated


def produce(settings: Settings, keys: list[str]) -> None:
    producer = Producer(client_config(settings))
    for number, key in enumerate(keys):
        producer.produce(settings.events_topic, key=key, value=str(number))
    assert producer.flush(10) == 0


def consume(
    settings: Settings, make: Callable[[Callable[[], None]], Handler], is_full: Callable[[], bool] = bool
) -> None:
    """Run a consumer until the handler, made with a function that stops it, stops it."""

    async def run() -> None:
        consumer = RecordConsumer(settings, lambda record: handler(record), is_full)
        handler = make(consumer.stop)
        async with asyncio.timeout(60):
            await consumer.run()

    asyncio.run(run())


def number(record: Record) -> int:
    return int(record.value or b"-1")


def test_same_key_in_order_and_different_keys_at_once(settings: Settings) -> None:
    own = isolated(settings)
    produce(own, [f"key-{i % 10}" for i in range(200)])
    seen: dict[bytes, list[int]] = defaultdict(list)
    running: set[bytes] = set()
    most = 0

    def make(stop: Callable[[], None]) -> Handler:
        async def handle(record: Record) -> None:
            nonlocal most
            key = record.key or b""
            assert key not in running, "two records of one key at once"
            running.add(key)
            most = max(most, len(running))
            await asyncio.sleep(0.001 * (number(record) % 7))
            running.remove(key)
            seen[key].append(number(record))
            if sum(map(len, seen.values())) == 200:
                stop()

        return handle

    consume(own, make)
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert most > 4


def test_no_more_in_flight_than_the_bound(settings: Settings) -> None:
    own = isolated(settings).model_copy(update={"listings_in_flight": 8})
    produce(own, [f"key-{i}" for i in range(100)])
    done, running, most = 0, 0, 0

    def make(stop: Callable[[], None]) -> Handler:
        async def handle(_: Record) -> None:
            nonlocal done, running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            done += 1
            if done == 100:
                stop()

        return handle

    consume(own, make)
    assert most == 8


def test_nothing_new_is_taken_while_the_byte_budget_is_exhausted(settings: Settings) -> None:
    own = isolated(settings).model_copy(update={"listings_in_flight": 10})
    produce(own, [f"key-{i}" for i in range(60)])
    full = False
    done = 0

    def make(stop: Callable[[], None]) -> Handler:
        async def handle(_: Record) -> None:
            nonlocal full, done
            done += 1
            if done == 10:
                full = True
                await asyncio.sleep(0.7)
                assert done <= 20, "records were taken although the budget was exhausted"
                full = False
            if done == 60:
                stop()

        return handle

    consume(own, make, is_full=lambda: full)
    assert done == 60


def test_failed_handler_stops_the_consumer_and_its_offset_is_not_committed(settings: Settings) -> None:
    own = isolated(settings)
    produce(own, ["one", "one", "one"])

    def make(_: Callable[[], None]) -> Handler:
        async def handle(record: Record) -> None:
            if number(record) == 1:
                raise ZeroDivisionError

        return handle

    with pytest.raises(ZeroDivisionError):
        consume(own, make)
    assert committed(own) == 1
    again: list[int] = []

    def make_again(stop: Callable[[], None]) -> Handler:
        async def handle(record: Record) -> None:
            again.append(number(record))
            if again[-1] == 2:
                stop()

        return handle

    consume(own, make_again)
    assert again == [1, 2]

"""The consumer on real Kafka: order per key, bounds, retries, dead letters, commits."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import Producer

from stream.consumer import (
    ConsumerConfig,
    ConsumerStopped,
    DrainTimedOut,
    Failed,
    Output,
    ParallelConsumer,
    Record,
    TooManyDeadLetters,
    waiting,
)
from stream.consumer.errors import ProducerSilent
from stream.consumer.outbox import Outbox
from stream.kafka import client_config
from stream.settings import Settings
from tests.pipeline import committed, isolated, read_topic

Handle = Callable[[Record], Awaitable[Sequence[Output] | None]]


def produce(settings: Settings, keys: list[str], topic: str = "") -> None:
    producer = Producer(client_config(settings))
    for number, key in enumerate(keys):
        producer.produce(topic or settings.events_topic, key=key, value=str(number))
    assert producer.flush(10) == 0


def config_of(settings: Settings, **changes: Any) -> ConsumerConfig:
    values: dict[str, Any] = {"in_flight": 512, "commit_s": 0.2, "retry_topic": settings.retry_topic, **changes}
    return ConsumerConfig(client_config(settings), settings.events_topic, settings.scorer_group, **values)


def consume(
    settings: Settings,
    make: Callable[[Callable[[], None]], Handle],
    hold: Callable[[], str] = lambda: "",
    **changes: Any,
) -> ParallelConsumer:
    """Run a consumer until the handler, made with a function that stops it, stops it."""

    def bury(record: Record, failure: Failed) -> Output:
        history = "; ".join(attempt.error for attempt in record.attempts)
        return Output(settings.dlq_topic, record.key, f"{record}: {history}".encode())

    async def run() -> ParallelConsumer:
        async def call(record: Record) -> Sequence[Output]:
            return await handle(record) or ()

        consumer = ParallelConsumer(config_of(settings, **changes), call, bury, hold)
        handle = make(consumer.stop)
        async with asyncio.timeout(60):
            await consumer.run()
        return consumer

    return asyncio.run(run())


def number(record: Record) -> int:
    return int(record.value or b"-1")


def test_same_key_in_order_and_different_keys_at_once(kafka_settings: Settings) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, [f"key-{i % 10}" for i in range(200)])
    seen: dict[bytes, list[int]] = defaultdict(list)
    running: set[bytes] = set()
    most = 0

    def make(stop: Callable[[], None]) -> Handle:
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
    assert committed(own) == 200


def test_no_more_in_flight_than_the_bound(kafka_settings: Settings) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, [f"key-{i}" for i in range(100)])
    done, running, most = 0, 0, 0

    def make(stop: Callable[[], None]) -> Handle:
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

    consume(own, make, in_flight=8)
    assert most == 8


@pytest.mark.parametrize("limit", [{"buffer": 10}, {"in_flight_bytes": 80}])
def test_held_records_are_bounded_by_count_and_by_bytes(kafka_settings: Settings, limit: dict[str, Any]) -> None:
    """Records of 8 bytes; each partition is paused at its bound, and all come through."""
    own = isolated(kafka_settings, embedded=False)
    produce(own, [f"key-{i:02}" for i in range(64)] * 10)
    done, most = 0, 0

    def make(stop: Callable[[], None]) -> Handle:
        async def handle(_: Record) -> None:
            nonlocal done, most
            await asyncio.sleep(0.002)
            done += 1
            if done == 640:
                stop()

        return handle

    assert consume(own, make, in_flight=4, **limit).finished == 640


def test_nothing_is_started_on_hold_and_the_member_stays(kafka_settings: Settings) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, [f"key-{i}" for i in range(60)])
    reason = ""
    done = 0

    def make(stop: Callable[[], None]) -> Handle:
        async def handle(_: Record) -> None:
            nonlocal done, reason
            done += 1
            if done == 10:
                reason = "a service is away"
                await asyncio.sleep(0.7)
                assert done <= 20, "records were started on hold"
                reason = ""
            if done == 60:
                stop()

        return handle

    consume(own, make, hold=lambda: reason, in_flight=10)
    assert done == 60


def test_rate_is_kept(kafka_settings: Settings) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, [f"key-{i}" for i in range(60)])
    times: list[float] = []

    def make(stop: Callable[[], None]) -> Handle:
        async def handle(_: Record) -> None:
            times.append(asyncio.get_running_loop().time())
            if len(times) == 60:
                stop()

        return handle

    consume(own, make, rate=50.0)
    assert times[-1] - times[0] >= (60 - 6) / 50


def test_failed_handler_stops_the_consumer_and_its_offset_is_not_committed(kafka_settings: Settings) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, ["one", "one", "one"])

    def make(_: Callable[[], None]) -> Handle:
        async def handle(record: Record) -> None:
            if number(record) == 1:
                raise ZeroDivisionError

        return handle

    with pytest.raises(ZeroDivisionError):
        consume(own, make)
    assert committed(own) == 1
    again: list[int] = []

    def make_again(stop: Callable[[], None]) -> Handle:
        async def handle(record: Record) -> None:
            again.append(number(record))
            if again[-1] == 2:
                stop()

        return handle

    consume(own, make_again)
    assert again == [1, 2]


def test_what_finished_beyond_the_committed_offset_is_not_handled_again(kafka_settings: Settings) -> None:
    """The record that never finishes holds up the offset, not the others."""
    own = isolated(kafka_settings, embedded=False)
    keys = ["slow" if i in (3, 50) else f"key-{i}" for i in range(100)]
    producer = Producer(client_config(own))
    for i, key in enumerate(keys):
        producer.produce(own.events_topic, key=key, value=str(i), partition=0)
    producer.flush(10)
    seen: list[int] = []

    def make(stop: Callable[[], None]) -> Handle:
        async def handle(record: Record) -> None:
            if record.key == b"slow":
                await asyncio.sleep(60)
            seen.append(number(record))
            if len(seen) == 98:
                stop()

        return handle

    with pytest.raises(DrainTimedOut, match="1 records did not finish within 0 s"):
        consume(own, make, drain_s=0.2)
    assert committed(own) == 3
    again: list[int] = []

    def make_again(stop: Callable[[], None]) -> Handle:
        async def handle(record: Record) -> None:
            again.append(number(record))
            if len(again) == 2:
                stop()

        return handle

    consume(own, make_again)
    assert again == [3, 50]
    assert committed(own) == 100


def test_passing_failure_is_tried_in_place_then_through_the_retry_topic_then_buried(kafka_settings: Settings) -> None:
    """Others go on meanwhile; records of the same key wait behind it, in order."""
    own = isolated(kafka_settings, embedded=False)
    produce(own, ["bad", "bad", "good", "flaky", "flaky"])
    tries: dict[int, int] = defaultdict(int)
    order: list[int] = []

    def make(stop: Callable[[], None]) -> Handle:
        async def handle(record: Record) -> Sequence[Output]:
            i = number(record)
            tries[i] += 1
            if i == 0 or (i == 3 and tries[i] < 4):
                raise Failed(f"try {tries[i]}", passing=True)
            order.append(i)
            if len(order) == 4:
                asyncio.get_running_loop().call_later(0.3, stop)
            return [Output(own.scores_topic, record.key, record.value)]

        return handle

    consumer = consume(own, make, backoff_s=0.01, retry_delays_s=(0.1, 0.3))
    assert order == [2, 3, 4, 1] or order == [2, 3, 1, 4] or order == [2, 1, 3, 4]
    assert tries == {0: 4, 1: 1, 2: 1, 3: 4, 4: 1}
    letters = read_topic(own, own.dlq_topic)
    assert [m.value() for m in letters] == [
        f"{own.events_topic}[{letters[0].partition()}]@0: ".encode()
        + b"; ".join(f"try {n}".encode() for n in (1, 2, 3, 4))
    ] or len(letters) == 1
    assert consumer.health().parked == 0
    assert committed(own) == 5


def test_parked_keys_are_known_to_the_next_owner(kafka_settings: Settings) -> None:
    """A later record does not overtake one that waits in the retry topic, also after a restart."""
    own = isolated(kafka_settings, embedded=False)
    produce(own, ["key"])

    def fail(stop: Callable[[], None]) -> Handle:
        async def handle(_: Record) -> None:
            asyncio.get_running_loop().call_later(0.5, stop)
            raise Failed("not now", passing=True)

        return handle

    consume(own, fail, attempts_in_place=1, retry_delays_s=(2.0,))
    producer = Producer(client_config(own))
    producer.produce(own.events_topic, key="key", value="1")
    producer.flush(10)
    seen: list[tuple[int, int]] = []

    def make(stop: Callable[[], None]) -> Handle:
        async def handle(record: Record) -> None:
            seen.append((number(record), len(record.attempts)))
            if len(seen) == 2:
                asyncio.get_running_loop().call_later(0.2, stop)

        return handle

    consume(own, make, attempts_in_place=1, retry_delays_s=(2.0,))
    assert seen == [(0, 1), (1, 0)]


def test_too_many_dead_letters_stop_the_consumer(kafka_settings: Settings) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, [f"key-{i}" for i in range(300)])

    def make(_: Callable[[], None]) -> Handle:
        async def handle(_: Record) -> None:
            raise Failed("a bad deploy")

        return handle

    with pytest.raises(TooManyDeadLetters, match="of the last 100 records became dead letters, the limit is 50%"):
        consume(own, make, dead_letter_window=100, in_flight=10)
    assert 100 <= len(read_topic(own, own.dlq_topic)) <= 120


def test_stuck_record_is_logged_with_what_it_waits_for(
    kafka_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, ["key"])

    def make(stop: Callable[[], None]) -> Handle:
        async def handle(_: Record) -> None:
            async def wait() -> None:
                with waiting("a photo host"):
                    await asyncio.sleep(1.2)

            await asyncio.gather(wait())
            stop()

        return handle

    with caplog.at_level(logging.WARNING):
        consume(own, make, stuck_s=0.5)
    assert any("stuck: " in text and "waiting for a photo host" in text for text in caplog.messages)


def test_producer_that_reports_nothing_ends_the_consumer_and_the_record_is_handled_again(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As librdkafka's does after the clock was put back."""
    own = isolated(kafka_settings, embedded=False)
    produce(own, ["key"])

    def make(stop: Callable[[], None]) -> Handle:
        async def handle(record: Record) -> Sequence[Output]:
            asyncio.get_running_loop().call_later(1, stop)
            return [Output(own.scores_topic, record.key, record.value)]

        return handle

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_poll", lambda _: asyncio.sleep(60))
        with pytest.raises(ProducerSilent, match="no delivery report within 2 s"):
            consume(own, make, session_s=6.0 / 4, protocol="consumer")
    assert committed(own) == 0
    assert consume(own, make).finished == 1
    assert committed(own) == 1


def test_retry_topic_that_is_not_there_is_named(kafka_settings: Settings) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, ["key"])

    def make(_: Callable[[], None]) -> Handle:
        async def handle(_: Record) -> None:
            raise AssertionError("nothing may be handled")

        return handle

    with pytest.raises(ConsumerStopped, match=r"topic missing has 0 partitions and .* has 4: make it as large"):
        consume(own, make, retry_topic="missing")

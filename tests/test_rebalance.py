"""Partitions that change hands, on real Kafka, with both group protocols."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from stream.consumer import Failed, Fenced, Output, ParallelConsumer, Record
from stream.settings import Settings
from tests.pipeline import committed, isolated
from tests.test_consumer import config_of, number, produce

COUNT = 600


class Member:
    """A consumer that notes what it handled in a list that all members share."""

    def __init__(self, settings: Settings, handled: list[tuple[bytes, int]], **changes: Any) -> None:
        self._handled = handled
        self.consumer = ParallelConsumer(config_of(settings, in_flight=20, **changes), self._handle, self._bury)
        self.count = 0

    async def _handle(self, record: Record) -> Sequence[Output]:
        await asyncio.sleep(0.05)
        self._handled.append((record.key or b"", number(record)))
        self.count += 1
        return ()

    def _bury(self, record: Record, failure: Failed) -> Output:
        raise AssertionError(f"{record}: {failure}")


async def until(condition: Any) -> None:
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_members_come_and_go_and_each_record_is_handled_once_in_order(kafka_settings: Settings, protocol: str) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, [f"key-{i % 50}" for i in range(COUNT)])
    handled: list[tuple[bytes, int]] = []

    async def run() -> None:
        first, second = (Member(own, handled, protocol=protocol) for _ in range(2))
        one = asyncio.create_task(first.consumer.run())
        await until(lambda: len(handled) > 100)
        two = asyncio.create_task(second.consumer.run())
        await until(lambda: second.count > 50)
        assert set(first.consumer.health().partitions) | set(second.consumer.health().partitions) == {0, 1, 2, 3}
        first.consumer.stop()
        await one
        await until(lambda: len(handled) >= COUNT)
        second.consumer.stop()
        await two

    asyncio.run(run())
    assert sorted(n for _, n in handled) == list(range(COUNT))
    by_key: dict[bytes, list[int]] = defaultdict(list)
    for key, n in handled:
        by_key[key].append(n)
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert committed(own) == COUNT


def test_static_member_that_comes_back_keeps_its_partitions(kafka_settings: Settings) -> None:
    """No other member gets them meanwhile."""
    own = isolated(kafka_settings, embedded=False)
    handled: list[tuple[bytes, int]] = []

    async def run() -> None:
        stays = Member(own, handled, instance="stays")
        leaves = Member(own, handled, instance="leaves")
        tasks = [asyncio.create_task(member.consumer.run()) for member in (stays, leaves)]
        await until(lambda: all(len(member.consumer.health().partitions) == 2 for member in (stays, leaves)))
        kept = stays.consumer.health().partitions
        leaves.consumer.stop()
        await tasks[1]
        await asyncio.sleep(1)
        assert stays.consumer.health().partitions == kept
        back = Member(own, handled, instance="leaves")
        tasks[1] = asyncio.create_task(back.consumer.run())
        await until(lambda: len(back.consumer.health().partitions) == 2)
        assert stays.consumer.health().partitions == kept
        for member in (stays, back):
            member.consumer.stop()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_second_member_of_the_same_name_fences_the_first(kafka_settings: Settings) -> None:
    own = isolated(kafka_settings, embedded=False)

    async def run() -> None:
        first, second = Member(own, [], instance="same"), Member(own, [], instance="same")
        one = asyncio.create_task(first.consumer.run())
        await until(lambda: first.consumer.health().joined)
        two = asyncio.create_task(second.consumer.run())
        async with asyncio.timeout(30):
            with pytest.raises(Fenced, match="give each its own"):
                await one
        second.consumer.stop()
        await two

    asyncio.run(run())


def test_what_does_not_finish_in_time_is_cancelled_when_its_partition_goes(kafka_settings: Settings) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, [f"key-{i}" for i in range(40)])
    cancelled: list[int] = []
    started: list[int] = []

    async def handle(record: Record) -> Sequence[Output]:
        started.append(number(record))
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(number(record))
            raise
        return ()

    async def run() -> None:
        def bury(record: Record, failure: Failed) -> Output:
            raise AssertionError(f"{record}: {failure}")

        slow = ParallelConsumer(config_of(own, revoke_s=0.5, drain_s=0.1), handle, bury)
        one = asyncio.create_task(slow.run())
        await until(lambda: len(started) == 40)
        handled: list[tuple[bytes, int]] = []
        quick = Member(own, handled)
        two = asyncio.create_task(quick.consumer.run())
        await until(lambda: len(quick.consumer.health().partitions) == 2)
        await until(lambda: handled and {n for _, n in handled} == set(cancelled))
        quick.consumer.stop()
        await two
        slow.stop()
        await asyncio.wait([one])

    asyncio.run(run())
    assert sorted(cancelled) == list(range(40))


def test_partition_that_goes_while_it_is_paused_is_read_when_it_comes_back(kafka_settings: Settings) -> None:
    own = isolated(kafka_settings, embedded=False)
    produce(own, [f"key-{i}" for i in range(400)])
    handled: list[tuple[bytes, int]] = []

    async def run() -> None:
        reason = "a service is away"
        first = Member(own, handled, buffer=10)
        first.consumer._hold = lambda: reason
        one = asyncio.create_task(first.consumer.run())
        await until(lambda: first.consumer.health().held >= 40)
        await asyncio.sleep(1.5)  # by now it has paused its partitions
        guest = Member(own, handled)
        guest.consumer._hold = lambda: reason
        two = asyncio.create_task(guest.consumer.run())
        await until(lambda: len(guest.consumer.health().partitions) == 2)
        guest.consumer.stop()
        await two
        await until(lambda: len(first.consumer.health().partitions) == 4)
        reason = ""
        await until(lambda: {n for _, n in handled} == set(range(400)))
        first.consumer.stop()
        await one

    asyncio.run(run())

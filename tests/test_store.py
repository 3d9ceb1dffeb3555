"""The Redis records: an older event never overwrites a newer one (real Redis)."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime

import pytest
import redis

from schemas import RedisRecord, tombstone_key
from stream.settings import Settings
from stream.store import RecordStore
from tests.pipeline import listing_id

Event = tuple[str, int]


def record(version: int) -> RedisRecord:
    return RedisRecord(
        score=0.5,
        cover_score=None,
        best_position=0,
        scored_photos=1,
        partial=False,
        aspects=(0.5,) * 6,
        event_version=version,
        scored_at=datetime(2026, 1, 1, tzinfo=UTC),
        model_version=1,
    )


def apply(settings: Settings, events: list[Event]) -> tuple[list[bool], int | None]:
    """Apply events to a new listing, one after the other; return what was applied, and the version left."""
    listing = listing_id()

    async def run() -> tuple[list[bool], int | None]:
        async with RecordStore(settings) as store:
            applied = []
            for kind, version in events:
                write = store.put(listing, record(version)) if kind == "put" else store.delete(listing, version)
                applied.append(await write)
            left = await store.get(listing)
            return applied, None if left is None else left.event_version

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("events", "applied", "left"),
    [
        ([("put", 1), ("put", 2)], [True, True], 2),
        ([("put", 2), ("put", 1)], [True, False], 2),
        ([("put", 2), ("put", 2)], [True, True], 2),
        ([("put", 1), ("delete", 2)], [True, True], None),
        ([("delete", 2), ("put", 1)], [True, False], None),
        ([("put", 3), ("delete", 2)], [True, False], 3),
        ([("delete", 2), ("put", 3)], [True, True], 3),
        ([("delete", 2), ("put", 3), ("put", 2)], [True, True, False], 3),
        ([("delete", 2), ("delete", 2)], [True, True], None),
        ([("put", 0), ("delete", 0)], [True, True], None),
        ([("put", 2**53 - 2), ("put", 2**53 - 1), ("put", 2**53 - 2)], [True, True, False], 2**53 - 1),
    ],
)
def test_higher_version_wins(settings: Settings, events: list[Event], applied: list[bool], left: int | None) -> None:
    assert apply(settings, events) == (applied, left)


def test_outcome_does_not_depend_on_the_order_of_arrival(settings: Settings) -> None:
    events: list[Event] = [("put", 1), ("delete", 2), ("put", 2), ("put", 3), ("delete", 3)]
    assert {apply(settings, list(order))[1] for order in itertools.permutations(events)} == {None}


def test_tombstone_expires(settings: Settings) -> None:
    listing = listing_id()

    async def run() -> None:
        async with RecordStore(settings) as store:
            await store.delete(listing, 1)

    asyncio.run(run())
    left = redis.Redis.from_url(settings.redis).pttl(tombstone_key(listing))
    assert 29 * 86_400_000 < int(left) <= 30 * 86_400_000


def test_writes_at_the_same_time_share_round_trips_and_each_gets_its_answer(settings: Settings) -> None:
    listing = listing_id()

    async def run() -> list[bool]:
        async with RecordStore(settings) as store:
            return await asyncio.gather(*(store.put(listing, record(version)) for version in (5, 4, 6, 6, 1)))

    assert asyncio.run(run()) == [True, False, True, True, False]

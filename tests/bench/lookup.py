"""Lookups beside a raw MGET of the same keys, on a real Redis that holds a million listings.

    python tests/bench/lookup.py --listings 1000000 --callers 64 --ids 500

Rounds, after one to warm up, alternate between raw, cache off and cache on. Ends with one line of JSON: `ratio` is the
p99 of lookups without the cache over that of raw MGETs, `ratio_cached` with it; the stall is Redis stopped for 2 s.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import redis.asyncio
from redis.asyncio import Redis

sys.path.insert(0, str(Path(__file__).parents[2]))

from schemas import RedisRecord, record_key
from stream.embedded.redis import EmbeddedRedis
from stream.lookup import AsyncScoreReader

Call = Callable[[list[str]], Awaitable[object]]
_BATCH = 10_000


class MemoryOnlyRedis(EmbeddedRedis):
    def command(self) -> list[str]:
        return [*super().command(), "--appendonly", "no"]


def record(number: int) -> bytes:
    return RedisRecord(
        score=number % 1000 / 1000,
        cover_score=0.5,
        best_position=0,
        scored_photos=3,
        partial=False,
        aspects=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
        event_version=number,
        scored_at=datetime(2026, 1, 31, tzinfo=UTC),
        model_version=2,
    ).to_bytes()


async def fill(client: Redis, listings: int, value: Callable[[int], bytes] | None) -> float:
    """Write a million listings; return the bytes of Redis's memory that each took."""
    await client.flushall()
    before = int((await client.info("memory"))["used_memory"])
    for start in range(0, listings, _BATCH):
        numbers = range(start, min(start + _BATCH, listings))
        await client.mset({record_key(f"m{n:09d}"): value(n) if value else b"" for n in numbers})
    return (int((await client.info("memory"))["used_memory"]) - before) / listings


def questions(callers: int, ids: int, listings: int, calls: int, seed: int) -> list[list[list[str]]]:
    """Return what each caller asks for in each call; a listing is asked for in proportion to 1 / its rank."""
    chance = random.Random(seed)

    def one() -> str:
        return f"m{int(listings ** chance.random()) - 1:09d}"

    return [[[one() for _ in range(ids)] for _ in range(calls)] for _ in range(callers)]


async def time_calls(call: Call, asked: list[list[list[str]]]) -> list[float]:
    """Return the seconds of each call; the callers go on at once, each with one call at a time."""
    spent: list[float] = []

    async def caller(calls: list[list[str]]) -> None:
        for ids in calls:
            started = time.perf_counter()
            await call(ids)
            spent.append(time.perf_counter() - started)

    await asyncio.gather(*map(caller, asked))
    return spent


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1000


async def stall(server: EmbeddedRedis, call: Call, asked: list[list[list[str]]]) -> list[float]:
    """Return the seconds of calls while Redis is stopped for 2 s."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        spent: list[float] = []
        until = time.monotonic() + 2
        while time.monotonic() < until:
            spent += await time_calls(call, asked)
        return spent
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def measure(listings: int, callers: int, ids: int, calls: int, rounds: int, budget_ms: float) -> dict[str, float]:
    server = MemoryOnlyRedis()
    server.start()
    try:
        server.wait_ready()
        client = redis.asyncio.Redis(port=server.port, max_connections=callers)
        bare = await fill(client, listings, None)
        full = await fill(client, listings, record)
        print(f"{listings:,} listings: {full:.0f} bytes each, {full - bare:.0f} over the bare key", file=sys.stderr)
        async with (
            AsyncScoreReader(server.url, cache_size=0, budget_s=10) as plain,
            AsyncScoreReader(server.url, cache_size=listings // 10, budget_s=10) as cached,
        ):

            async def raw(asked: list[str]) -> None:
                await client.mget([record_key(listing) for listing in asked])

            async def off(asked: list[str]) -> None:
                (await plain.get_many(asked)).scores()

            async def on(asked: list[str]) -> None:
                (await cached.get_many(asked)).scores()

            kinds: dict[str, Call] = {"raw": raw, "off": off, "on": on}
            times: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
            for number in range(rounds + 1):
                asked = questions(callers, ids, listings, calls, number)
                for kind, call in kinds.items():
                    times[kind].append(await time_calls(call, asked))
            figures: dict[str, float] = {"bytes_over_key": round(full - bare, 1), "bytes_with_key": round(full, 1)}
            for kind, spent in times.items():
                figures[f"{kind}_p50_ms"] = round(statistics.median(percentile(part, 0.5) for part in spent[1:]), 2)
                figures[f"{kind}_p99_ms"] = round(statistics.median(percentile(part, 0.99) for part in spent[1:]), 2)
            stats = cached.stats()
            figures["hit_rate"] = round(stats.hits / (stats.hits + stats.misses), 3)
        async with AsyncScoreReader(server.url, budget_s=budget_ms / 1000) as reader:

            async def within(asked: list[str]) -> None:
                (await reader.get_many(asked)).scores()

            await time_calls(within, questions(callers, ids, listings, 2, 1))
            stalled = await stall(server, within, questions(callers, ids, listings, 1, 2))
            figures["stall_budget_ms"] = budget_ms
            figures["stall_p50_ms"] = round(percentile(stalled, 0.5), 2)
            figures["stall_max_ms"] = round(max(stalled) * 1000, 2)
        await client.aclose()
    finally:
        server.stop()
    figures["ratio"] = round(figures["off_p99_ms"] / figures["raw_p99_ms"], 3)
    figures["ratio_cached"] = round(figures["on_p99_ms"] / figures["raw_p99_ms"], 3)
    return figures


@click.command()
@click.option("--listings", default=1_000_000, show_default=True)
@click.option("--callers", default=64, show_default=True)
@click.option("--ids", default=500, show_default=True, help="ids a call")
@click.option("--calls", default=20, show_default=True, help="calls of each caller in a round")
@click.option("--rounds", default=5, show_default=True)
@click.option("--budget-ms", default=50.0, show_default=True, help="the callers' budget while Redis is stopped")
def main(listings: int, callers: int, ids: int, calls: int, rounds: int, budget_ms: float) -> None:
    """Measure lookups beside raw MGETs."""
    figures = asyncio.run(measure(listings, callers, ids, calls, rounds, budget_ms))
    print(json.dumps({"listings": listings, "callers": callers, "ids": ids, **figures}))


if __name__ == "__main__":
    main()

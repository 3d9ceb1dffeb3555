"""Reads scores for an asyncio program, each call within its time budget."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

from redis.asyncio import RedisCluster
from redis.exceptions import RedisError

from schemas import record_key
from stream.lookup.answer import Answer, Score
from stream.lookup.cache import Cache
from stream.lookup.tracking import Tracker
from stream.redis_client import connect

log = logging.getLogger("image_score.lookup")
NEUTRAL = 0.5
_PROBES = 8
"""Round trips under way at once while Redis has answered none since a call gave up: the others do not even wait."""
_Records = dict[str, bytes | None]


class Stats(NamedTuple):
    """Counts since the reader began."""

    asked: int
    late: int
    """Listings that were answered with the neutral score because Redis did not answer in time."""
    hits: int
    misses: int
    invalidated: int
    """Cached records that were dropped because they changed."""
    cached: int
    tracking: bool
    """Whether changes are heard of; while they are not, a cached record is at most `ttl_s` old."""


class AsyncScoreReader:
    """Reads scores; use as an async context manager, in one event loop.

    Args:
        url: as `stream.redis_client` describes.
        budget_s: a call answers within this time, with what it has.
        neutral: the score, 0..1, of a listing that has none.
        cache_size: listings kept here; 0: none. A listing takes about 250 bytes.
        ttl_s: the longest that a kept record is used; mostly Redis tells within milliseconds that it changed.
        replicas: read from replicas (Sentinel, Cluster), which may be a little behind.
        ssl_ca: PEM file of the authority that signed the servers.
        max_fetches: round trips under way at once; past that, calls answer at once with what is here.
        timeout_s: a round trip that takes longer is given up, and its connection closed.

    Raises:
        ValueError: the URL cannot be read.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        budget_s: float = 0.02,
        neutral: float = NEUTRAL,
        cache_size: int = 100_000,
        ttl_s: float = 60.0,
        replicas: bool = False,
        ssl_ca: str = "",
        max_fetches: int = 256,
        timeout_s: float = 1.0,
    ) -> None:
        self._client = connect(
            url,
            ssl_ca,
            replicas,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            max_connections=2 * max_fetches,
        )
        self._budget_s = budget_s
        self._neutral = neutral
        self._cache = Cache(cache_size, ttl_s)
        self._tracker = Tracker(self._client, self._cache.invalidate, self._cache.clear) if cache_size else None
        self._max_fetches = max_fetches
        self._fetching: set[asyncio.Task[_Records]] = set()
        self._asked = self._late = self._failures = 0
        self._logged_at = 0.0
        self._answered = True

    async def __aenter__(self) -> Self:
        if self._tracker:
            self._tracker.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracker:
            await self._tracker.stop()
        for fetch in self._fetching:
            fetch.cancel()
        await asyncio.gather(*self._fetching, return_exceptions=True)
        await self._client.aclose()

    async def get(self, listing_id: str, budget_s: float | None = None) -> Score:
        """Return one listing's score."""
        return (await self.get_many([listing_id], budget_s))[listing_id]

    async def get_many(self, ids: Sequence[str], budget_s: float | None = None) -> Answer:
        """Return the scores of these listings, in one round trip at most, within `budget_s` (default: the reader's).

        Never raises because of Redis: what it did not say in time is in `late`.
        """
        self._asked += len(ids)
        found, missing, coming = self._cache.split(ids)
        if missing and len(self._fetching) < (self._max_fetches if self._answered else _PROBES):
            fetch = asyncio.create_task(self._fetch(missing))
            self._fetching.add(fetch)
            fetch.add_done_callback(partial(self._fetched, missing))
            self._cache.asking(missing, fetch)
            coming[fetch] = missing
        if coming:
            done, pending = await asyncio.wait(coming, timeout=self._budget_s if budget_s is None else budget_s)
            self._answered = self._answered and not pending
            for fetch in done:
                if fetch.cancelled() or fetch.exception() is not None:
                    continue
                records, wanted = fetch.result(), coming[fetch]
                if len(wanted) == len(records):
                    found |= records
                else:
                    found.update((listing, records[listing]) for listing in wanted)
        answer = Answer(ids, found, self._neutral)
        self._late += len(answer.late)
        return answer

    async def ready(self, within_s: float = 1.0) -> bool:
        """Say whether Redis answers."""
        try:
            async with asyncio.timeout(within_s):
                await self._client.ping()
        except (RedisError, OSError):
            return False
        return True

    def stats(self) -> Stats:
        cache, tracking = self._cache, self._tracker is not None and self._tracker.listening
        return Stats(self._asked, self._late, cache.hits, cache.misses, cache.invalidated, len(cache), tracking)

    async def _fetch(self, ids: list[str]) -> _Records:
        if isinstance(self._client, RedisCluster):
            pipeline = self._client.pipeline()
            for listing in ids:
                pipeline.get(record_key(listing))
            return dict(zip(ids, await pipeline.execute(), strict=True))
        pool: Any = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(_mget(ids))
            values = await connection.read_response()
        finally:
            await pool.release(connection)
        return dict(zip(ids, values, strict=True))

    def _fetched(self, ids: list[str], fetch: asyncio.Task[_Records]) -> None:
        self._fetching.discard(fetch)
        if fetch.cancelled() or (error := fetch.exception()) is not None:
            self._cache.failed(ids, fetch)
            if not fetch.cancelled():
                self._log_failure(error)
        else:
            self._answered = True
            self._cache.answered(fetch, fetch.result())

    def _log_failure(self, error: BaseException | None) -> None:
        """Log at most once a second: while Redis is away, every call fails."""
        self._failures += 1
        now = time.monotonic()
        if now - self._logged_at >= 1:
            log.warning("%d lookups failed since the last such line, the last one: %r", self._failures, error)
            self._logged_at, self._failures = now, 0


def _mget(ids: list[str]) -> list[bytes]:
    """Return the command as it is sent; redis-py takes longer to pack hundreds of keys than Redis to answer."""
    keys = [record_key(listing) for listing in ids]
    if all(map(str.isascii, ids)):
        words = "".join([f"${len(key)}\r\n{key}\r\n" for key in keys]).encode()
    else:
        words = b"".join(b"$%d\r\n%s\r\n" % (len(key), key) for key in map(str.encode, keys))
    return [b"*%d\r\n$4\r\nMGET\r\n" % (len(keys) + 1) + words]

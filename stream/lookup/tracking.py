"""Hears from Redis which records change (client-side caching, RESP3): https://redis.io/docs/latest/develop/reference/client-side-caching/

One connection to each server that is read from, in broadcasting mode: the servers remember nothing per key, and the
connections that carry the data need not be tracked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from stream.redis_client import Address, AnyRedis, connection_to, nodes

log = logging.getLogger("image_score.lookup")
_PREFIX = b"image_score:{"
_REFRESH_S = 2.0
_SILENT_S = 5.0
_BACK_OFF_S = 0.5


class Tracker:
    """Calls `changed` with each listing whose record changed, and `lost` when changes may have been missed."""

    def __init__(self, client: AnyRedis, changed: Callable[[str], None], lost: Callable[[], None]) -> None:
        self._client = client
        self._changed = changed
        self._lost = lost
        self._listeners: dict[Address, asyncio.Task[None]] = {}
        self._listening: set[Address] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def listening(self) -> bool:
        """Whether every server that is read from is listened to."""
        return bool(self._listeners) and self._listening == self._listeners.keys()

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        tasks = [*self._listeners.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        """Listen to the servers that are there now: fail-overs and new nodes change them."""
        while True:
            try:
                there = await nodes(self._client)
            except (RedisError, OSError) as error:
                log.warning("lookup: the servers are not known just now: %s", error)
            else:
                for address in self._listeners.keys() - there:
                    self._listeners.pop(address).cancel()
                for address in there - self._listeners.keys():
                    self._listeners[address] = asyncio.create_task(self._listen(address))
            await asyncio.sleep(_REFRESH_S)

    async def _listen(self, address: Address) -> None:
        while True:
            connection = connection_to(self._client, address, socket_timeout=None)
            try:
                await self._receive(connection, address)
            except (RedisError, OSError) as error:
                log.warning("lookup: %s:%d does not tell of changes (%s); trying again", *address, error)
            finally:
                self._listening.discard(address)
                with contextlib.suppress(RedisError, OSError):
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(_BACK_OFF_S)

    async def _receive(self, connection: Any, address: Address) -> None:
        async with asyncio.timeout(_SILENT_S):
            await connection.connect()
        connection._parser.set_invalidation_push_handler(self._invalidated)
        await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", _PREFIX)
        async with asyncio.timeout(_SILENT_S):
            await connection.read_response()
        # What changed before now was not told.
        self._lost()
        self._listening.add(address)
        told = partial(connection.read_response, disconnect_on_error=False, push_request=True)
        while True:
            try:
                async with asyncio.timeout(_REFRESH_S):
                    await told()
            except TimeoutError:
                await connection.send_command("PING")
                async with asyncio.timeout(_SILENT_S):
                    await told()

    async def _invalidated(self, push: list[Any]) -> None:
        keys = push[1]
        if keys is None:  # FLUSHALL
            self._lost()
            return
        for key in keys:
            # image_score:{listing} or image_score:{listing}:deleted
            listing, brace, _ = key[len(_PREFIX) :].rpartition(b"}")
            if brace:
                self._changed(listing.decode(errors="replace"))

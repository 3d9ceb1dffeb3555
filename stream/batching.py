"""Sends what many callers want sent in few requests: while one is under way, the next batch gathers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """`send` takes a batch of at most `limit` items and returns one answer for each, in their order."""

    def __init__(self, send: Callable[[list[Item]], Awaitable[Sequence[Answer]]], limit: int) -> None:
        self._send = send
        self._limit = limit
        self._queue: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._flush: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """Return the item's answer.

        Raises:
            Exception: what `send` raised for its batch.
        """
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((item, done))
        if self._flush is None:
            self._flush = asyncio.create_task(self._flush_queue())
        return await done

    def close(self) -> None:
        if self._flush:
            self._flush.cancel()

    async def _flush_queue(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[: self._limit], self._queue[self._limit :]
                try:
                    answers = await self._send([item for item, _ in batch])
                except Exception as error:
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(error)
                    continue
                for (_, done), answer in zip(batch, answers, strict=True):
                    if not done.done():
                        done.set_result(answer)
        finally:
            self._flush = None

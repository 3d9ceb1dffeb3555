"""A bound on the bytes held at once."""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """Hands out bytes first come, first served. Take all that a piece of work needs at once, or two may deadlock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def exhausted(self) -> bool:
        """Whether somebody waits for bytes."""
        return bool(self._waiting)

    async def acquire(self, size: int) -> int:
        """Wait until `size` bytes are free, take them, and return what to release: at most the limit.

        Size 0 takes nothing, but waits its turn.
        """
        size = min(size, self._limit)
        if not self._waiting and self._used + size <= self._limit:
            self._used += size
            return size
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.release(size)
            raise
        return size

    def release(self, size: int) -> None:
        """Give back what `acquire` returned."""
        self._used -= size
        while self._waiting:
            size, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
            elif self._used + size <= self._limit:
                self._waiting.popleft()
                self._used += size
                turn.set_result(None)
            else:
                return

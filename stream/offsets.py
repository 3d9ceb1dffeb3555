"""Which offset of a partition may be committed when records finish out of order."""

from __future__ import annotations

from collections import deque


class PartitionOffsets:
    """Tracks one partition: the committable offset is the lowest unfinished one."""

    def __init__(self) -> None:
        self._started: deque[int] = deque()
        self._finished: set[int] = set()
        self._committable: int | None = None
        self._committed: int | None = None

    def start(self, offset: int) -> None:
        """Note that work on `offset` began; offsets must come in increasing order."""
        self._started.append(offset)

    def finish(self, offset: int) -> None:
        """Note that all effects of `offset` are done."""
        self._finished.add(offset)
        while self._started and self._started[0] in self._finished:
            done = self._started.popleft()
            self._finished.remove(done)
            self._committable = done + 1

    def take_committable(self) -> int | None:
        """Return the offset to commit, or None when nothing was finished since the last call."""
        if self._committable == self._committed:
            return None
        self._committed = self._committable
        return self._committable

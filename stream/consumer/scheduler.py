"""Which record is next: one at a time of each key, different keys at once, partitions in turn."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Lane = tuple[Hashable, Hashable]
"""(partition, key): what is kept in order."""


class Waiting(NamedTuple, Generic[Item]):
    item: Item
    due: float


class KeyScheduler(Generic[Item]):
    """Holds items until they may run. Times are in seconds of any clock, the same in all calls.

    Every operation takes constant time, but for items that are not due yet (logarithmic) and for `drop`.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, dict[Hashable, deque[Waiting[Item]]]] = {}
        self._ready: dict[Hashable, deque[Hashable]] = {}
        self._turns: deque[Hashable] = deque()
        self._later: list[tuple[float, int, Hashable, Hashable]] = []
        self._serial = itertools.count()

    def add(self, partition: Hashable, key: Hashable, item: Item, due: float = 0.0) -> None:
        """Queue an item behind the others of its key; it runs at `due` or later."""
        queues = self._queues.setdefault(partition, {})
        queue = queues.get(key)
        if queue is None:
            queues[key] = deque((Waiting(item, due),))
            self._make_ready(partition, key, due)
        else:
            queue.append(Waiting(item, due))

    def next(self, now: float) -> tuple[Hashable, Hashable, Item] | None:
        """Return (partition, key, item) of the next item, or None; call `done` when it has run."""
        while self._later and self._later[0][0] <= now:
            _, _, partition, key = heapq.heappop(self._later)
            if key in self._queues.get(partition, ()):
                self._make_ready(partition, key, 0.0)
        if not self._turns:
            return None
        partition = self._turns.popleft()
        ready = self._ready[partition]
        key = ready.popleft()
        if ready:
            self._turns.append(partition)
        else:
            del self._ready[partition]
        # The running item stays at the head of its queue, and so holds up those behind it.
        return partition, key, self._queues[partition][key][0].item

    def done(self, partition: Hashable, key: Hashable, again_at: float | None = None) -> None:
        """End the running item of a key, or, with `again_at`, let it run again then, still before those behind it."""
        queues = self._queues.get(partition)
        queue = queues.get(key) if queues else None
        if queues is None or queue is None:
            return  # dropped meanwhile
        if again_at is not None:
            queue[0] = Waiting(queue[0].item, again_at)
        else:
            queue.popleft()
        if queue:
            self._make_ready(partition, key, queue[0].due)
        else:
            del queues[key]

    def drop(self, partition: Hashable) -> None:
        """Forget a partition. Items that run are not stopped; their `done` changes nothing any more."""
        self._queues.pop(partition, None)
        self._later = [entry for entry in self._later if entry[2] != partition]
        heapq.heapify(self._later)
        if self._ready.pop(partition, None):
            self._turns.remove(partition)

    @property
    def next_due(self) -> float | None:
        """When the first of the items that are not due yet is due."""
        return self._later[0][0] if self._later else None

    def _make_ready(self, partition: Hashable, key: Hashable, due: float) -> None:
        if due > 0:
            heapq.heappush(self._later, (due, next(self._serial), partition, key))
            return
        ready = self._ready.get(partition)
        if ready is None:
            self._ready[partition] = ready = deque()
            self._turns.append(partition)
        ready.append(key)

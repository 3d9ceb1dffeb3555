"""A bounded cache whose entries expire, and are dropped when Redis says that they changed."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any


class Cache:
    """The records that were used last, each for `ttl_s` (less up to a tenth, so that not all expire at once).

    A value that was asked for before its key changed must not be kept after: `asking` notes what is under way, and
    `invalidate` makes its answer unfit to keep.
    """

    def __init__(self, size: int, ttl_s: float) -> None:
        self._size = size
        self._ttl_s = ttl_s
        self._entries: OrderedDict[str, tuple[bytes | None, float]] = OrderedDict()
        self._asked: dict[str, Any] = {}
        self.hits = self.misses = self.invalidated = 0

    def __len__(self) -> int:
        return len(self._entries)

    def split(self, ids: Sequence[str]) -> tuple[dict[str, bytes | None], list[str], set[Any]]:
        """Return what is here, what must be asked for, and the fetches under way that will bring the rest."""
        if not self._size:
            return {}, list(dict.fromkeys(ids)), set()
        now, entries, asked = time.monotonic(), self._entries, self._asked
        found: dict[str, bytes | None] = {}
        missing: dict[str, None] = {}
        fetches = set()
        for listing in ids:
            entry = entries.get(listing)
            if entry is not None and entry[1] > now:
                found[listing] = entry[0]
                entries.move_to_end(listing)
            elif (fetch := asked.get(listing)) is not None:
                fetches.add(fetch)
            else:
                missing[listing] = None
        self.hits += len(found)
        self.misses += len(missing)
        return found, list(missing), fetches

    def asking(self, ids: Iterable[str], fetch: Any) -> None:
        """Note that `fetch` will bring these."""
        if self._size:
            self._asked.update(dict.fromkeys(ids, fetch))

    def answered(self, ids: Iterable[str], fetch: Any, records: dict[str, bytes | None] | None) -> None:
        """Keep what `fetch` brought (None: it failed), but for what has changed since it was asked."""
        if not self._size:
            return
        until = time.monotonic() + self._ttl_s * random.uniform(0.9, 1.0)
        entries, asked = self._entries, self._asked
        for listing in ids:
            if asked.get(listing) is fetch:
                del asked[listing]
                if records is not None:
                    entries[listing] = records[listing], until
        while len(entries) > self._size:
            entries.popitem(last=False)

    def invalidate(self, listing_id: str) -> None:
        """Forget a listing."""
        self._asked.pop(listing_id, None)
        if self._entries.pop(listing_id, None) is not None:
            self.invalidated += 1

    def clear(self) -> None:
        """Forget all."""
        self.invalidated += len(self._entries)
        self._entries.clear()
        self._asked.clear()

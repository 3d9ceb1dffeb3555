"""A bounded cache whose entries expire, and are dropped when Redis says that they changed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

_JOINED = 8
_Entry = Any
"""The record (none: empty) and eight bytes of when it expires; or the fetch that will bring it.

Bytes rather than a tuple: the garbage collector need not look at them, which was a third of the slowest calls' time.
"""


class Cache:
    """About the `size` records that were used last, each for `ttl_s`, less up to a tenth: not all expire at once.

    Entries are in two generations: what is used moves to the young one, and when that holds half of the size it
    becomes the old one, whose rest is forgotten at once. That takes two dictionary look-ups and no list to keep.

    A listing that is being asked for has its fetch as entry, so that others wait for the same, and so that an answer
    which a change has overtaken finds no place to be kept.
    """

    def __init__(self, size: int, ttl_s: float) -> None:
        self._size = size
        self._ttl_s = ttl_s
        self._young: dict[str, _Entry] = {}
        self._old: dict[str, _Entry] = {}
        self.hits = self.misses = self.invalidated = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def split(self, ids: Sequence[str]) -> tuple[dict[str, bytes | None], list[str], dict[Any, list[str]]]:
        """Return what is here, what must be asked for, and what each fetch that is under way will bring."""
        found: dict[str, bytes | None] = {}
        coming: dict[Any, list[str]] = {}
        if not self._size:
            return found, list(dict.fromkeys(ids)), coming
        missing: dict[str, None] = {}
        now, young, old = _stamp(time.monotonic()), self._young, self._old
        for listing in ids:
            entry = young.get(listing)
            if entry is None and (entry := old.pop(listing, None)) is not None:
                young[listing] = entry
            if entry is None:
                missing[listing] = None
            elif entry.__class__ is bytes:
                if entry[-8:] > now:
                    found[listing] = entry[:-8] or None
                else:
                    missing[listing] = None
            elif entry in coming:
                coming[entry].append(listing)
            elif len(coming) < _JOINED:  # to wait for each of very many costs more than to ask again
                coming[entry] = [listing]
            else:
                missing[listing] = None
        self.hits += len(found)
        self.misses += len(missing)
        return found, list(missing), coming

    def asking(self, ids: Sequence[str], fetch: Any) -> None:
        """Note that `fetch` will bring these."""
        if not self._size:
            return
        if 2 * len(self._young) >= self._size:
            self._old, self._young = self._young, {}
        self._young.update(dict.fromkeys(ids, fetch))

    def answered(self, fetch: Any, records: dict[str, bytes | None]) -> None:
        """Keep what `fetch` brought, but for what has changed since it was asked."""
        if not self._size:
            return
        until = _stamp(time.monotonic() + self._ttl_s * random.uniform(0.9, 1.0))
        young, old = self._young, self._old
        for listing, record in records.items():
            if young.get(listing) is fetch:
                young[listing] = (record or b"") + until
            elif old.get(listing) is fetch:
                old[listing] = (record or b"") + until

    def failed(self, ids: Sequence[str], fetch: Any) -> None:
        """Wait no longer for what `fetch` was to bring."""
        for generation in (self._young, self._old):
            for listing in ids:
                if generation.get(listing) is fetch:
                    del generation[listing]

    def invalidate(self, listing: str) -> None:
        """Forget a listing."""
        if (self._young.pop(listing, None) or self._old.pop(listing, None)) is not None:
            self.invalidated += 1

    def clear(self) -> None:
        """Forget all."""
        self.invalidated += len(self)
        self._young, self._old = {}, {}


def _stamp(at: float) -> bytes:
    """Return a time as bytes that sort as times do."""
    return round(at * 1000).to_bytes(8, "big")

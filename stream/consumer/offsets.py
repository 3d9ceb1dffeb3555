"""Which offset of a partition may be committed when records finish out of order, and what is finished beyond it.

The committed offset is the lowest unfinished one. The finished offsets beyond it travel in the commit's metadata, a
string of at most 4,096 characters: `pc1r:` (run lengths) or `pc1b:` (bitset), whichever is shorter, then base 85.
Both describe the offsets from the committed one up to the highest finished one.

- Run lengths: LEB128 numbers; lengths of runs that are unfinished, finished, unfinished, and so on.
- Bitset: one bit an offset, the first in the lowest bit of the first byte; 1 is finished.

Offsets that hold no record (compacted away, transaction markers) count as finished.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

MAX_METADATA = 4096
"""Kafka's default `offset.metadata.max.bytes`."""
MAX_SPAN = 25_000
"""Offsets between the committed and the highest started one. As a bitset, 26,176 always fit; a poll may go beyond."""
_RUNS, _BITS = "pc1r:", "pc1b:"


def encode(base: int, unfinished: Iterable[int], end: int) -> str:
    """Return the metadata for a commit of `base`.

    `unfinished` increases and starts with `base`; every other offset before `end` is finished.
    Nothing is finished beyond `base`, if `end` is not beyond it: the text is empty.
    """
    if end <= base + 1:
        return ""
    offsets = list(unfinished)
    texts = [_RUNS + base64.b85encode(bytes(_leb128(_runs(base, offsets, end)))).decode()]
    size = (end - base + 7) // 8
    if size < min(len(texts[0]), MAX_METADATA):
        bits = (1 << (end - base)) - 1
        for offset in offsets:
            bits ^= 1 << (offset - base)
        texts.append(_BITS + base64.b85encode(bits.to_bytes(size, "little")).decode())
    text = min(texts, key=len)
    if len(text) <= MAX_METADATA:
        return text
    # A long stretch without records came in between: what does not fit is done again after a crash.
    end = base + (end - base) // 2
    return encode(base, [offset for offset in offsets if offset < end], end)


def decode(base: int, metadata: str | None) -> tuple[list[int], int]:
    """Return (unfinished offsets, end) as `encode` took them; what we did not write is read as ([], base).

    Raises:
        ValueError: it claims to be ours, but is damaged.
    """
    text = metadata or ""
    if not text.startswith((_RUNS, _BITS)):
        return [], base
    data = base64.b85decode(text[len(_RUNS) :])
    if text.startswith(_BITS):
        bits = int.from_bytes(data, "little")
        end = base + bits.bit_length()
        return [base + i for i in range(end - base) if not bits >> i & 1], end
    offsets: list[int] = []
    end, finished = base, False
    for length in _from_leb128(data):
        if not finished:
            if len(offsets) + length > 8 * MAX_METADATA:
                raise ValueError(f"{length} unfinished offsets are more than fit")
            offsets += range(end, end + length)
        end, finished = end + length, not finished
    return offsets, end


def _runs(base: int, unfinished: list[int], end: int) -> Iterator[int]:
    """Yield the lengths of the runs; the first is unfinished."""
    run, after = 0, base
    for offset in unfinished:
        if offset == after:
            run += 1
        else:
            yield run
            yield offset - after
            run = 1
        after = offset + 1
    yield run
    if end > after:
        yield end - after


def _leb128(numbers: Iterable[int]) -> Iterator[int]:
    for number in numbers:
        while number > 127:
            yield number & 127 | 128
            number >>= 7
        yield number


def _from_leb128(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield number
            number = shift = 0
        elif shift > 28:
            raise ValueError("a run length is too long")
    if shift:
        raise ValueError("the last run length is cut off")


class PartitionOffsets:
    """Tracks one partition from the `committed` offset (None: none yet) and its metadata on.

    Raises:
        ValueError: the metadata is damaged.
    """

    def __init__(self, committed: int | None = None, metadata: str | None = None) -> None:
        self._started: deque[int] = deque()
        self._finished: set[int] = set()
        self._next = self._first = self._end = committed or 0
        self._before: deque[int] = deque()  # what the owner before us had not finished, up to _done_before
        if committed is not None:
            unfinished, self._end = decode(committed, metadata)
            self._before.extend(unfinished)
        self._done_before = self._end
        self.dirty = False

    def start(self, offset: int) -> bool:
        """Take note of a polled offset, in increasing order; return whether work on it is needed."""
        if offset < self._first:  # the topic was made anew: what was committed speaks of other records
            self._before.clear()
            self._first = self._done_before = self._end = 0
        self._started.append(offset)
        self._next = offset + 1
        before = self._before
        while before and before[0] < offset:
            before.popleft()
        if offset >= self._done_before or (before and before[0] == offset):
            return True
        self.finish(offset)
        return False

    def finish(self, offset: int) -> None:
        """Note that all effects of `offset` are done."""
        self._finished.add(offset)
        self._end = max(self._end, offset + 1)
        self.dirty = True
        while self._started and self._started[0] in self._finished:
            self._finished.remove(self._started.popleft())

    @property
    def committable(self) -> int:
        """The lowest offset that is not known to be finished."""
        if self._started:
            return self._started[0]
        return next(self._still_before(), max(self._next, self._done_before))

    @property
    def unfinished(self) -> int:
        """How many started offsets are not finished."""
        return len(self._started) - len(self._finished)

    @property
    def has_room(self) -> bool:
        """Whether the metadata still holds whatever finishes, if more is started."""
        return self._next - self.committable < MAX_SPAN

    def metadata(self) -> str:
        """Return the metadata for a commit of `committable`."""
        started = (offset for offset in self._started if offset < self._end and offset not in self._finished)
        return encode(self.committable, chain(started, self._still_before()), self._end)

    def _still_before(self) -> Iterator[int]:
        """Yield what the owner before us had not finished and we have not polled yet."""
        return (offset for offset in self._before if offset >= self._next)

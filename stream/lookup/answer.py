"""What a lookup answers."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from schemas import MessageError, RedisRecord
from schemas.redis_record import SIZE

_SCORE = struct.Struct("<4xH").unpack_from


class Score(NamedTuple):
    """The score of one listing, 0..1."""

    score: float
    """The neutral score when `record` is None."""
    record: RedisRecord | None
    """None: not scored, deleted, damaged, or not known in time."""
    late: bool
    """Whether Redis did not answer in time."""


class Answer:
    """What is known of the listings that were asked for, in their order.

    A record is decoded when it is looked at: a page needs the scores of hundreds and the details of a few.
    """

    __slots__ = ("_records", "ids", "late", "neutral")

    def __init__(self, ids: Sequence[str], records: dict[str, bytes | None], neutral: float) -> None:
        self.ids = ids
        self._records = records
        self.neutral = neutral
        self.late: list[str] = (
            [] if len(records) >= len(ids) else [listing for listing in ids if listing not in records]
        )
        """Listings of which Redis said nothing in time."""

    def scores(self) -> list[float]:
        """Return the score of each listing, 0..1; the neutral one where there is none."""
        records, neutral = self._records, self.neutral
        return [
            _SCORE(data)[0] / 65535 if (data := records.get(listing)) and len(data) >= SIZE and data[0] else neutral
            for listing in self.ids
        ]

    def record(self, listing_id: str) -> RedisRecord | None:
        """Return a listing's whole record; None when it has none, or a damaged one."""
        data = self._records.get(listing_id)
        if data is None:
            return None
        try:
            return RedisRecord.from_bytes(data)
        except MessageError:
            return None

    def __getitem__(self, listing_id: str) -> Score:
        record = self.record(listing_id)
        return Score(self.neutral if record is None else record.score, record, listing_id not in self._records)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.ids, self.scores(), strict=True)

    def __len__(self) -> int:
        return len(self.ids)

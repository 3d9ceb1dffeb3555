"""The offset that may be committed, against a simple model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.offsets import PartitionOffsets


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.randoms())
def test_committed_offset_is_the_lowest_unfinished_one(gaps: list[int], random: object) -> None:
    """Offsets have gaps (compaction, transactions); work finishes in any order."""
    offsets = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    tracker = PartitionOffsets()
    for offset in offsets:
        tracker.start(offset)
    unfinished, committed = set(offsets), None
    order = offsets.copy()
    random.shuffle(order)  # type: ignore[attr-defined]
    for offset in order:
        tracker.finish(offset)
        unfinished.remove(offset)
        done = [o for o in offsets if all(o < left for left in unfinished)]
        expected = done[-1] + 1 if done else None
        taken = tracker.take_committable()
        assert taken == (expected if expected != committed else None)
        committed = expected


def test_nothing_finished_is_nothing_to_commit() -> None:
    tracker = PartitionOffsets()
    tracker.start(5)
    assert tracker.take_committable() is None

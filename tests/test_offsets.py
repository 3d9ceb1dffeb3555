"""The committed offset, and what its metadata says is finished beyond it, against a simple model."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.consumer.offsets import MAX_METADATA, MAX_SPAN, PartitionOffsets, decode, encode


@given(st.integers(0, 2**40), st.lists(st.booleans(), max_size=3000))
def test_what_is_encoded_is_decoded(base: int, finished: list[bool]) -> None:
    flags = [False, *finished, True]
    unfinished = [base + i for i, done in enumerate(flags) if not done]
    end = base + len(flags)
    assert decode(base, encode(base, unfinished, end)) == (unfinished, end)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_metadata_of_the_longest_span_fits(share: float) -> None:
    chance = random.Random(1)
    unfinished = [0, *(i for i in range(1, MAX_SPAN) if chance.random() < share)]
    text = encode(0, unfinished, MAX_SPAN + 1)
    assert len(text) <= MAX_METADATA
    assert decode(0, text) == (unfinished, MAX_SPAN + 1)


def test_worst_case_for_both_encodings_fits() -> None:
    every_second = list(range(0, MAX_SPAN, 2))
    assert len(encode(0, every_second, MAX_SPAN)) <= MAX_METADATA


def test_what_does_not_fit_beyond_a_gap_is_left_out_and_would_be_done_again() -> None:
    """Compaction may leave any number of offsets without records."""
    unfinished = [0, *range(10**9, 10**9 + 20_000, 2)]
    text = encode(0, unfinished, 10**9 + 20_000)
    assert len(text) <= MAX_METADATA
    left, end = decode(0, text)
    assert left == [offset for offset in unfinished if offset < end]


def test_long_runs_take_few_characters_and_nothing_beyond_takes_none() -> None:
    assert len(encode(10**12, [10**12], 10**12 + 20_000)) < 15
    assert encode(5, [5], 6) == ""
    assert encode(5, [], 5) == ""


@given(st.binary(max_size=200), st.sampled_from(["pc1r:", "pc1b:", ""]))
def test_damaged_metadata_is_a_value_error_or_small(data: bytes, prefix: str) -> None:
    text = prefix + data.decode("latin-1")
    try:
        unfinished, end = decode(7, text)
    except ValueError:
        return
    assert len(unfinished) <= 8 * MAX_METADATA
    assert all(7 <= offset < end for offset in unfinished)


def test_metadata_of_somebody_else_is_ignored() -> None:
    assert decode(3, "their own note") == ([], 3)
    assert decode(3, None) == ([], 3)


@given(st.data())
def test_after_any_number_of_crashes_nothing_is_lost_and_nothing_done_is_done_again(data: st.DataObject) -> None:
    """A model: a topic with gaps, an owner that finishes in any order, commits now and then, and dies."""
    topic = sorted(data.draw(st.sets(st.integers(0, 120), min_size=1, max_size=60)))
    committed: tuple[int | None, str] = (None, "")
    known_done: set[int] = set()
    for _ in range(data.draw(st.integers(1, 4))):
        offsets = PartitionOffsets(*committed)
        done = set(known_done)
        running: list[int] = []
        start = committed[0] or 0
        for offset in [o for o in topic if o >= start][: data.draw(st.integers(0, 60))]:
            needed = offsets.start(offset)
            assert needed == (offset not in known_done)
            if needed:
                running.append(offset)
            for finished in [o for o in running if data.draw(st.booleans())]:
                running.remove(finished)
                offsets.finish(finished)
                done.add(finished)
            if data.draw(st.integers(0, 9)) == 0:
                committed, known_done = (offsets.committable, offsets.metadata()), set(done)
        assert offsets.unfinished == len(running)
        assert all(o in done for o in topic if o < offsets.committable), "an unfinished offset would be lost"
        if data.draw(st.booleans()):
            committed, known_done = (offsets.committable, offsets.metadata()), set(done)


def test_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    offsets = PartitionOffsets(1000, encode(1000, [1000], 1100))
    assert all(offsets.start(offset) for offset in range(1200))


def test_no_room_when_the_oldest_record_does_not_finish() -> None:
    offsets = PartitionOffsets()
    for offset in range(MAX_SPAN):
        assert offsets.has_room
        offsets.start(offset)
        if offset:
            offsets.finish(offset)
    assert not offsets.has_room
    assert len(offsets.metadata()) <= MAX_METADATA
    offsets.finish(0)
    assert offsets.has_room
    assert offsets.committable == MAX_SPAN


def test_a_million_offsets_take_seconds_at_most() -> None:
    """In constant time each; quadratic would take hours."""
    offsets, started = PartitionOffsets(), time.monotonic()
    for offset in range(1_000_000):
        offsets.start(offset)
        if offset >= 1000:
            offsets.finish(offset - 1000 + (1 if offset % 2 else -1) if offset > 1000 else 0)
    assert time.monotonic() - started < 30

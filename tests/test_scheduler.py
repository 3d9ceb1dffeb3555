"""The scheduler of records against a simple model."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from stream.consumer.scheduler import KeyScheduler


def test_partitions_take_turns_whatever_they_hold() -> None:
    scheduler: KeyScheduler[int] = KeyScheduler()
    for i in range(100):
        scheduler.add("full", i, i)
    scheduler.add("quiet", 1, -1)
    scheduler.add("quiet", 2, -2)
    first = [scheduler.next(0.0) for _ in range(4)]
    assert [entry[0] for entry in first if entry] == ["full", "quiet", "full", "quiet"]


def test_one_key_runs_one_at_a_time_in_order() -> None:
    scheduler: KeyScheduler[int] = KeyScheduler()
    for i in range(3):
        scheduler.add(0, "key", i)
    for i in range(3):
        assert scheduler.next(0.0) == (0, "key", i)
        assert scheduler.next(0.0) is None
        scheduler.done(0, "key")
    assert scheduler.next(0.0) is None


def test_item_that_is_not_due_holds_up_its_key_alone() -> None:
    scheduler: KeyScheduler[str] = KeyScheduler()
    scheduler.add(0, "a", "a1", due=10.0)
    scheduler.add(0, "a", "a2")
    scheduler.add(0, "b", "b1")
    assert scheduler.next(1.0) == (0, "b", "b1")
    assert scheduler.next(1.0) is None
    assert scheduler.next_due == 10.0
    assert scheduler.next(10.0) == (0, "a", "a1")
    scheduler.done(0, "a", again_at=20.0)
    assert scheduler.next(19.0) is None
    assert scheduler.next(20.0) == (0, "a", "a1")
    scheduler.done(0, "a")
    assert scheduler.next(20.0) == (0, "a", "a2")


class Model(RuleBasedStateMachine):
    """Lists of items per (partition, key), and the set of those that run."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler: KeyScheduler[int] = KeyScheduler()
        self.queues: dict[tuple[int, int], list[tuple[int, float]]] = defaultdict(list)
        self.running: set[tuple[int, int]] = set()
        self.now = 0.0
        self.count = 0

    @rule(partition=st.integers(0, 2), key=st.integers(0, 3), delay=st.sampled_from([0, 0, 0, 1, 5]))
    def add(self, partition: int, key: int, delay: int) -> None:
        due = self.now + delay if delay else 0.0
        self.scheduler.add(partition, key, self.count, due)
        self.queues[partition, key].append((self.count, due))
        self.count += 1

    @rule(delay=st.sampled_from([0, 1, 3]))
    def take(self, delay: int) -> None:
        self.now += delay
        runnable = {
            lane: queue[0][0]
            for lane, queue in self.queues.items()
            if queue and lane not in self.running and queue[0][1] <= self.now
        }
        found = self.scheduler.next(self.now)
        assert (found is not None) == bool(runnable), "work was there and was not given, or the other way round"
        if found:
            partition, key, item = found
            assert runnable[partition, key] == item  # type: ignore[index]
            self.running.add((partition, key))  # type: ignore[arg-type]

    @rule(data=st.data(), again=st.sampled_from([None, None, 2]))
    def finish(self, data: st.DataObject, again: int | None) -> None:
        if not self.running:
            return
        lane = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(lane)
        if again:
            self.scheduler.done(*lane, again_at=self.now + again)
            self.queues[lane][0] = self.queues[lane][0][0], self.now + again
        else:
            self.scheduler.done(*lane)
            del self.queues[lane][0]

    @rule(partition=st.integers(0, 2))
    def drop(self, partition: int) -> None:
        self.scheduler.drop(partition)
        for lane in [lane for lane in self.queues if lane[0] == partition]:
            del self.queues[lane]
            self.running.discard(lane)


TestAgainstModel = Model.TestCase
TestAgainstModel.settings = hypothesis_settings(max_examples=200, stateful_step_count=60)

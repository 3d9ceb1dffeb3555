"""Servers and the scorer die in mid-run: every listing still ends in Redis, and on the scores topic."""

from __future__ import annotations

import os
import signal
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas import ImageScore, SellerHint, record_key
from stream.demo.process import PipelineProcess
from stream.embedded import EmbeddedStack
from stream.embedded.server import Server, children
from stream.publish import event_of, publish
from tests.photo_host import PhotoHost
from tests.pipeline import Pipeline, cmdline, committed, listing_id, wait_for

LISTINGS = 300


@pytest.fixture
def own_pipeline(stack: EmbeddedStack, host: PhotoHost) -> Iterator[Pipeline]:
    """A scorer of the test's own. With 40 listings in flight and photos that take a second, faults hit in mid-run."""
    few = {"listings_in_flight": 40, "fetches_per_host": 64}
    settings = stack.settings.model_copy(update={"fetch_allow": (host.address,), **few})
    with Pipeline(settings, host) as pipeline:
        yield pipeline


def publish_many(pipeline: Pipeline) -> list[str]:
    """Publish listings of one photo each; return their ids."""
    listings = [listing_id() for _ in range(LISTINGS)]
    events = [event_of(listing, [pipeline.host.url("late/good.jpg")]) for listing in listings]
    publish(pipeline.settings, events, on_delivery=lambda: None)
    return listings


def run_with_fault(pipeline: Pipeline, fault: Callable[[], None]) -> None:
    """Publish many listings, inject the fault when some are scored, and check that all come through."""
    pipeline.start("worker")
    listings = publish_many(pipeline)
    wait_for(lambda: count(pipeline, listings) >= 20, "first records")
    fault()
    left = LISTINGS - count(pipeline, listings)
    assert left > 50, f"the fault came too late to matter: {left} listings left"
    wait_for(lambda: count(pipeline, listings) == LISTINGS, "records of all listings", timeout_s=90)
    wait_for(lambda: scored(pipeline) >= set(listings), "scores of all listings")
    assert pipeline.dead_letters(None) == []


def count(pipeline: Pipeline, listings: list[str]) -> int:
    return sum(value is not None for value in pipeline.redis.mget([record_key(listing) for listing in listings]))


def scored(pipeline: Pipeline) -> set[str]:
    return {ImageScore.from_json(m.value() or b"").listing_id for m in pipeline.read(pipeline.settings.scores_topic)}


def killed(server: Server) -> None:
    """Kill a server without warning, and start it again."""
    left_behind = children(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    server.restart()
    for pid in left_behind:
        wait_for(lambda pid=pid: not cmdline(Path(f"/proc/{pid}/cmdline")), f"end of its child {pid}", 5)  # type: ignore[misc]


def test_redis_is_restarted(own_pipeline: Pipeline, stack: EmbeddedStack) -> None:
    assert stack.redis is not None
    run_with_fault(own_pipeline, stack.redis.restart)


def test_redis_is_killed(own_pipeline: Pipeline, stack: EmbeddedStack) -> None:
    redis = stack.redis
    assert redis is not None
    run_with_fault(own_pipeline, lambda: killed(redis))


def test_triton_is_restarted(own_pipeline: Pipeline, stack: EmbeddedStack) -> None:
    assert stack.triton is not None
    run_with_fault(own_pipeline, stack.triton.restart)


def test_triton_is_killed(own_pipeline: Pipeline, stack: EmbeddedStack) -> None:
    triton = stack.triton
    assert triton is not None
    run_with_fault(own_pipeline, lambda: killed(triton))


def test_scorer_is_killed_and_started_again(own_pipeline: Pipeline) -> None:
    def kill_and_start() -> None:
        os.kill(own_pipeline.processes["worker"].pid, signal.SIGKILL)
        own_pipeline.processes["worker"].stop()
        own_pipeline.start("worker")

    run_with_fault(own_pipeline, kill_and_start)


def test_a_second_scorer_joins_and_the_first_leaves(own_pipeline: Pipeline) -> None:
    """Partitions change hands twice in mid-run."""
    second = PipelineProcess("worker", own_pipeline.settings)

    def hand_over() -> None:
        second.start()
        second.wait_ready()
        own_pipeline.processes["worker"].stop()

    try:
        run_with_fault(own_pipeline, hand_over)
    finally:
        second.stop()


def test_hints_app_is_killed_and_started_again(own_pipeline: Pipeline) -> None:
    """Every listing gets its hint; one that comes twice has the same id."""
    own_pipeline.start("worker", "hints")
    listings = publish_many(own_pipeline)
    wait_for(lambda: len(hinted(own_pipeline)) >= 20, "first hints")
    os.kill(own_pipeline.processes["hints"].pid, signal.SIGKILL)
    own_pipeline.processes["hints"].stop()
    assert len(hinted(own_pipeline)) < LISTINGS
    own_pipeline.start("hints")
    wait_for(lambda: set(hinted(own_pipeline)) == set(listings), "hints for all listings", timeout_s=120)
    assert all(len(ids) == 1 for ids in hinted(own_pipeline).values())


def hinted(pipeline: Pipeline) -> dict[str, set[uuid.UUID]]:
    """Return the hint ids of each listing."""
    ids: dict[str, set[uuid.UUID]] = defaultdict(set)
    for message in pipeline.read(pipeline.settings.hints_topic):
        hint = SellerHint.from_json(message.value() or b"")
        ids[hint.listing_id].add(hint.hint_id)
    return ids


def test_scorer_drains_and_commits_when_it_is_told_to_stop(own_pipeline: Pipeline) -> None:
    """After SIGTERM, every record in Redis has its offset committed: nothing is scored twice."""
    own_pipeline.start("worker")
    listings = publish_many(own_pipeline)
    wait_for(lambda: count(own_pipeline, listings) >= 20, "first records")
    own_pipeline.processes["worker"].stop(keep_files=True)
    done = count(own_pipeline, listings)
    assert 20 <= done < LISTINGS
    assert committed(own_pipeline.settings) == done
    assert f"stopped: {done} scored" in own_pipeline.processes["worker"].log.read_text()

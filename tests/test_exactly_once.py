"""Exactly once: outputs and offsets in one transaction, and fencing, on real Kafka."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from schemas import ImageScore, SellerHint
from stream.publish import event_of, publish
from tests.pipeline import Pipeline, committed, listing_id, read_topic, wait_for

COUNT = 300


@pytest.fixture
def pipeline(real_pipeline: Pipeline) -> Pipeline:
    changes = {"delivery": "exactly_once", "commit_interval_s": 0.2, "session_timeout_s": 6.0, "listings_in_flight": 40}
    real_pipeline.settings = real_pipeline.settings.model_copy(update=changes)
    return real_pipeline


def scores(pipeline: Pipeline) -> Counter[str]:
    found = read_topic(pipeline.settings, pipeline.settings.scores_topic, **{"isolation.level": "read_committed"})
    return Counter(ImageScore.from_json(message.value() or b"").listing_id for message in found)


def hints(pipeline: Pipeline) -> Counter[str]:
    found = read_topic(pipeline.settings, pipeline.settings.hints_topic, **{"isolation.level": "read_committed"})
    return Counter(SellerHint.from_json(message.value() or b"").listing_id for message in found)


def test_each_listing_has_one_committed_score_and_hint_though_the_scorer_is_killed(pipeline: Pipeline) -> None:
    listings = [listing_id() for _ in range(COUNT)]
    publish(
        pipeline.settings, [event_of(name, [pipeline.host.url("late/good.jpg")]) for name in listings], lambda: None
    )
    pipeline.start("worker", "hints")
    for _ in range(2):
        before = sum(scores(pipeline).values())
        wait_for(lambda before=before: sum(scores(pipeline).values()) > before, "more scores")  # type: ignore[misc]
        os.kill(pipeline.processes["worker"].pid, signal.SIGKILL)
        pipeline.processes["worker"].stop()
        pipeline.start("worker")
    expected = Counter(dict.fromkeys(listings, 1))
    wait_for(lambda: scores(pipeline) >= expected, "scores of all")
    assert scores(pipeline) == expected
    wait_for(lambda: hints(pipeline) >= expected, "hints for all")
    assert hints(pipeline) == expected


def test_suspended_scorer_is_fenced_and_adds_nothing(pipeline: Pipeline) -> None:
    listings = [listing_id() for _ in range(COUNT)]
    publish(
        pipeline.settings, [event_of(name, [pipeline.host.url("late/good.jpg")]) for name in listings], lambda: None
    )
    pipeline.start("worker")
    wait_for(lambda: scores(pipeline), "first scores")
    suspended = pipeline.processes.pop("worker")
    os.kill(suspended.pid, signal.SIGSTOP)
    try:
        pipeline.start("worker")
        expected = Counter(dict.fromkeys(listings, 1))
        wait_for(lambda: scores(pipeline) >= expected, "scores of all", timeout_s=90)
    finally:
        os.kill(suspended.pid, signal.SIGCONT)
    more = pipeline.publish()
    wait_for(lambda: scores(pipeline)[more], "score after the return")
    assert scores(pipeline) == expected + Counter([more])
    wait_for(lambda: committed(pipeline.settings) > 0, "offsets")
    suspended.stop()

"""The fault harness: a short run of it, and broken scorers that its checker must catch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import need_real_kafka
from tests.faults.checker import Checker, Verdict
from tests.faults.cluster import Cluster
from tests.faults.run import Watch, problems, run_rounds, settle
from tests.pipeline import committed, read_topic, wait_for

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    need_real_kafka()
    with Cluster(**getattr(request, "param", {})) as cluster:
        yield cluster


def test_nothing_is_lost_whatever_dies(cluster: Cluster) -> None:
    cluster.start()
    kinds = ("scorer killed", "scorer suspended", "hints app killed", "Redis killed", "Triton returns errors")
    more = ("broker killed", "photo host hangs", "log disk full")
    verdict, done = run_rounds(cluster, rounds=8, seed=1, only=(*kinds, *more))
    assert problems(verdict, cluster) == []
    assert done.total() == 8
    assert verdict.events > 100


@pytest.mark.parametrize("cluster", [{"brokers": 3, "delivery": "exactly_once"}], indirect=True)
def test_each_input_has_one_committed_output_whatever_dies(cluster: Cluster) -> None:
    cluster.start()
    verdict, _ = run_rounds(cluster, rounds=4, seed=1, only=("scorer killed", "scorer suspended", "broker killed"))
    assert problems(verdict, cluster) == []
    assert verdict.events > 50


def judged(cluster: Cluster) -> Verdict:
    checker = Checker(cluster.settings)
    watch = Watch(checker)
    try:
        return settle(cluster, checker, watch, within_s=15)
    finally:
        checker.close()


def wait_until_committed(cluster: Cluster, events: int) -> None:
    """Return as soon as the scorers have committed so many events in all, however slow the machine is."""
    wait_for(lambda: committed(cluster.settings) >= events, f"commit of {events} events", timeout_s=120)


def test_checker_catches_a_scorer_that_commits_early(cluster: Cluster) -> None:
    cluster.start("tests.faults.commits_early")
    cluster.load.resume()
    wait_until_committed(cluster, 50)
    for host in cluster.hosts:
        host.hanging = True
    published = len(read_topic(cluster.settings, cluster.settings.events_topic))
    wait_until_committed(cluster, published + 10)
    for scorer in cluster.scorers:
        scorer.kill()
    for host in cluster.hosts:
        host.hanging = False
    assert judged(cluster).lost


def test_checker_catches_a_scorer_that_ignores_versions(cluster: Cluster) -> None:
    cluster.start("tests.faults.ignores_versions")
    cluster.load.resume()
    wait_until_committed(cluster, 300)
    verdict = judged(cluster)
    assert verdict.older_won
    assert verdict.out_of_order

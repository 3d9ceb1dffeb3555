"""Reading scores at search time, from real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.cluster

from schemas import RedisRecord, record_key
from schemas.redis_record import tombstone_key
from stream.embedded.redis import EmbeddedRedis
from stream.lookup import AsyncScoreReader, ScoreReader
from stream.lookup.cache import Cache
from stream.redis_client import RedisUrl
from stream.settings import load
from stream.store import RecordStore
from tests.bench.lookup import record
from tests.conftest import NO_SKIPS
from tests.pipeline import wait_for
from tests.redis_servers import ClusterGroup, ConfiguredRedis, SentinelGroup, TlsRedis

PATIENT_S = 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis()
    server.start()
    server.wait_ready()
    yield server
    server.stop()


@pytest.fixture
def client(server: EmbeddedRedis) -> redis.Redis:
    client = redis.Redis(port=server.port)
    client.flushall()
    return client


def write(client: redis.Redis, listing: str, number: int) -> None:
    client.set(record_key(listing), record(number))


def score(number: int) -> float:
    return RedisRecord.from_bytes(record(number)).score


def wait_until_tracking(reader: ScoreReader) -> None:
    wait_for(lambda: reader.stats().tracking, "tracking")


def test_many_ids_take_one_round_trip(server: EmbeddedRedis, client: redis.Redis) -> None:
    for number in range(100):
        write(client, f"m{number}", number)
    ids = [f"m{number}" for number in range(110)]
    with ScoreReader(server.url, budget_s=PATIENT_S, cache_size=0) as reader:
        reader.get("warm-up")
        before = client.info("stats")["total_commands_processed"]
        answer = reader.get_many(ids)
        commands = client.info("stats")["total_commands_processed"] - before
    assert answer.scores() == [score(n) for n in range(100)] + [0.5] * 10
    assert answer.late == []
    assert commands == 2  # the MGET, and the first INFO
    assert dict(answer) == dict(zip(ids, answer.scores(), strict=True))


def test_one_listing_has_its_whole_record(server: EmbeddedRedis, client: redis.Redis) -> None:
    write(client, "m1", 700)
    with ScoreReader(server.url, budget_s=PATIENT_S, neutral=0.4) as reader:
        found = reader.get("m1")
        assert found.record == RedisRecord.from_bytes(record(700))
        assert found.score == found.record.score
        assert reader.get("unknown") == (0.4, None, False)


def test_records_that_cannot_be_read_are_neutral(server: EmbeddedRedis, client: redis.Redis) -> None:
    later = b"\x09" + record(300)[1:] + b"what a later version adds"
    for name, data in {"later": later, "short": record(1)[:35], "zero": b"\0" * 36, "empty": b""}.items():
        client.set(record_key(name), data)
    with ScoreReader(server.url, budget_s=PATIENT_S) as reader:
        answer = reader.get_many(["later", "short", "zero", "empty"])
    assert answer.scores() == [score(300), 0.5, 0.5, 0.5]
    assert answer["later"].record is not None
    assert answer["short"] == (0.5, None, False)


def test_ids_of_any_script_are_asked_for(server: EmbeddedRedis, client: redis.Redis) -> None:
    write(client, "ü", 500)
    with ScoreReader(server.url, budget_s=PATIENT_S) as reader:
        assert reader.get_many(["ü", "出品"]).scores() == [score(500), 0.5]


def test_a_change_in_redis_reaches_the_cache(server: EmbeddedRedis, client: redis.Redis) -> None:
    write(client, "m1", 100)
    with ScoreReader(server.url, budget_s=PATIENT_S, ttl_s=3600) as reader:
        wait_until_tracking(reader)
        assert reader.get_many(["m1", "m2"]).scores() == [score(100), 0.5]
        before = client.info("stats")["keyspace_hits"]
        assert reader.get_many(["m1", "m2"]).scores() == [score(100), 0.5]
        assert client.info("stats")["keyspace_hits"] == before, "the second time it asks nobody"
        write(client, "m1", 200)
        write(client, "m2", 300)
        wait_for(lambda: reader.get_many(["m1", "m2"]).scores() == [score(200), score(300)], "new scores", 5)
        client.delete(record_key("m1"))
        client.set(tombstone_key("m1"), "9")
        wait_for(lambda: reader.get("m1").record is None, "deletion", 5)
        client.flushall()
        wait_for(lambda: reader.get("m2").record is None, "flush", 5)


def test_entries_expire_and_the_least_used_go_first() -> None:
    cache, fetch = Cache(4, 0.05), object()

    def keep(*listings: str) -> None:
        for listing in listings:
            cache.asking([listing], fetch)
            cache.answered(fetch, {listing: b"x"})

    keep("a", "b", "c")
    assert set(cache.split(["a"])[0]) == {"a"}
    keep("d", "e")
    assert cache.split(["a", "b", "e"])[1] == ["b"]
    assert len(cache) <= 4
    time.sleep(0.06)
    assert cache.split(["a", "e"])[1] == ["a", "e"]


def test_an_answer_that_a_change_overtook_is_not_kept() -> None:
    cache, fetch = Cache(10, 60), object()
    cache.asking(["a", "b"], fetch)
    cache.invalidate("a")
    cache.answered(fetch, {"a": b"old", "b": b"same"})
    found, missing, _ = cache.split(["a", "b"])
    assert (found, missing) == ({"b": b"same"}, ["a"])


def test_what_a_fetch_failed_to_bring_is_asked_for_again() -> None:
    cache, fetch = Cache(10, 60), object()
    cache.asking(["a"], fetch)
    assert cache.split(["a"]) == ({}, [], {fetch: ["a"]})
    cache.failed(["a"], fetch)
    assert cache.split(["a"]) == ({}, ["a"], {})


def test_callers_who_ask_for_the_same_at_once_share_one_question(server: EmbeddedRedis, client: redis.Redis) -> None:
    write(client, "hot", 900)

    async def run() -> int:
        async with AsyncScoreReader(server.url, budget_s=PATIENT_S) as reader:
            await reader.get("warm-up")
            before = client.info("commandstats")["cmdstat_mget"]["calls"]
            answers = await asyncio.gather(*(reader.get("hot") for _ in range(100)))
            assert {answer.score for answer in answers} == {score(900)}
            return int(client.info("commandstats")["cmdstat_mget"]["calls"] - before)

    assert asyncio.run(run()) == 1


def test_a_stalled_redis_does_not_slow_a_page(server: EmbeddedRedis, client: redis.Redis) -> None:
    write(client, "known", 800)
    with ScoreReader(server.url, budget_s=PATIENT_S, max_fetches=8) as reader:
        wait_until_tracking(reader)
        assert reader.get("known").score == score(800)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for _ in range(20):
                started = time.monotonic()
                answer = reader.get_many(["known", "new"], budget_s=0.05)
                assert time.monotonic() - started < 3.0
                assert answer.scores() == [score(800), 0.5]
                assert answer.late == ["new"]
        finally:
            os.kill(server.pid, signal.SIGCONT)
        wait_for(lambda: not reader.get("new").late, "answer after the stall", 10)
        assert reader.stats().late >= 20


def test_a_redis_that_is_away_is_neutral_and_comes_back() -> None:
    server = EmbeddedRedis()
    with ScoreReader(server.url, budget_s=0.5) as reader:
        assert reader.get("m1") == (0.5, None, True)
        server.start()
        try:
            server.wait_ready()
            write(redis.Redis(port=server.port), "m1", 600)
            wait_for(lambda: reader.get("m1").score == score(600), "score", 10)
            wait_until_tracking(reader)
            assert reader.get("m1").score == score(600)
            server.restart()
            wait_until_tracking(reader)
            write(redis.Redis(port=server.port), "m1", 700)
            wait_for(lambda: reader.get("m1").score == score(700), "new score", 10)
        finally:
            server.stop()


def test_threads_share_one_reader(server: EmbeddedRedis, client: redis.Redis) -> None:
    for number in range(50):
        write(client, f"m{number}", number)
    wrong: list[float] = []
    with ScoreReader(server.url, budget_s=PATIENT_S) as reader:

        def ask(seed: int) -> None:
            for number in range(50):
                found = reader.get(f"m{(number * seed) % 50}").score
                if found != score((number * seed) % 50):
                    wrong.append(found)

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.fixture(scope="module")
def sentinels() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


@pytest.mark.parametrize("replicas", [False, True])
def test_scores_come_through_sentinel_and_stay_fresh(sentinels: SentinelGroup, replicas: bool) -> None:
    client = sentinels.master.client
    write(client, "m1", 100)
    client.wait(2, 5000)
    with ScoreReader(sentinels.url, budget_s=PATIENT_S, replicas=replicas, ttl_s=3600) as reader:
        wait_until_tracking(reader)
        reads = [server.client.info("stats")["keyspace_hits"] for server in sentinels.servers]
        assert reader.get("m1").score == score(100)
        after = [server.client.info("stats")["keyspace_hits"] for server in sentinels.servers]
        asked = [s is sentinels.master for s, a, b in zip(sentinels.servers, reads, after, strict=True) if b > a]
        assert asked == [not replicas]
        write(client, "m1", 200)
        wait_for(lambda: reader.get("m1").score == score(200), "new score", 5)


def test_lookups_go_on_after_a_fail_over(sentinels: SentinelGroup) -> None:
    old = sentinels.master
    write(old.client, "m1", 300)
    old.client.wait(2, 5000)
    with ScoreReader(sentinels.url, budget_s=0.1, ttl_s=3600) as reader:
        wait_until_tracking(reader)
        wait_for(lambda: reader.get("m1").score == score(300), "score", 5)
        old.kill()
        slowest = 0.0
        deadline = time.monotonic() + 30
        while sentinels.master is old and time.monotonic() < deadline:
            started = time.monotonic()
            assert reader.get("m1").score == score(300), "what was known is known"
            reader.get("m2")
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < 3.0
        new = sentinels.master
        assert new is not old
        wait_for(lambda: _wrote(new, "m1", 400), "new master", 10)
        wait_for(lambda: reader.get("m1").score == score(400), "score of the new master", 10)
        wait_until_tracking(reader)
        write(new.client, "m1", 500)
        wait_for(lambda: reader.get("m1").score == score(500), "change at the new master", 10)
    old.stop(keep_files=True)


def _wrote(server: ConfiguredRedis, listing: str, number: int) -> bool:
    try:
        write(server.client, listing, number)
    except redis.RedisError:
        return False
    return True


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterGroup]:
    with ClusterGroup() as group:
        yield group


@pytest.mark.parametrize("replicas", [False, True])
def test_scores_come_from_a_cluster_and_stay_fresh(cluster: ClusterGroup, replicas: bool) -> None:
    client = redis.cluster.RedisCluster("127.0.0.1", cluster.servers[0].port)
    for number in range(50):
        client.set(record_key(f"c{number}"), record(number))
    ids = [f"c{number}" for number in range(60)]
    expected = [score(number) for number in range(50)] + [0.5] * 10
    with ScoreReader(cluster.url, budget_s=PATIENT_S, replicas=replicas, ttl_s=3600) as reader:
        wait_until_tracking(reader)
        wait_for(lambda: reader.get_many(ids).scores() == expected, "scores", 10)
        client.set(record_key("c7"), record(777))
        wait_for(lambda: reader.get("c7").score == score(777), "new score", 5)
        client.delete(record_key("c7"))
        wait_for(lambda: reader.get("c7").record is None, "deletion", 5)
    client.close()


def test_a_user_with_rights_to_read_is_enough_over_tls(certificate: tuple[Path, Path]) -> None:
    server = TlsRedis(*certificate)
    server.start()
    try:
        try:
            server.wait_ready()
        except Exception as error:
            if NO_SKIPS:
                raise
            pytest.skip(f"this redis-server has no TLS ({error}): apt-get install redis-server")
        admin: Any = redis.Redis("127.0.0.1", server.port, ssl=True, ssl_ca_certs=str(certificate[0]))
        write(admin, "m1", 100)
        rules = ["on", ">secret:/@", "~image_score:*", "+mget", "+get", "+client|tracking", "+ping", "+info"]
        admin.execute_command("ACL SETUSER", "search", *rules)
        url = f"rediss://search:secret%3A%2F%40@127.0.0.1:{server.port}/0"
        with ScoreReader(url, budget_s=PATIENT_S, ssl_ca=str(certificate[0])) as reader:
            assert reader.get("m1").score == score(100)
            wait_until_tracking(reader)
            write(admin, "m1", 200)
            wait_for(lambda: reader.get("m1").score == score(200), "new score", 5)
        with ScoreReader(url, budget_s=PATIENT_S) as stranger:
            assert stranger.get("m1").late, "an unknown certificate is not trusted"
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://cache:6379", "the scheme is one of"),
        ("redis://a:1,b:2", "several hosts need"),
        ("redis+sentinel://a:1", "master's name is missing"),
        ("redis://a:1/zero", "the database is a number"),
        ("redis://", "the scheme is one of"),
        ("redis://:1", "a host is missing"),
    ],
)
def test_urls_that_cannot_be_read_say_why(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ScoreReader(url)


def test_urls_hold_users_hosts_and_names() -> None:
    found = RedisUrl.parse("rediss+sentinel://u:p%40@a,b:27000/shop/3")
    assert found == RedisUrl("+sentinel", True, (("a", 26379), ("b", 27000)), "shop", 3, "u", "p@")


def test_the_library_imports_nothing_heavy() -> None:
    heavy = [
        "numpy",
        "aiohttp",
        "confluent_kafka",
        "tritonclient",
        "faust",
        "PIL",
        "pydantic_settings",
        "grpc",
        "click",
    ]
    check = f"import sys, stream.lookup; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["sentinels", "cluster"])
def test_the_scorer_writes_where_search_reads(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(kind).url
    listings = [f"w{number}" for number in range(20)]

    async def run() -> None:
        async with RecordStore(load(redis=url)) as store:
            await store.check()
            written = RedisRecord.from_bytes(record(500))
            assert all(await asyncio.gather(*(store.put(listing, written) for listing in listings)))
            older = written.model_copy(update={"event_version": 499})
            assert not any(await asyncio.gather(*(store.put(listing, older) for listing in listings)))
            assert await store.delete("w0", 501)
            assert await store.is_newer("w0", 500)

    asyncio.run(run())
    with ScoreReader(url, budget_s=PATIENT_S) as reader:
        wait_for(lambda: reader.get_many(listings).scores() == [0.5] + [score(500)] * 19, "scores", 10)

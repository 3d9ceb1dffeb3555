"""The sink and the queries, on a real OpenSearch and a real Kafka."""

from __future__ import annotations

import random
import time
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas import DeadLetter, ImageScore
from schemas.image_score import VERSION_HEADER
from stream.demo.process import PipelineProcess
from stream.kafka import client_config
from stream.search import queries
from stream.settings import Settings, load
from tests.examples import image_score
from tests.pipeline import isolated, read_topic, wait_for
from tests.real_kafka import RealKafka
from tests.search_server import SearchServer

AT = datetime(2026, 1, 31, tzinfo=UTC)


class Shop:
    """An index of its own, with the sink that writes to it, and a producer of scores."""

    def __init__(self, settings: Settings, search: SearchServer) -> None:
        self.settings, self.search = settings, search
        self.index = settings.search_index
        search.ask("PUT", f"/{self.index}", {"settings": {"number_of_replicas": 0}})
        self.sink = PipelineProcess("index", settings)
        self._producer = Producer(client_config(settings))

    def produce(self, listing: str, value: bytes | None, version: int | None = None) -> None:
        headers: Any = [] if version is None else [(VERSION_HEADER, str(version).encode())]
        self._producer.produce(self.settings.scores_topic, key=listing, value=value, headers=headers)

    def score(self, listing: str, version: int, score: float, minutes: int = 0) -> None:
        self.produce(listing, scored(listing, version, score, minutes).to_json())

    def delete(self, listing: str, version: int) -> None:
        self.produce(listing, None, version)

    def flush(self) -> None:
        assert self._producer.flush(10) == 0

    def field(self, listing: str) -> dict[str, Any] | None:
        try:
            found = self.search.ask("GET", f"/{self.index}/_doc/{listing}")
        except urllib.error.HTTPError:
            return None
        field: dict[str, Any] | None = found["_source"].get("image_score")
        return field

    def wait_for(self, listing: str, version: int, **fields: Any) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            field = self.field(listing)
            wanted = {"version": version, **fields}
            return field if field and wanted.items() <= field.items() else None

        return wait_for(there, f"version {version} of {listing}")

    def find(self, query: dict[str, Any]) -> list[str]:
        self.search.ask("POST", f"/{self.index}/_refresh")
        found = self.search.ask("POST", f"/{self.index}/_search", {"query": query, "size": 100})
        return [hit["_id"] for hit in found["hits"]["hits"]]


def scored(listing: str, version: int, score: float, minutes: int = 0) -> ImageScore:
    example = image_score((score,))
    event = example.event.model_copy(update={"version": version})
    at = AT + timedelta(minutes=minutes)
    return example.model_copy(update={"listing_id": listing, "event": event, "scored_at": at})


@pytest.fixture
def shop(search: SearchServer, real_kafka: RealKafka, request: pytest.FixtureRequest) -> Iterator[Shop]:
    settings = isolated(load(kafka=real_kafka.address, partitions=4), embedded=False)
    changes = {"search": search.url, "search_index": f"listings-{settings.index_group[-8:]}"}
    shop = Shop(settings.model_copy(update=changes | getattr(request, "param", {})), search)
    shop.sink.start()
    shop.sink.wait_ready()
    yield shop
    shop.sink.stop()


def test_scores_reach_documents_that_search_owns(shop: Shop) -> None:
    shop.search.ask("PUT", f"/{shop.index}/_doc/m1", {"title": "Striped T-shirt"})
    shop.score("m1", 1, 0.4)
    shop.score("m2", 1, 0.8)
    shop.flush()
    field = shop.wait_for("m1", 1, score=0.4)
    assert field["scored_at"] == round(AT.timestamp() * 1000)
    assert shop.search.ask("GET", f"/{shop.index}/_doc/m1")["_source"]["title"] == "Striped T-shirt"
    shop.wait_for("m2", 1, score=0.8)


def test_duplicates_and_any_order_lead_to_the_newest(shop: Shop) -> None:
    chance = random.Random(1)
    steps: list[tuple[str, int, float | None]] = []
    newest: dict[str, float | None] = {}
    for number in range(40):
        listing = f"m{number}"
        for version in range(1, 6):
            score = None if version == 5 and number % 3 == 0 else round(chance.random(), 3)
            steps += [(listing, version, score)] * chance.randrange(1, 3)
            newest[listing] = None if score is None else scored(listing, version, score).score
    chance.shuffle(steps)
    for listing, version, score in steps:
        if score is None:
            shop.delete(listing, version)
        else:
            shop.score(listing, version, score)
    shop.flush()
    for listing, score in newest.items():
        found = shop.wait_for(listing, 5)
        assert found["score"] == score
        assert found["deleted"] is (score is None)


def test_a_later_score_of_the_same_version_wins_and_a_deletion_over_both(shop: Shop) -> None:
    shop.score("m1", 3, 0.5, minutes=10)
    shop.score("m1", 3, 0.4, minutes=5)
    shop.flush()
    shop.wait_for("m1", 3, score=0.5)
    shop.delete("m1", 3)
    shop.score("m1", 3, 0.6, minutes=20)
    shop.flush()
    shop.wait_for("m1", 3, deleted=True)
    shop.score("m1", 4, 0.7)
    shop.flush()
    shop.wait_for("m1", 4, score=0.7, deleted=False)


@pytest.mark.parametrize("shop", [{"index_missing": "skip"}], indirect=True)
def test_listings_without_a_document_can_be_skipped(shop: Shop) -> None:
    shop.search.ask("PUT", f"/{shop.index}/_doc/there", {"title": "x"})
    shop.score("away", 1, 0.5)
    shop.score("there", 1, 0.5)
    shop.flush()
    shop.wait_for("there", 1)
    assert shop.field("away") is None
    shop.sink.stop(keep_files=True)
    assert "1 missing" in shop.sink.log.read_text()


def test_what_is_no_score_or_is_refused_is_a_dead_letter(shop: Shop) -> None:
    shop.produce("bad", b'{"listing_id": "bad"}')
    shop.produce("gone", None)
    shop.score("good", 1, 0.5)
    shop.flush()
    shop.wait_for("good", 1)

    def letters() -> dict[bytes, DeadLetter] | None:
        found = {m.key() or b"": DeadLetter.from_json(m.value() or b"") for m in read_topic(shop.settings, dlq)}
        return found if len(found) == 2 else None

    dlq = shop.settings.dlq_topic
    found = wait_for(letters, "dead letters")
    assert found[b"bad"].topic == shop.settings.scores_topic
    assert "score" in found[b"bad"].message
    assert VERSION_HEADER in found[b"gone"].message


def test_nothing_is_lost_when_search_is_restarted_under_load(shop: Shop) -> None:
    listings = [f"m{number}" for number in range(300)]
    for version in (1, 2, 3):
        for listing in listings:
            shop.score(listing, version, version / 10)
        shop.flush()
        if version == 1:
            shop.wait_for(listings[0], 1)
        if version == 2:
            shop.search.kill()
            shop.search.restart()
    for listing in listings:
        assert shop.wait_for(listing, 3)["score"] == pytest.approx(0.3)


def test_a_sink_that_is_killed_goes_on_where_it_was(shop: Shop) -> None:
    for number in range(200):
        shop.score(f"m{number}", 1, 0.5)
    shop.flush()
    time.sleep(0.3)
    shop.sink.kill()
    shop.sink.stop(keep_files=True)
    shop.sink.start()
    for number in range(200):
        shop.wait_for(f"m{number}", 1)


def test_a_search_that_is_not_there_is_named(real_kafka: RealKafka) -> None:
    sink = PipelineProcess("index", load(kafka=real_kafka.address, search="http://127.0.0.1:1"))
    sink.start()
    try:
        wait_for(lambda: sink.exit_code is not None, "end")
        assert sink.exit_code == 3
        assert "search at http://127.0.0.1:1 does not answer" in sink.log.read_text()
        assert "Traceback" not in sink.log.read_text()
    finally:
        sink.stop()


MATCH = {"match": {"title": "shirt"}}


@pytest.fixture
def stocked(shop: Shop) -> Shop:
    titles = {"good": "shirt", "bad": "shirt", "plain": "shirt", "hat": "hat", "deleted": "shirt"}
    for listing, title in titles.items():
        shop.search.ask("PUT", f"/{shop.index}/_doc/{listing}", {"title": title})
    for listing, score in {"good": 0.95, "bad": 0.05, "hat": 1.0}.items():
        shop.score(listing, 1, score)
    shop.delete("deleted", 2)
    shop.flush()
    for listing, version in {"good": 1, "bad": 1, "hat": 1, "deleted": 2}.items():
        shop.wait_for(listing, version)
    return shop


def test_function_score_ranks_by_photo_and_finds_nothing_else(stocked: Shop) -> None:
    found = stocked.find(queries.function_score(MATCH))
    assert (found[0], found[-1]) == ("good", "bad")
    assert set(found[1:3]) == {"plain", "deleted"}, "unscored ones stand between"


def test_function_score_changes_relevance_within_its_weight(stocked: Shop) -> None:
    stocked.search.ask("POST", f"/{stocked.index}/_refresh")

    def relevance(query: dict[str, Any]) -> dict[str, float]:
        hits = stocked.search.ask("POST", f"/{stocked.index}/_search", {"query": query})["hits"]["hits"]
        return {hit["_id"]: hit["_score"] for hit in hits}

    plain, ranked = relevance(MATCH), relevance(queries.function_score(MATCH, weight=0.2))
    changes = {listing: ranked[listing] / plain[listing] for listing in plain}
    assert changes == pytest.approx({"good": 1.09, "bad": 0.91, "plain": 1.0, "deleted": 1.0}, abs=1e-3)


def test_rank_feature_adds_to_relevance_what_photos_deserve(stocked: Shop) -> None:
    found = stocked.find(queries.rank_feature(MATCH))
    assert found[:2] == ["good", "bad"], "unscored ones get nothing added"
    assert "hat" not in found


@pytest.mark.parametrize("wrong", [{"weight": 2}, {"neutral": -1}])
def test_weights_that_would_outweigh_relevance_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be 0\.\.1"):
        queries.function_score(MATCH, **wrong)  # type: ignore[arg-type]

"""The dead-letter commands, on real Kafka."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from schemas import DeadLetterType
from stream import dlq
from stream.cli import main
from stream.dlq import REPLAYED, Filter, entries, replay
from stream.errors import FencedError, ImageScoreError
from stream.settings import Settings, environment
from tests.pipeline import Pipeline, read_topic, wait_for


def cli(pipeline: Pipeline, *arguments: str) -> str:
    done = CliRunner().invoke(main, ["dlq", *arguments], env=environment(pipeline.settings))
    assert done.exit_code == 0, done.output
    return done.output


def place_of(pipeline: Pipeline, listing: str) -> str:
    return next(entry.place for entry in entries(pipeline.settings) if entry.listing == listing)


@pytest.fixture
def letters(real_pipeline: Pipeline) -> Iterator[Pipeline]:
    """A scorer that runs, and three dead letters: two listings without a photo, one that is not an event."""
    real_pipeline.start("worker")
    for listing in ("gone-1", "gone-2"):
        real_pipeline.publish(real_pipeline.host.url(f"files/{listing}.jpg"), listing=listing)
    real_pipeline.produce_bytes(b"poison", b"not json")
    wait_for(lambda: len(entries(real_pipeline.settings)) == 3, "three dead letters")
    yield real_pipeline
    real_pipeline.host.files.pop("gone-1.jpg", None)


def test_list_show_and_filters(letters: Pipeline) -> None:
    rows = [json.loads(line) for line in cli(letters, "list", "--json").splitlines()]
    assert {row["listing"] for row in rows} == {"gone-1", "gone-2", "poison"}
    assert len(cli(letters, "list", "--json", "--type", "invalid_event").splitlines()) == 1
    assert len(cli(letters, "list", "--json", "--listing", "gone-2").splitlines()) == 1
    assert cli(letters, "list", "--json", "--until", "1h") == ""
    assert "3 dead letters" in cli(letters, "list", "--since", "1h")
    shown = json.loads(cli(letters, "show", place_of(letters, "poison")))
    assert (shown["type"], shown["value_text"]) == ("invalid_event", "not json")


def test_replay_goes_through_the_pipeline_once_and_is_marked(letters: Pipeline) -> None:
    letters.host.put("gone-1.jpg", letters.host.files["good.jpg"])
    place = place_of(letters, "gone-1")
    assert cli(letters, "replay", "--listing", "gone-1") == "1 replayed\n"
    assert letters.wait_for_record("gone-1").scored_photos == 1
    assert cli(letters, "replay", "--listing", "gone-1") == "0 replayed\n"
    sent = [m for m in read_topic(letters.settings, letters.settings.events_topic) if m.key() == b"gone-1"]
    assert [dict(m.headers() or []).get("replay-of") for m in sent] == [None, place.encode()]
    assert {entry.listing: entry.state for entry in entries(letters.settings)}["gone-1"] == REPLAYED


def test_replay_that_fails_again_is_a_new_letter_that_says_of_what(letters: Pipeline) -> None:
    place = place_of(letters, "gone-2")
    assert cli(letters, "replay", place) == "1 replayed\n"
    again = wait_for(
        lambda: [e for e in entries(letters.settings) if e.listing == "gone-2" and e.state == "open"], "second letter"
    )
    assert ("replay-of", place.encode()) in again[0].letter.headers


def test_of_two_replays_at_once_each_letter_is_replayed_by_one(letters: Pipeline) -> None:
    counts: list[int] = []

    def run() -> None:
        try:
            counts.append(replay(letters.settings, Filter()).replayed)
        except (FencedError, ImageScoreError):
            counts.append(0)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replay(letters.settings, Filter(type=DeadLetterType.INVALID_EVENT))
    sent = [m for m in read_topic(letters.settings, letters.settings.events_topic) if m.headers()]
    first = [dict(m.headers() or [])["replay-of"] for m in sent]
    assert len(first) == len(set(first))


def test_purge_closes_and_deletes(letters: Pipeline) -> None:
    assert cli(letters, "purge", "--type", "no_scorable_photo", "--yes").startswith("2 closed")
    assert [entry.listing for entry in entries(letters.settings) if entry.state == "open"] == ["poison"]
    assert cli(letters, "purge", "--yes").startswith("1 closed")
    assert entries(letters.settings) == []
    assert read_topic(letters.settings, letters.settings.dlq_topic) == []


def test_letter_that_arrives_while_others_are_deleted_stays(letters: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def then_another(settings: Settings) -> list[dlq.Entry]:
        found = entries(settings)
        reads.append(len(found))
        if len(reads) == 2:  # to delete; the first was to choose
            letters.produce_bytes(b"late", b"not json")
            wait_for(lambda: any(entry.listing == "late" for entry in entries(settings)), "the late letter")
        return found

    monkeypatch.setattr(dlq, "entries", then_another)
    dlq.purge(letters.settings, Filter())
    assert [entry.listing for entry in entries(letters.settings)] == ["late"]


@pytest.mark.parametrize("text", ["yesterday", "", "5w", "1e999d"])
def test_wrong_time_is_named(real_pipeline: Pipeline, text: str) -> None:
    done = CliRunner().invoke(main, ["dlq", "list", "--since", text or " ", "--kafka", "x:1"])
    assert done.exit_code == 1
    assert "give 2026-01-31T09:30:00Z" in done.output

"""The commands, as a person runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from schemas import ListingEvent, RedisRecord, record_key
from stream.settings import Settings, environment
from tests.examples import EVENT, image_score
from tests.pipeline import Pipeline, interruptible, isolated, listing_id

IMAGE_SCORE = [sys.executable, "-m", "stream.cli"]
COMMANDS = [
    "demo",
    "up",
    "score",
    "worker",
    "hints",
    "publish",
    "get",
    "topics create",
    "dlq list",
    "dlq show",
    "dlq replay",
    "dlq purge",
    "backfill",
    "schemas export",
    "config",
]


def run(*arguments: str, settings: Settings | None = None, stdin: bytes = b"", **variables: str) -> Any:
    env = {**os.environ, **(environment(settings) if settings else {}), **variables}
    return subprocess.run(
        [*IMAGE_SCORE, *arguments],
        input=stdin,
        capture_output=True,
        env=env,
        timeout=120,
        check=False,
    )


def test_help_lists_every_command() -> None:
    text = run("--help").stdout.decode()
    assert all(f"  {command.split()[0]}" in text for command in COMMANDS)
    assert all(f"image-score {command}" in text.split("Examples:")[1] for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(command: str) -> None:
    text = run(*command.split(), "--help").stdout.decode()
    assert f"Example:\n  image-score {command}" in text or f"image-score {command}" in text.split("Example:")[1]


def test_config_shows_value_and_origin() -> None:
    done = run("config", "--json", "--redis", "redis://u:secret@h:1/0", IMAGE_SCORE_FETCHES="9")
    rows = {row["setting"]: row for row in orjson.loads(done.stdout)}
    assert (rows["fetches"]["value"], rows["fetches"]["from"]) == ("9", "environment IMAGE_SCORE_FETCHES")
    assert (rows["redis"]["value"], rows["redis"]["from"]) == ("redis://u:********@h:1/0", "command line")
    assert rows["max_pixels"]["from"] == "default"
    assert b"secret" not in done.stdout + run("config", "--redis", "redis://u:secret@h:1/0").stdout


def test_users_mistake_is_one_line_without_a_traceback() -> None:
    mistakes = {"worker": 2, "config --fetches many": 2, "demo --photos /nowhere": 1}
    for arguments, exit_code in mistakes.items():
        done = run(*arguments.split())
        assert done.returncode == exit_code
        assert done.stderr.startswith(b"Error: ")
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "address"), [("kafka", "127.0.0.1:9"), ("redis", "redis://127.0.0.1:9/0"), ("triton", "127.0.0.1:9")]
)
def test_server_that_does_not_answer_is_named(settings: Settings, name: str, address: str) -> None:
    done = run("worker", settings=settings.model_copy(update={name: address}))
    assert done.returncode == 3
    assert address.encode() in done.stderr.splitlines()[-1]
    assert b"does not answer" in done.stderr
    assert b"Traceback" not in done.stderr


def test_score_prints_one_json_object_a_line(settings: Settings, samples: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    files = [samples["hat-good"], tmp_path / "text.jpg", tmp_path / "missing.jpg", samples["hat-dark"]]
    done = run("score", "--json", *map(str, files), settings=settings)
    good, text, missing, dark = map(orjson.loads, done.stdout.splitlines())
    assert done.returncode == 1
    assert [good["path"], dark["path"]] == [str(files[0]), str(files[3])]
    assert good["score"] > dark["score"]
    assert set(good) == {"path", "score", "aspects", "issues"}
    assert dark["issues"]["dark"] > 0.5
    assert text["error"]["type"] == "not_an_image"
    assert missing["error"]["type"] == "not_found"


def test_score_starts_triton_by_itself(samples: dict[str, Path]) -> None:
    done = run("score", str(samples["hat-good"]))
    assert done.returncode == 0, done.stderr
    assert b"hat-good" in done.stdout.replace(b"\n", b"")


def test_publish_checks_every_line_before_it_publishes_any(settings: Settings) -> None:
    own = isolated(settings)
    bad = orjson.dumps({**EVENT, "version": -1})
    done = run("publish", "-", settings=own, stdin=orjson.dumps(EVENT) + b"\n\n" + bad)
    assert done.returncode == 1
    assert b"line 3: not a valid ListingEvent: version: " in done.stderr


def test_published_events_are_on_the_topic(settings: Settings, pipeline: Pipeline, tmp_path: Path) -> None:
    own = isolated(settings)
    file = tmp_path / "events.jsonl"
    file.write_bytes(orjson.dumps(EVENT) + b"\n")
    done = run("publish", str(file), settings=own)
    assert done.stdout.startswith(b"1 events published")
    (message,) = pipeline.read(own.events_topic)
    assert message.key() == b"m123"
    assert ListingEvent.from_json(message.value() or b"") == ListingEvent.from_json(orjson.dumps(EVENT))


def test_get_prints_the_record_or_says_that_there_is_none(settings: Settings) -> None:
    listing = listing_id()
    redis.Redis.from_url(settings.redis).set(record_key(listing), RedisRecord.of(image_score((0.25,))).to_bytes())
    found = orjson.loads(run("get", listing, settings=settings).stdout)
    assert found["score"] == pytest.approx(0.25, abs=1e-4)
    assert found["event_version"] == 3
    done = run("get", listing_id(), settings=settings)
    assert done.returncode == 1
    assert b"has no score" in done.stderr


def test_brokers_that_cannot_create_topics_are_a_clear_error(settings: Settings) -> None:
    """The embedded Kafka has no CreateTopics; what it says must reach the user."""
    done = run("topics", "create", settings=settings)
    assert done.returncode == 1
    assert b"topic listing.events could not be created: " in done.stderr
    assert b"terminating" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_schemas_are_exported_to_a_folder(tmp_path: Path) -> None:
    done = run("schemas", "export", "--out", str(tmp_path))
    assert done.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(
            "DeadLetter.json",
            "HintFeedback.json",
            "ImageScore.json",
            "ListingEvent.json",
            "SellerHint.json",
            "SellerNotice.json",
        )
    ]


def test_up_prints_addresses_and_ends_in_order_on_ctrl_c() -> None:
    process = subprocess.Popen(
        [*IMAGE_SCORE, "up"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=interruptible,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline().decode() for _ in range(3)]
    assert [line.split("=")[0] for line in lines] == [f"export IMAGE_SCORE_{n}" for n in ("KAFKA", "REDIS", "TRITON")]
    assert redis.Redis.from_url(lines[1].strip().split("=", 1)[1]).ping()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert b"Traceback" not in errors
    assert process.returncode == 0

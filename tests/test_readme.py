"""Every command and code block of the README runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
import redis

from schemas import ListingEvent, RedisRecord, record_key, vectors
from stream.embedded.server import free_port
from stream.settings import Settings, environment
from tests.conftest import need_real_kafka
from tests.examples import image_score
from tests.labelling_endpoint import LabellingEndpoint
from tests.pipeline import isolated, wait_for
from tests.test_experiment import write_logs
from tests.test_readers import READERS, need, run
from tests.tiny_labels import write_tiny_labels
from triton_models import REPOSITORY
from triton_models.data import load_data
from triton_models.labels import read_labels
from triton_models.preferences.simulate import simulate_log
from triton_models.report import cell
from triton_models.serving.versions import Repository
from triton_models.train import Config, train

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.M | re.S)
COMMANDS = [
    line.split("#")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.strip()
]
REPOSITORIES = ("IMAGE_SCORE_REPOSITORY", "IMAGE_SCORE_EXPORT_REPOSITORY")
SERVERS = {
    "image-score up": "export",
    "image-score worker": "ready: ",
    "image-score hints": "ready: ",
    "image-score notices": "ready: ",
    "image-score advise": "ready: ",
    "make kafka": "export",
    "image-score lookup-service": "ready: ",
    "image-score index": "ready: ",
    "image-score studio": "ready: ",
}
"""Commands that run until they are stopped, and what they print when they are ready."""
NEED_KAFKA = ("make faults", "make bench-consumer")
IN_OUR_VENV = Path(sys.prefix) == ROOT / ".venv"


@pytest.fixture
def workplace(tmp_path: Path, samples: dict[str, Path]) -> Path:
    """A folder with the files that the README's commands name."""
    shutil.copy(samples["hat-good"], tmp_path / "photo.jpg")
    (event,) = [text for kind, text in BLOCKS if kind == "json"]
    (tmp_path / "events.jsonl").write_text(event)
    (tmp_path / "my-photos").mkdir()
    shutil.copy(samples["hat-dark"], tmp_path / "my-photos")
    write_tiny_labels(samples, tmp_path)
    simulate_log(500, listings=50).log.write_parquet(tmp_path / "searches.parquet")
    shutil.copytree(REPOSITORY, tmp_path / "repository")
    listings = pl.read_parquet(tmp_path / "searches.parquet")["listing_id"].unique()
    pl.DataFrame({"listing_id": listings, "score": np.linspace(0, 1, len(listings))}).write_parquet(
        tmp_path / "scores.parquet"
    )
    (tmp_path / "experiments.json").write_text(json.dumps(vectors.experiments()["experiments"]))
    write_logs(tmp_path, users=300)
    return tmp_path


def train_run(workplace: Path) -> None:
    """Put a trained network where `image-score export` looks for it."""
    data = load_data(workplace / "photos", read_labels(workplace / "labels.jsonl"))
    config = Config(height=64, width=48, head="kernel", epochs=0, landmarks=20)
    train(config, data, data, workplace / "run")


SMALL = {
    "IMAGE_SCORE_TRAIN_EPOCHS": "1",
    "IMAGE_SCORE_TRAIN_BATCH": "8",
    "IMAGE_SCORE_TRAIN_HEIGHT": "64",
    "IMAGE_SCORE_TRAIN_WIDTH": "48",
    "IMAGE_SCORE_EVALUATE_HARMED": "2",
    "IMAGE_SCORE_EXPORT_HARMED": "2",
}
"""The offline commands, with less to do."""


def variables(settings: Settings) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **environment(settings), "PATH": path}


def make(command: str, workplace: Path) -> list[str]:
    """Return the same make command with small inputs; what other tests run, or runs these, is only planned."""
    words = ["make", "-C", str(ROOT), *command.split()[1:]]
    if command in ("make test", "make experiment") or command.startswith("make model"):
        return [*words, "--dry-run"]
    if not IN_OUR_VENV:
        pytest.skip("make uses .venv: run the tests by `make test`")
    if command == "make bench-consumer":  # without the peers, which make installs
        return [sys.executable, "tests/bench/consumer.py", "--keys", "100", "--records", "300", "--rounds", "1"]
    if command == "make faults":
        return [*words, "ROUNDS=2", "ARGS=--brokers 1"]
    if command == "make bench-lookup":
        return [*words, "ARGS=--listings 2000 --callers 4 --ids 50 --calls 2 --rounds 1"]
    if command == "make bench":
        return [*words, "ARGS=--count 60 --rounds 1 --latency-count 20"]
    return [word.replace("=my-photos", f"={workplace / 'my-photos'}") for word in words]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in SERVERS])
def test_command_runs(command: str, workplace: Path, settings: Settings) -> None:
    own = isolated(settings)
    record = RedisRecord.of(image_score())
    redis.Redis.from_url(settings.redis).set(record_key("m123"), record.to_bytes())
    is_make = command.startswith("make ")
    if command in NEED_KAFKA:
        need_real_kafka()
    words = make(command, workplace) if is_make else command.split()
    if command.startswith("image-score export"):
        train_run(workplace)
    with LabellingEndpoint() as endpoint:
        places = {name: str(workplace / "repository") for name in REPOSITORIES}
        places["IMAGE_SCORE_LABEL_ENDPOINT"] = endpoint.url
        done = subprocess.run(
            words,
            cwd=ROOT if words[0] == sys.executable else workplace,
            env={**os.environ} if is_make else {**variables(own), **SMALL, **places},
            capture_output=True,
            timeout=170,
            check=False,
        )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


@pytest.mark.parametrize("command", list(SERVERS))
def test_server_command_starts_and_stops(
    command: str, settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert command in COMMANDS
    ports = {"lookup_http": free_port(), "lookup_grpc": free_port(), "studio_port": free_port()}
    if command == "image-score index":
        search = request.getfixturevalue("search")
        search.ask("PUT", "/listings")
        ports |= {"search": search.url}
    env, words = variables(isolated(settings).model_copy(update=ports)), command.split()
    if command == "make kafka":
        need_real_kafka()
        words = make(command, tmp_path)
    if command == "image-score up":  # starts its own
        env = {name: value for name, value in env.items() if not name.startswith("IMAGE_SCORE_")}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, env=env, stdout=output, stderr=output, cwd=tmp_path)
    wait_for(lambda: SERVERS[command] in log.read_text(), f"{command} to be ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == (0 if words == command.split() else -signal.SIGTERM), log.read_text()
    assert "Traceback" not in log.read_text()


def test_example_event_is_valid() -> None:
    (event,) = [text for kind, text in BLOCKS if kind == "json"]
    assert ListingEvent.model_validate(orjson.loads(event)).listing_id == "m123"


@pytest.fixture
def scored(settings: Settings) -> int:
    """Put the score of listing m123 into Redis; return the port."""
    client = redis.Redis.from_url(settings.redis)
    client.set(record_key("m123"), RedisRecord.of(image_score((0.25,))).to_bytes())
    return int(client.connection_pool.connection_kwargs["port"])


def blocks(wanted: str, port: int) -> list[str]:
    """Return the blocks of a kind, with the port of the tests' Redis."""
    return [text.replace("6379", str(port)) for kind, text in BLOCKS if kind == wanted]


@pytest.mark.parametrize("number", [0, 1])
def test_python_blocks_read_the_record(settings: Settings, scored: int, number: int) -> None:
    code = blocks("python", scored)[number]
    done = subprocess.run([sys.executable, "-c", code], env=variables(settings), capture_output=True, check=True)
    assert float(done.stdout.split()[0]) == pytest.approx(0.25, abs=1e-4)


def test_go_block_reads_the_record(scored: int, tmp_path: Path) -> None:
    need("go", "golang-go")
    (code,) = blocks("go", scored)
    imports = "\n".join(f'"{name}"' for name in ("fmt", "imagescore", "log", "net"))
    (tmp_path / "main.go").write_text(f"package main\nimport (\n{imports}\n)\nfunc main() {{\n{code}}}\n")
    module = f"module example\ngo 1.19\nrequire imagescore v0.0.0\nreplace imagescore => {READERS / 'go'}\n"
    (tmp_path / "go.mod").write_text(module)
    said = run("go", "run", ".", folder=tmp_path, GOFLAGS="-mod=mod", GOTOOLCHAIN="local")
    assert float(said.split()[0]) == pytest.approx(0.25, abs=1e-4)


def test_java_block_reads_the_record(scored: int, tmp_path: Path) -> None:
    need("javac", "default-jdk-headless")
    (code,) = blocks("java", scored)
    main = f"public static void main(String[] arguments) throws Exception {{\n{code}}}"
    (tmp_path / "Example.java").write_text(f"import java.net.Socket;\nclass Example {{\n{main}\n}}\n")
    reader = READERS / "java" / "ImageScore.java"
    run("javac", "-d", str(tmp_path), str(tmp_path / "Example.java"), str(reader), folder=tmp_path)
    assert float(run("java", "-cp", str(tmp_path), "Example", folder=tmp_path)) == pytest.approx(0.25, abs=1e-4)


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "json", "python", "go", "java"}


def test_pictures_and_links_are_there() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_figures_are_those_of_the_models_metrics() -> None:
    figures = Repository().version(Repository().served).metrics
    for name, srcc in figures["srcc"].items():
        row = f"| {name} | {cell(srcc)} | {cell(figures['opa'][name])} |"
        assert row.replace("| model |", "| **image_score** |") in README

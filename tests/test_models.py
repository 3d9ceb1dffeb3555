"""Versions in a real Triton: exported, promoted and rolled back under load, and a candidate in the shadow."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from click.testing import CliRunner, Result

from stream.cli import main
from stream.embedded.triton import EmbeddedTriton
from stream.settings import Settings, environment, load
from tests.pipeline import Pipeline, wait_for
from triton_models import REPOSITORY
from triton_models.compare import comparison
from triton_models.errors import ModelError
from triton_models.serving.versions import MODEL, SHADOW, Repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with versions 1 and 2: the same network twice."""
    path = tmp_path_factory.mktemp("repository")
    served = Repository().version(Repository().served)
    shutil.copytree(served.folder, path / MODEL / "1")
    shutil.copytree(served.folder, path / MODEL / "2")
    shutil.copy(REPOSITORY / MODEL / "config.pbtxt", path / MODEL)
    return path


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[EmbeddedTriton]:
    server = EmbeddedTriton(repository=repository)
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def run(triton: EmbeddedTriton, *words: str) -> Result:
    options = ["--triton", triton.address, "--repository", str(triton.repository)]
    return CliRunner().invoke(main, ["models", *words, *options])


class Load(threading.Thread):
    """Scores a photo again and again; keeps which versions answered, and every error."""

    def __init__(self, address: str, photo: bytes) -> None:
        super().__init__(daemon=True)
        self.versions: list[str] = []
        self.errors: list[str] = []
        self._address, self._photo, self._ended = address, photo, threading.Event()

    def run(self) -> None:
        tensor = grpcclient.InferInput("IMAGE", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[self._photo]], dtype=np.object_))
        with grpcclient.InferenceServerClient(self._address) as client:
            while not self._ended.is_set():
                try:
                    self.versions.append(client.infer(MODEL, [tensor]).get_response().model_version)
                except Exception as error:
                    self.errors.append(str(error))

    def end(self) -> None:
        self._ended.set()
        self.join(30)


def test_promotion_and_rollback_lose_no_request(triton: EmbeddedTriton, photo: bytes) -> None:
    threads = [Load(triton.address, photo) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for words, version in ((("promote", "1"), "1"), (("promote", "2"), "2"), (("rollback",), "1")):
            result = run(triton, *words)
            assert result.exit_code == 0, result.output
            assert f"version {version} is served" in result.output
            counts = [len(thread.versions) for thread in threads]
            wait_for(lambda c=counts: all(len(t.versions) > n + 3 for t, n in zip(threads, c, strict=True)), "answers")  # type: ignore[misc]
            assert {thread.versions[-1] for thread in threads} == {version}
    finally:
        for thread in threads:
            thread.end()
    assert [error for thread in threads for error in thread.errors] == []
    assert {version for thread in threads for version in thread.versions} == {"1", "2"}


def test_version_that_does_not_load_is_not_served(triton: EmbeddedTriton, repository: Path, photo: bytes) -> None:
    run(triton, "promote", "2")
    broken = repository / MODEL / "3"
    shutil.copytree(repository / MODEL / "2", broken)
    (broken / "model.onnx").write_bytes(b"no model")
    try:
        result = run(triton, "promote", "3")
        assert result.exit_code == 1
        assert "Traceback" not in result.output
        assert Repository(repository).served == 2
        load = Load(triton.address, photo)
        load.start()
        wait_for(lambda: load.versions, "an answer")
        load.end()
        assert set(load.versions) == {"2"}
    finally:
        shutil.rmtree(broken)


def test_list_tells_what_is_served(triton: EmbeddedTriton) -> None:
    run(triton, "promote", "1")
    lines = run(triton, "list").output.splitlines()
    rows = {line.split("│")[1].strip(): line for line in lines if "│" in line}
    assert "yes" in rows["1"]
    assert "READY" in rows["1"]
    assert "yes" not in rows["2"]


def test_list_is_of_the_projects_repository_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGE_SCORE_REPOSITORY", raising=False)
    result = CliRunner().invoke(main, ["models", "list"])
    assert result.exit_code == 0, result.output
    assert f"│ {Repository().served} " in result.output


def test_version_that_is_not_there_is_named(triton: EmbeddedTriton) -> None:
    result = run(triton, "promote", "9")
    assert result.exit_code == 1
    assert "version 9 is not in" in result.output


def test_triton_that_does_not_answer_changes_nothing(repository: Path) -> None:
    before = (repository / MODEL / "config.pbtxt").read_text()
    words = ["models", "promote", "2", "--triton", "127.0.0.1:1", "--repository", str(repository)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 3
    assert "does not answer" in result.output
    assert (repository / MODEL / "config.pbtxt").read_text() == before


def test_rollback_without_a_promotion_is_an_error(tmp_path: Path, triton: EmbeddedTriton) -> None:
    shutil.copytree(REPOSITORY / MODEL, tmp_path / MODEL)
    words = ["models", "rollback", "--triton", triton.address, "--repository", str(tmp_path)]
    assert "nothing was promoted yet" in CliRunner().invoke(main, words).output


def test_folder_that_is_no_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no repository"):
        Repository(tmp_path)


def test_candidate_scores_the_same_events_and_changes_nothing_else(
    pipeline: Pipeline, triton: EmbeddedTriton, tmp_path: Path
) -> None:
    """The candidate runs beside the scorer of the session, on the same topic, and is taken away at the end."""
    from stream.demo.process import PipelineProcess

    class ShadowProcess(PipelineProcess):
        def command(self) -> list[str]:
            words = super().command()
            return [*words[:-1], "models", "shadow", "2", "--repository", str(triton.repository)]

    settings = pipeline.settings.model_copy(update={"triton": triton.address})
    process = ShadowProcess("worker", settings)
    process.start()
    try:
        process.wait_ready()
        listings = [pipeline.publish() for _ in range(5)]
        for listing in listings:
            pipeline.wait_for_score(listing)
        hints = len(pipeline.read(pipeline.settings.hints_topic))
        wait_for(lambda: len(pipeline.read(settings.shadow_topic)) >= 5, "the candidate's scores")
        pipeline.publish(pipeline.host.url("files/missing.jpg"))
        compared = compare(settings, tmp_path)
    finally:
        process.stop()
    assert compared["photos"] >= 5  # and what other tests published before
    assert compared["srcc"] is None or compared["srcc"] > 0.99
    assert compared["mean_change"] == 0
    assert (tmp_path / "comparison.html").read_text().startswith("<!doctype html>")
    assert len(pipeline.read(pipeline.settings.hints_topic)) >= hints
    assert not (triton.repository / SHADOW).exists()


def compare(settings: Settings, out: Path) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["models", "compare", "--out", str(out)], env=environment(settings))
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def test_comparison_of_known_scores() -> None:
    rng = np.random.default_rng(0)
    served = {(f"l{i}", 1, "p"): (float(s), {"dark": float(s)}) for i, s in enumerate(rng.random(400))}
    candidate = {key: (min(1.0, s + 0.2), {"dark": 0.0}) for key, (s, _) in served.items()}
    found = comparison(served, candidate | {("other", 1, "p"): (0.5, {})})
    assert found["photos"] == 400
    assert found["mean_change"] == pytest.approx(0.18, abs=0.01)
    assert found["moved"] > 0.85
    assert found["ks"] == pytest.approx(0.2, abs=0.05)
    assert found["issues"]["dark"]["candidate"] == 0
    assert comparison(served, {}) == {"photos": 0}


def test_compare_says_when_nothing_was_scored_by_both(pipeline: Pipeline, tmp_path: Path) -> None:
    empty = pipeline.settings.model_copy(update={"shadow_topic": f"none-{time.time_ns()}"})
    words = ["models", "compare", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, words, env=environment(empty))
    assert "no photo was scored by both" in result.output
    assert load(kafka=empty.kafka).shadow_topic == "image.scores.shadow"

"""The readers in Go and Java, and ours, agree on the shared vectors, and read what is in a real Redis."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from schemas import vectors
from schemas.experiment import Experiments
from tests.conftest import NO_SKIPS

READERS = Path(vectors.__file__).parents[1] / "readers"


def need(tool: str, package: str) -> None:
    """Skip the test, saying why, where a tool is not there and need not be."""
    if shutil.which(tool) is None and not NO_SKIPS:
        pytest.skip(f"no {tool}: apt-get install {package}")


def run(*command: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_vectors_are_those_that_the_schemas_make(tmp_path: Path) -> None:
    for path in vectors.write(tmp_path):
        written = (vectors.FOLDER / path.name).read_bytes()
        assert path.read_bytes() == written, "python -m schemas.vectors writes them again"


def test_the_go_reader_agrees_with_the_vectors() -> None:
    need("go", "golang-go")
    folder = READERS / "go"
    assert run("gofmt", "-l", ".", folder=folder) == ""
    flags = {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    run("go", "vet", "./...", folder=folder, **flags)
    assert "--- PASS: TestUsersHaveTheArmsOfTheVectors" in run("go", "test", "-v", "./...", folder=folder, **flags)


def test_the_java_reader_agrees_with_the_vectors(tmp_path: Path) -> None:
    need("javac", "openjdk-17-jdk-headless")
    sources = [str(path) for path in (READERS / "java").glob("*.java")]
    run("javac", "-Xlint:all", "-Werror", "-d", str(tmp_path), *sources, folder=tmp_path)
    assert ", 0 failed" in run("java", "-cp", str(tmp_path), "ImageScoreTest", str(vectors.FOLDER), folder=tmp_path)


def _rules() -> Experiments:
    return Experiments.model_validate(vectors.experiments()["experiments"])


def test_arms_are_shared_out_by_weight_and_ramp() -> None:
    users = [f"u{number}" for number in range(40_000)]
    rules = _rules()
    arms = [rules.assign(user) for user in users]
    shares = {
        (name, arm): sum(found.get(name) == arm for found in arms) / len(users)
        for name, arm in {pair for found in arms for pair in found.items()}
    }
    expected = {
        ("image-score", "control"): 0.6 * 0.5 * 0.5,
        ("image-score", "treatment"): 0.6 * 0.5 * 0.5,
        ("other-ranking", "control"): 0.4 * 0.7,
        ("other-ranking", "small"): 0.4 * 0.2,
        ("other-ranking", "large"): 0.4 * 0.1,
        ("tips", "on"): 0.125,
        ("tips", "off"): 0.125,
    }
    assert shares == pytest.approx(expected, abs=0.01)


def test_experiments_of_a_layer_exclude_each_other() -> None:
    rules = _rules()
    for number in range(5_000):
        assert not {"image-score", "other-ranking"} <= rules.assign(f"u{number}").keys()


def test_a_ramp_that_grows_only_adds_users() -> None:
    rules = _rules()
    layer = rules.layers[0]
    wider = layer.experiments[0].model_copy(update={"ramp": 9000})
    grown = rules.model_copy(update={"layers": (layer.model_copy(update={"experiments": (wider,)}),)})
    before = {f"u{n}": rules.assign(f"u{n}").get("image-score") for n in range(5_000)}
    after = {user: grown.assign(user).get("image-score") for user in before}
    assert all(after[user] == arm for user, arm in before.items() if arm)
    assert sum(arm is not None for arm in after.values()) > 1.5 * sum(arm is not None for arm in before.values())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"last": 6500}, "share buckets"),
        ({"first": 100, "last": 50}, "last must not be below first"),
        ({"arms": [{"name": "a", "weight": 0}]}, "weight above 0"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, "not all different"),
        ({"force": {"u": "nobody"}}, "no arm"),
        ({"name": "other-ranking"}, "not all different"),
        ({"ramps": 3}, "ramps"),
    ],
)
def test_a_wrong_experiments_file_is_refused(changes: dict[str, object], problem: str) -> None:
    file = vectors.experiments()["experiments"]
    first = file["layers"][0]
    wrong = {**first, "experiments": [first["experiments"][0] | {"force": {}} | changes, *first["experiments"][1:]]}
    with pytest.raises(ValueError, match=problem):
        Experiments.model_validate({"layers": [wrong, *file["layers"][1:]]})

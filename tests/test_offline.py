"""The offline half as a user runs it: label, train, evaluate, export, serve in Triton, score in the pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from stream.cli import main
from stream.embedded.triton import EmbeddedTriton
from stream.settings import Settings
from tests.labelling_endpoint import LabellingEndpoint, answer
from tests.photo_host import PhotoHost
from tests.pipeline import Pipeline
from tests.tiny_labels import write_tiny_labels
from triton_models import REPOSITORY
from triton_models.data import load_data
from triton_models.errors import ModelError
from triton_models.evaluate import Model
from triton_models.export import check, to_onnx
from triton_models.labels import read_labels
from triton_models.making import backbone_weights
from triton_models.photos import load_photos
from triton_models.robustness import degradation_curves, handling_shifts
from triton_models.serving.versions import MODEL, Repository
from triton_models.train import Config, fit_kernel_head, make_network

pytestmark = pytest.mark.timeout(300)


def image_score(*words: object) -> dict[str, Any]:
    """Run a command; return the line of JSON that it ends with."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads([line for line in result.stdout.splitlines() if line.startswith("{")][-1])
    return found


@pytest.fixture(scope="module")
def made(samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Labels by a local server, a network trained on them, and its export; `repository` serves version 1 of old."""
    folder = tmp_path_factory.mktemp("offline")
    photos, truth, pairs = write_tiny_labels(samples, folder)
    known = {row["photo"]: row for row in map(json.loads, truth.read_text().splitlines())}
    order = sorted(known)

    def judge(body: dict[str, Any], number: int) -> str:
        row = known[order[number]]
        return answer(row["score"], aspects=row["aspects"], issues=row["issues"])

    labels, run, repository = folder / "llm.jsonl", folder / "run", folder / "repository"
    with LabellingEndpoint(judge) as endpoint:
        ask = ["--model", "m", "--endpoint", endpoint.url, "--api-key", "k", "--concurrency", 1]
        labelled = image_score("label", photos, "--out", labels, *ask)
    data = ["--photos", photos, "--labels", labels]
    size = ["--height", 64, "--width", 48, "--batch", 8, "--landmarks", 40]
    trained = image_score(
        "train", *data, "--pairs", pairs, "--out", run, "--head", "kernel", "--epochs", 2, "--pretrain", 1, *size
    )
    served = Repository().version(Repository().served)
    shutil.copytree(served.folder, repository / MODEL / "1")
    shutil.copy(REPOSITORY / MODEL / "config.pbtxt", repository / MODEL)
    card = ["--trained-on", trained["photos"], "--ceiling-srcc", 0.83]
    card += ["--repository", repository, "--harmed", 4]
    exported = image_score("export", "--run", run, *data, "--pairs", pairs, *card)
    model = Path(exported["folder"]) / "model.onnx"
    out = ["--out", folder / "report", "--harmed", 4]
    evaluated = image_score("evaluate", "--model", model, *data, "--pairs", pairs, *out)
    parts = {"labelled": labelled, "trained": trained, "exported": exported, "evaluated": evaluated}
    return parts | {"folder": folder, "photos": photos, "repository": repository, "labels": labels}


def test_every_photo_is_labelled_and_learned(made: dict[str, Any]) -> None:
    count = len(list(made["photos"].rglob("*.jpg")))
    assert made["labelled"]["labelled"] == count
    assert made["trained"]["photos"] == count - round(0.15 * count)
    assert made["evaluated"]["opa"]["value"] > 0.8


def test_export_is_the_next_version_and_is_not_served_before_it_is_promoted(made: dict[str, Any]) -> None:
    repository = Repository(made["repository"])
    assert made["exported"]["version"] == 2
    assert repository.served == 1
    folder = repository.version(2).folder
    names = {"MODEL_CARD.md", "metrics.json", "model.onnx", "model.py"}
    assert {path.name for path in folder.iterdir()} == names
    card = (folder / "MODEL_CARD.md").read_text()
    assert "version 2" in card
    assert "| BRISQUE |" in card or "| sharpness |" in card
    assert not list(made["repository"].glob(".export-*"))


def test_new_version_is_served_by_triton_and_scores_the_pipelines_events(
    made: dict[str, Any], settings: Settings, host: PhotoHost, samples: dict[str, Path]
) -> None:
    triton = EmbeddedTriton(repository=made["repository"])
    triton.start()
    try:
        triton.wait_ready()
        image_score_promote = ["models", "promote", "2", "--triton", triton.address]
        result = CliRunner().invoke(main, [*image_score_promote, "--repository", str(made["repository"])])
        assert result.exit_code == 0, result.output
        own = settings.model_copy(update={"triton": triton.address, "fetch_allow": (host.address,)})
        with Pipeline(own, host) as pipeline:
            pipeline.start("worker")
            good = host.put("good-hat.jpg", samples["hat-good"].read_bytes())
            dark = host.put("dark-hat.jpg", samples["hat-dark"].read_bytes())
            listing = pipeline.publish(good, dark)
            score = pipeline.wait_for_score(listing)
            record = pipeline.wait_for_record(listing)
    finally:
        triton.stop()
    assert score is not None
    assert score.model.version == 2
    assert record.score == pytest.approx(score.score, abs=1e-4)
    model = Model(Path(made["exported"]["folder"]) / "model.onnx")
    expected = model.predict(load_photos(made["photos"], ["hat/hat-good.jpg", "hat/hat-dark.jpg"])).score
    assert [photo.score for photo in score.photos] == pytest.approx(expected.tolist(), abs=1e-3)


def test_report_is_one_page_without_links_and_a_picture(made: dict[str, Any]) -> None:
    folder = made["folder"] / "report"
    page = (folder / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert page.count("<svg") >= 5
    assert page.count("data:image/jpeg;base64,") >= 20
    assert Image.open(folder / "report.png").width > 1000
    figures = orjson.loads((folder / "metrics.json").read_bytes())
    assert set(figures["srcc"]) >= {"model", "brightness", "contrast", "sharpness"}
    assert set(figures["categories"]) == set()  # none has ten photos
    assert figures["robustness"]["degradations"].keys() >= {"dark", "blurry", "compressed"}


def test_evaluation_without_pairs_says_nothing_of_them(made: dict[str, Any], tmp_path: Path) -> None:
    words = ["evaluate", "--photos", made["photos"], "--labels", made["labels"], "--out", tmp_path, "--harmed", 2]
    found = image_score(*words)
    assert found["opa"] is None
    assert "<th>OPA</th>" not in (tmp_path / "report.html").read_text()


def test_file_that_is_no_model_is_an_error(made: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    words = ["evaluate", "--model", tmp_path / "model.onnx", "--photos", made["photos"], "--labels", made["labels"]]
    result = CliRunner().invoke(main, [str(word) for word in [*words, "--out", tmp_path]])
    assert result.exit_code == 1
    assert "give a model.onnx that `export` wrote" in result.output


def test_export_refuses_what_is_not_the_network_that_was_trained(tmp_path: Path) -> None:
    network = make_network(Config(height=64, width=48))
    to_onnx(network, tmp_path / "model.onnx")
    photos = np.random.default_rng(0).integers(0, 255, (12, 256, 192, 3), np.uint8)
    assert check(network, tmp_path / "model.onnx", photos) < 1e-3
    with torch.no_grad():
        next(network.backbone.parameters()).mul_(1.5)
    with pytest.raises(ModelError, match="differs from PyTorch"):
        check(network, tmp_path / "model.onnx", photos)


def test_export_of_an_efficientnet_pads_in_its_convolutions(tmp_path: Path, samples: dict[str, Path]) -> None:
    """TensorFlow's padding becomes part of the convolutions, and the outputs stay the same."""
    photos, labels, _ = write_tiny_labels(samples, tmp_path)
    data = load_data(photos, read_labels(labels))
    weights = str(backbone_weights())
    config = Config("timm/tf_efficientnet_lite0", weights, "kernel", height=96, width=72, landmarks=30)
    network = make_network(config)
    fit_kernel_head(config, network, data)
    to_onnx(network, tmp_path / "model.onnx")
    assert check(network, tmp_path / "model.onnx", data.photos.numpy()) < 1e-3
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert kinds.count("Pad") == 0
    assert kinds.count("Conv") > 40


def test_version_that_is_there_is_not_overwritten(made: dict[str, Any]) -> None:
    words = ["export", "--run", made["folder"] / "run", "--photos", made["photos"], "--labels", made["labels"]]
    words += ["--repository", made["repository"], "--version", 2]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 1
    assert "give another --version" in result.output


def test_export_without_a_run_says_what_to_do(made: dict[str, Any], tmp_path: Path) -> None:
    words = ["export", "--run", tmp_path, "--photos", made["photos"], "--labels", made["labels"]]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert "no trained network" in result.output


def test_robustness_of_a_score_that_is_known() -> None:
    """Brightness falls as photos get darker, at every step; noise in a score is a violation; mirroring is none."""
    photos = np.random.default_rng(0).integers(60, 200, (8, 64, 48, 3), np.uint8)
    curves = degradation_curves(lambda x: x.mean((1, 2, 3)) / 255, photos)
    assert curves["dark"].violations == 0
    assert curves["dark"].mean == sorted(curves["dark"].mean, reverse=True)
    assert curves["overexposed"].violations == 1
    rng = np.random.default_rng(1)
    assert degradation_curves(lambda x: rng.random(len(x)), photos)["dark"].violations == pytest.approx(0.5, abs=0.25)
    shifts = handling_shifts(lambda x: x.mean((1, 2, 3)) / 255, photos)
    assert shifts["flipped"]["mean"] == 0


@pytest.mark.parametrize("command", ["label", "pairs", "train", "evaluate", "export"])
def test_every_option_is_an_environment_variable_too(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"IMAGE_SCORE_{command.upper()}_OUT", "/nowhere")
    monkeypatch.setenv(f"IMAGE_SCORE_{command.upper()}_PHOTOS", "/not-there")
    result = CliRunner().invoke(main, [command])
    assert result.exit_code == 2
    assert "--out" not in result.output

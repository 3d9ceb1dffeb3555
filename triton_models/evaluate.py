"""Measures an exported model against labels and preference pairs: see `image-score evaluate --help`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from schemas.vocabulary import ISSUES
from triton_models import metrics
from triton_models.baselines import baselines
from triton_models.errors import ModelError
from triton_models.labels import LabelledPhoto, Pair, pair_rows
from triton_models.metrics import Figure, Floats, interval
from triton_models.photos import load_photos
from triton_models.robustness import degradation_curves, handling_shifts

OUTPUTS = ["SCORE", "CLASS_PROBS", "ASPECTS", "ISSUES"]
HINT_PRECISION = 0.7
"""An issue is named to sellers only from the threshold on at which this share of its namings is right."""
_LEAST_IN_CATEGORY = 10


@dataclass(frozen=True)
class Predictions:
    """A model's outputs for N photos, all 0..1."""

    score: Floats
    class_probs: Floats
    aspects: Floats
    issues: Floats


class Model:
    """An exported model: photos [N, 256, 192, 3] uint8 RGB in, `Predictions` out.

    Raises:
        ModelError: the file is not such a model.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds
            raise ModelError(f"cannot load {str(path)!r}: {error}: give a model.onnx that `export` wrote") from None
        names = [output.name for output in self._session.get_outputs()]
        if names != OUTPUTS:
            raise ModelError(f"{str(path)!r} has outputs {names}: must be {OUTPUTS}")

    def predict(self, photos: NDArray[np.uint8], batch: int = 32) -> Predictions:
        parts = [self._session.run(OUTPUTS, {"PHOTOS": photos[i : i + batch]}) for i in range(0, len(photos), batch)]
        score, classes, aspects, issues = (np.concatenate(column).astype(np.float64) for column in zip(*parts))
        return Predictions(score[:, 0], classes, aspects, issues)


def _average_precision(truth: NDArray[np.bool_], probabilities: Floats) -> Figure:
    return interval(len(truth), lambda i: metrics.average_precision(truth[i], probabilities[i]), resamples=200)


def issue_figures(truth: NDArray[np.bool_], probabilities: Floats) -> dict[str, Any]:
    """Return what can be said of one issue: positives, average precision, threshold for hints, calibration."""
    threshold = metrics.precision_threshold(truth, probabilities, HINT_PRECISION)
    named = probabilities >= threshold if threshold is not None else np.zeros(len(truth), bool)
    return {
        "positives": int(truth.sum()),
        "average_precision": _average_precision(truth, probabilities) if truth.any() else None,
        "ece": round(metrics.ece(truth, probabilities), 4),
        "threshold": None if threshold is None else round(threshold, 4),
        "named": int(named.sum()),
        "precision": round(float(truth[named].mean()), 4) if named.any() else None,
        "recall": round(float(named[truth].mean()), 4) if truth.any() else None,
        "passes": threshold is not None,
    }


def evaluate(
    model: Path,
    folder: Path,
    photos: Sequence[LabelledPhoto],
    pairs: Sequence[Pair],
    ceilings: dict[str, float] | None = None,
    harmed: int = 100,
) -> dict[str, Any]:
    """Return every figure of the report, as JSON can hold it.

    `ceilings` are figures of one judge against another, by name (srcc, opa); the report gives the share reached.
    Robustness is measured on `harmed` of the photos.

    Raises:
        LabelError: a photo is missing, or a pair names a photo without a label.
        ModelError: the model cannot be loaded.
    """
    served = Model(model)
    pixels = load_photos(folder, [photo.photo for photo in photos])
    found = served.predict(pixels)
    truth = np.array([photo.fine_score for photo in photos])
    columns = {"model": found.score, **baselines(pixels)}
    better, worse = pair_rows(pairs, photos)
    weights = np.array([pair.weight for pair in pairs])

    def opa(scores: Floats) -> Figure:
        return interval(len(pairs), lambda i: metrics.opa(scores[better[i]], scores[worse[i]], weights[i]))

    figures: dict[str, Any] = {
        "photos": len(photos),
        "pairs": len(pairs),
        "srcc": {name: metrics.correlation_interval(scores, truth, ranks=True) for name, scores in columns.items()},
        "plcc": {name: metrics.correlation_interval(scores, truth, ranks=False) for name, scores in columns.items()},
        "opa": {n: opa(s) for n, s in columns.items()} if pairs else {},
        "mae": interval(len(truth), lambda i: metrics.mae(found.score[i], truth[i])),
    }
    classes = np.array([round(float(np.mean([j.score for j in photo.judgements]))) for photo in photos])
    figures["ca"] = interval(len(truth), lambda i: metrics.ca(found.class_probs[i], classes[i]))
    figures["ca_commonest"] = round(max(Counter(classes.tolist()).values()) / len(classes), 4)
    figures["ceilings"] = {
        name: {"ceiling": value, "share": round(figures[name]["model"]["value"] / value, 3)}
        for name, value in (ceilings or {}).items()
        if figures[name]
    }
    said = np.array(
        [[2 * sum(i in j.issues for j in p.judgements) >= len(p.judgements) for i in ISSUES] for p in photos]
    )
    figures["issues"] = {issue.value: issue_figures(said[:, k], found.issues[:, k]) for k, issue in enumerate(ISSUES)}
    likeliest = found.class_probs.argmax(1) + 1 == classes
    figures["calibration"] = {
        "classes": {"ece": round(metrics.ece(likeliest, found.class_probs.max(1)), 4)}
        | {"reliability": metrics.reliability(likeliest, found.class_probs.max(1))},
        "issues": {"ece": round(metrics.ece(said.ravel(), found.issues.ravel()), 4)}
        | {"reliability": metrics.reliability(said.ravel(), found.issues.ravel())},
    }
    figures["categories"] = _by_category(photos, found.score, truth, better, worse)
    some = pixels[np.random.default_rng(0).permutation(len(pixels))[:harmed]]
    figures["robustness"] = {
        "photos": len(some),
        "degradations": {n: asdict(c) for n, c in degradation_curves(lambda x: served.predict(x).score, some).items()},
        "handlings": handling_shifts(lambda x: served.predict(x).score, some),
    }
    figures["predictions"] = [
        {"photo": photo.photo, "score": round(float(s), 4), "label": round(float(t), 4), "class": int(c)}
        for photo, s, t, c in zip(photos, found.score, truth, classes)
    ]
    return figures


def _by_category(
    photos: Sequence[LabelledPhoto],
    scores: Floats,
    truth: Floats,
    better: NDArray[np.intp],
    worse: NDArray[np.intp],
) -> dict[str, Any]:
    """Return SRCC and OPA of each category that has photos enough to say something."""
    names = np.array([photo.category for photo in photos])
    found = {}
    for name in sorted(set(names)):
        rows = np.flatnonzero(names == name)
        if len(rows) < _LEAST_IN_CATEGORY:
            continue
        of_pairs = names[better] == name if len(better) else np.zeros(0, bool)
        b, w = better[of_pairs], worse[of_pairs]
        found[str(name)] = {
            "photos": len(rows),
            "srcc": metrics.correlation_interval(scores[rows], truth[rows], ranks=True),
            "pairs": len(b),
            "opa": round(metrics.opa(scores[b], scores[w]), 4) if len(b) else None,
        }
    return found


def issue_impacts(photos: Sequence[LabelledPhoto], penalty: float = 5.0) -> dict[str, float]:
    """Return how much of a score in 0..1 each issue costs: ridge regression of the fine scores on the issues."""
    targets = np.array([photo.target() for photo in photos])
    has, truth = targets[:, 11:31], targets[:, 31]
    design = np.column_stack([np.ones(len(photos)), has])
    weights = np.linalg.solve(design.T @ design + penalty * np.eye(design.shape[1]), design.T @ truth)
    return {issue.value: round(float(-weight), 3) for issue, weight in zip(ISSUES, weights[1:])}

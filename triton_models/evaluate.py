"""Measure an exported model: SRCC on labels and OPA on preference pairs, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from schemas.vocabulary import ASPECTS, ISSUES

RESAMPLES = 2000

Floats = NDArray[np.floating[Any]]


def fine_score(label: dict[str, Any]) -> float:
    """Return a label's place in the rubric's finer order, 0..1: (score + mean(aspects) / 5 - 1.2) / 4.8."""
    aspects = np.mean([label["aspects"][aspect] for aspect in ASPECTS])
    return float((label["score"] + aspects / 5 - 1.2) / 4.8)


def interval(count: int, metric: Callable[[NDArray[np.intp]], float]) -> dict[str, float]:
    """Return `metric` of all `count` samples, and its 95% percentile-bootstrap interval."""
    rng = np.random.default_rng(0)
    values = [metric(rng.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.percentile(values, [2.5, 97.5])
    return {k: round(float(v), 3) for k, v in (("value", metric(np.arange(count))), ("low", low), ("high", high))}


def srcc(a: Floats, b: Floats) -> dict[str, float]:
    """Spearman's rank correlation of two score lists, with its interval."""
    return interval(len(a), lambda i: float(spearmanr(a[i], b[i]).statistic))


def opa(better: Floats, worse: Floats) -> dict[str, float]:
    """Ordered pair accuracy: the share of pairs whose better photo scores higher (ties count half)."""
    right = (better > worse) + 0.5 * (better == worse)
    return interval(len(right), lambda i: float(right[i].mean()))


def baselines(photos: NDArray[np.uint8]) -> dict[str, Floats]:
    """Single-feature baselines of photos [N, H, W, 3]: brightness, contrast, sharpness."""
    luma = photos.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    laplacian = (
        4 * luma[:, 1:-1, 1:-1] - luma[:, 2:, 1:-1] - luma[:, :-2, 1:-1] - luma[:, 1:-1, 2:] - luma[:, 1:-1, :-2]
    )
    return {
        "brightness": luma.mean((1, 2)),
        "contrast": luma.std((1, 2)),
        "sharpness": laplacian.var((1, 2)),
    }


def predict(model: Path, photos: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return scores [N] and issue probabilities [N, 20]."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    parts = [session.run(["SCORE", "ISSUES"], {"PHOTOS": photos[i : i + 32]}) for i in range(0, len(photos), 32)]
    return np.concatenate([p[0][:, 0] for p in parts]), np.concatenate([p[1] for p in parts])


def issue_report(probabilities: Floats, labels: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each issue with positives: their count, average precision, and precision and count at 0.5."""
    report = {}
    for column, issue in enumerate(ISSUES):
        truth = np.array([issue in label["issues"] for label in labels])
        if not truth.any():
            continue
        named = probabilities[:, column] >= 0.5
        report[issue.value] = {
            "positives": int(truth.sum()),
            "average_precision": round(float(average_precision_score(truth, probabilities[:, column])), 3),
            "named_at_0.5": int(named.sum()),
            "precision_at_0.5": round(float(truth[named].mean()), 3) if named.any() else 0.0,
        }
    return report


def report(
    model: Path, photos: NDArray[np.uint8], labels: list[dict[str, Any]], pairs: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return SRCC and OPA of the model and of the baselines, and the issues' precision, on these photos."""
    scores, issues = predict(model, photos)
    truth = np.array([fine_score(label) for label in labels])
    row = {label["photo"]: i for i, label in enumerate(labels)}
    better = np.array([row[pair["better"]] for pair in pairs])
    worse = np.array([row[pair["worse"]] for pair in pairs])
    columns: dict[str, Floats] = {"model": scores, **baselines(photos)}
    return {
        "photos": len(labels),
        "pairs": len(pairs),
        "srcc": {name: srcc(values, truth) for name, values in columns.items()},
        "opa": {name: opa(values[better], values[worse]) for name, values in columns.items()},
        "issues": issue_report(issues, labels),
    }


def issue_impacts(labels: list[dict[str, Any]], penalty: float = 5.0) -> dict[str, float]:
    """Return how much of a score in 0..1 each issue costs: ridge regression of the fine scores on the issues."""
    has = np.array([[issue in label["issues"] for issue in ISSUES] for label in labels], float)
    design = np.column_stack([np.ones(len(labels)), has])
    truth = np.array([fine_score(label) for label in labels])
    weights = np.linalg.solve(design.T @ design + penalty * np.eye(design.shape[1]), design.T @ truth)
    return {issue.value: round(float(-weight), 3) for issue, weight in zip(ISSUES, weights[1:], strict=True)}

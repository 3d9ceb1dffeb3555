"""Figures that say how good scores are, each with a 95% percentile-bootstrap interval where one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.metrics import average_precision_score

RESAMPLES = 1000

Floats = NDArray[np.floating[Any]]
Rows = NDArray[np.intp]
Figure = dict[str, float]
"""`value`, and `low` and `high` of its interval."""


def interval(count: int, metric: Callable[[Rows], float], resamples: int = RESAMPLES, seed: int = 0) -> Figure:
    """Return `metric` of all `count` rows, and its 95% percentile-bootstrap interval over resampled rows."""
    rng = np.random.default_rng(seed)
    values = [metric(rng.integers(0, count, count)) for _ in range(resamples)]
    return _figure(metric(np.arange(count)), values)


def _figure(value: float, resampled: Sequence[float] | Floats) -> Figure:
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return {k: round(float(v), 4) for k, v in (("value", value), ("low", low), ("high", high))}


def correlation_interval(scores: Floats, truth: Floats, ranks: bool, resamples: int = RESAMPLES) -> Figure:
    """Return `srcc` (of ranks) or `plcc`, and its interval, as `interval` does, all resamples at once."""
    rows = np.random.default_rng(0).integers(0, len(truth), (resamples, len(truth)))
    rows = np.concatenate([np.arange(len(truth))[None], rows])
    a, b = scores[rows].astype(np.float64), truth[rows].astype(np.float64)
    if ranks:
        a, b = rankdata(a, axis=1), rankdata(b, axis=1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        found = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return _figure(found[0], found[1:])


def srcc(scores: Floats, truth: Floats) -> float:
    """Spearman's rank correlation coefficient, -1..1; nan where one side is constant."""
    return float(spearmanr(scores, truth).statistic) if np.ptp(scores) and np.ptp(truth) else float("nan")


def plcc(scores: Floats, truth: Floats) -> float:
    """Pearson's linear correlation coefficient, -1..1; nan where one side is constant."""
    return float(pearsonr(scores, truth).statistic) if np.ptp(scores) and np.ptp(truth) else float("nan")


def mae(scores: Floats, truth: Floats) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(scores - truth)))


def ordered(better: Floats, worse: Floats) -> Floats:
    """Return 1 for each pair whose better photo scores higher, 0.5 for a tie, else 0."""
    return (better > worse) + 0.5 * (better == worse)


def opa(better: Floats, worse: Floats, weights: Floats | None = None) -> float:
    """Ordered pair accuracy (arXiv 2408.11349): the share of pairs in the right order, by weight; ties count half."""
    return float(np.average(ordered(better, worse), weights=weights))


def ca(class_probs: Floats, classes: NDArray[np.integer[Any]]) -> float:
    """Classification accuracy: the share of photos whose likeliest class [N, 5] is the labelled one, 1..5."""
    return float(np.mean(class_probs.argmax(1) + 1 == classes))


def average_precision(truth: NDArray[np.bool_], probabilities: Floats) -> float:
    """Area under the precision-recall curve as a sum over thresholds; nan without positives."""
    return float(average_precision_score(truth, probabilities)) if truth.any() else float("nan")


def reliability(truth: NDArray[np.bool_], probabilities: Floats, bins: int = 10) -> list[dict[str, float]]:
    """Return, for each of `bins` equal bins of probability that is not empty: count, mean probability, true share."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    found = []
    for b in range(bins):
        inside = place == b
        if inside.any():
            shares = {"probability": float(probabilities[inside].mean()), "share": float(truth[inside].mean())}
            found.append({"count": int(inside.sum()), **{k: round(v, 4) for k, v in shares.items()}})
    return found


def ece(truth: NDArray[np.bool_], probabilities: Floats, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015): mean |probability - true share| of the bins, by count."""
    rows = reliability(truth, probabilities, bins)
    gaps = [row["count"] * abs(row["probability"] - row["share"]) for row in rows]
    return float(sum(gaps) / len(truth))


def precision_threshold(
    truth: NDArray[np.bool_], probabilities: Floats, precision: float = 0.7, least: int = 5
) -> float | None:
    """Return the lowest threshold from which on at least `least` photos are named, `precision` of them rightly.

    None where there is no such threshold.
    """
    order = np.argsort(-probabilities, kind="stable")
    right = np.cumsum(truth[order])
    named = np.arange(1, len(order) + 1)
    last = np.append(probabilities[order][1:] < probabilities[order][:-1], True)  # a threshold takes all equals
    good = np.flatnonzero(last & (named >= least) & (right >= precision * named))
    return float(probabilities[order][good[-1]]) if len(good) else None

"""Each figure against scikit-learn, scipy, or a case that was reckoned by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, mean_absolute_error, precision_recall_curve, precision_score

from triton_models import metrics

RNG = np.random.default_rng(0)
SCORES = RNG.random(200)
TRUTH = np.clip(SCORES + RNG.normal(0, 0.2, 200), 0, 1)


def test_correlations_are_scipys() -> None:
    assert metrics.srcc(SCORES, TRUTH) == pytest.approx(stats.spearmanr(SCORES, TRUTH).statistic)
    assert metrics.plcc(SCORES, TRUTH) == pytest.approx(stats.pearsonr(SCORES, TRUTH).statistic)


@pytest.mark.parametrize(("ranks", "metric"), [(True, metrics.srcc), (False, metrics.plcc)])
def test_correlations_interval_is_the_one_of_the_metric(ranks: bool, metric: Callable[..., float]) -> None:
    ours = metrics.correlation_interval(SCORES.round(1), TRUTH, ranks)
    assert ours == pytest.approx(metrics.interval(len(TRUTH), lambda i: metric(SCORES.round(1)[i], TRUTH[i])), abs=0.01)


def test_rank_correlation_of_a_hand_made_case() -> None:
    # ranks 1 2 3 4 against 1 2 4 3: 1 - 6 * 2 / (4 * 15)
    assert metrics.srcc(np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 2.0, 4.0, 3.0])) == pytest.approx(0.8)


def test_correlation_with_a_constant_is_none() -> None:
    assert np.isnan(metrics.srcc(np.ones(5), np.arange(5.0)))
    assert np.isnan(metrics.plcc(np.ones(5), np.arange(5.0)))


def test_mean_absolute_error_is_scikit_learns() -> None:
    assert metrics.mae(SCORES, TRUTH) == pytest.approx(mean_absolute_error(TRUTH, SCORES))


def test_ordered_pair_accuracy_counts_ties_half_and_weights_pairs() -> None:
    better, worse = np.array([0.9, 0.5, 0.2]), np.array([0.1, 0.5, 0.3])
    assert metrics.opa(better, worse) == pytest.approx(0.5)
    assert metrics.opa(better, worse, np.array([2.0, 1.0, 1.0])) == pytest.approx(2.5 / 4)


def test_ordered_pair_accuracy_of_all_pairs_is_kendalls_tau() -> None:
    truth = SCORES + RNG.normal(0, 0.2, len(SCORES))
    i, j = np.triu_indices(len(truth), 1)
    better, worse = np.where(truth[i] > truth[j], i, j), np.where(truth[i] > truth[j], j, i)
    tau = stats.kendalltau(SCORES, truth).statistic
    assert 2 * metrics.opa(SCORES[better], SCORES[worse]) - 1 == pytest.approx(tau)


def test_class_accuracy_is_scikit_learns() -> None:
    probabilities, classes = RNG.dirichlet(np.ones(5), 100), RNG.integers(1, 6, 100)
    assert metrics.ca(probabilities, classes) == pytest.approx(accuracy_score(classes, probabilities.argmax(1) + 1))


def test_average_precision_of_a_hand_made_case() -> None:
    # right, wrong, right: (1/1 + 2/3) / 2
    assert metrics.average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7])) == pytest.approx(5 / 6)
    assert np.isnan(metrics.average_precision(np.zeros(3, bool), np.array([0.9, 0.8, 0.7])))


def test_reliability_is_scikit_learns_curve() -> None:
    probabilities = RNG.random(500)
    truth = RNG.random(500) < probabilities**2
    share, mean = calibration_curve(truth, probabilities, n_bins=10)
    rows = metrics.reliability(truth, probabilities)
    assert [row["share"] for row in rows] == pytest.approx(share, abs=1e-4)
    assert [row["probability"] for row in rows] == pytest.approx(mean, abs=1e-4)


def test_calibration_error_of_a_hand_made_case() -> None:
    # two photos at 0.8 of which one is right, two at 0.25 of which none is: (2 * 0.3 + 2 * 0.25) / 4
    truth, probabilities = np.array([True, False, False, False]), np.array([0.8, 0.8, 0.25, 0.25])
    assert metrics.ece(truth, probabilities) == pytest.approx(0.275)


def test_threshold_is_the_lowest_with_the_precision_asked_for() -> None:
    probabilities = RNG.random(400)
    truth = RNG.random(400) < probabilities**3
    threshold = metrics.precision_threshold(truth, probabilities, 0.7)
    assert threshold is not None
    assert precision_score(truth, probabilities >= threshold) >= 0.7
    precision, _, thresholds = precision_recall_curve(truth, probabilities)
    lower = thresholds < threshold
    named = np.array([(probabilities >= t).sum() for t in thresholds])
    assert not (lower & (precision[:-1] >= 0.7) & (named >= 5)).any()


def test_no_threshold_where_nothing_is_precise_enough() -> None:
    assert metrics.precision_threshold(np.zeros(50, bool), RNG.random(50)) is None


def test_interval_holds_the_true_value_as_often_as_it_says() -> None:
    """Of 200 samples whose true mean is 0, about 95% of the intervals hold 0."""
    held = 0
    for seed in range(200):
        sample = np.random.default_rng(seed).normal(size=60)
        found = metrics.interval(60, lambda i, sample=sample: float(sample[i].mean()), resamples=300, seed=seed)  # type: ignore[misc]
        held += found["low"] <= 0 <= found["high"]
    assert 180 <= held <= 199

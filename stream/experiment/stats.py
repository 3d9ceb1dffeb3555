"""Differences between two arms, with their uncertainty.

Two-sided throughout. p-values and intervals of a fixed horizon hold when they are looked at once, at a time that was
set before; the always-valid ones hold at every look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from statsmodels.stats.power import tt_solve_power
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

Values = NDArray[np.float64]
ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """Treatment minus control."""

    control: float
    treatment: float
    variance: float
    """Of the difference."""
    low: float
    high: float
    p_value: float

    @property
    def effect(self) -> float:
        return self.treatment - self.control

    @property
    def lift(self) -> float:
        """The effect as a share of control; nan when that is 0."""
        return self.effect / self.control if self.control else float("nan")

    @property
    def lift_interval(self) -> tuple[float, float]:
        """The interval as a share of control, which is taken as known."""
        if not self.control:
            return float("nan"), float("nan")
        return self.low / self.control, self.high / self.control


def mean_difference(control: Values, treatment: Values, alpha: float = ALPHA) -> Difference:
    """Compare two means by Welch's t-test.

    Args:
        control, treatment: [users], one value for each; at least two of each.
    """
    compared = CompareMeans(DescrStatsW(treatment), DescrStatsW(control))
    low, high = compared.tconfint_diff(alpha=alpha, usevar="unequal")
    _, p_value, _ = compared.ttest_ind(usevar="unequal")
    variance = control.var(ddof=1) / len(control) + treatment.var(ddof=1) / len(treatment)
    return Difference(
        float(control.mean()), float(treatment.mean()), float(variance), float(low), float(high), _p(p_value)
    )


def _p(value: float) -> float:
    """Without any variance there is no test: nothing is shown."""
    return 1.0 if np.isnan(value) else float(value)


def ratio_difference(
    control: tuple[Values, Values], treatment: tuple[Values, Values], alpha: float = ALPHA
) -> Difference:
    """Compare two ratios of sums, such as clicks to impressions, where users are independent and their events are not.

    The variance is the delta method's: that of (numerator - ratio * denominator) / mean denominator.
    https://arxiv.org/abs/1803.06336

    Args:
        control, treatment: (numerators, denominators), [users] each.
    """
    ratios, variances = [], []
    for above, below in (control, treatment):
        ratio = above.sum() / below.sum() if below.sum() else 0.0
        residual = (above - ratio * below) / below.mean() if below.sum() else np.zeros(len(above))
        ratios.append(float(ratio))
        variances.append(float(residual.var(ddof=1) / len(residual)))
    return normal_difference(ratios[0], ratios[1], sum(variances), alpha)


def normal_difference(control: float, treatment: float, variance: float, alpha: float = ALPHA) -> Difference:
    """Return a difference whose estimate is normal with this variance."""
    effect, error = treatment - control, float(np.sqrt(variance))
    half = float(scipy_stats.norm.ppf(1 - alpha / 2)) * error
    p_value = 2 * float(scipy_stats.norm.sf(abs(effect) / error)) if error else 1.0
    return Difference(control, treatment, variance, effect - half, effect + half, p_value)


def cuped(
    control: Values, treatment: Values, control_before: Values, treatment_before: Values
) -> tuple[Values, Values, float]:
    """Return the values less what the same users' values before the experiment explain, and the variance saved.

    value - theta * (before - mean of before), theta = cov / var over both arms
    (https://doi.org/10.1145/2433396.2433413). Means over both arms stay; the saved share is 0..1.
    """
    values, before = np.concatenate([control, treatment]), np.concatenate([control_before, treatment_before])
    spread = before.var(ddof=1)
    if spread == 0:
        return control, treatment, 0.0
    theta = np.cov(values, before, ddof=1)[0, 1] / spread
    centre = before.mean()
    saved = float(np.corrcoef(values, before)[0, 1] ** 2) if values.var() else 0.0
    return control - theta * (control_before - centre), treatment - theta * (treatment_before - centre), saved


def winsorized(values: Values, share: float = 0.999) -> tuple[Values, float]:
    """Return the values with those above the quantile `share` of the positive ones set to it, and that cap."""
    positive = values[values > 0]
    if not len(positive):
        return values, 0.0
    cap = float(np.quantile(positive, share))
    return np.minimum(values, cap), cap


def sample_ratio_p(counts: dict[str, int], weights: dict[str, float]) -> float:
    """Return the p-value of the arms' numbers of users, were they shared out by `weights`: a chi-square test.

    Below 0.001 the experiment is broken, and no other number of it is to be believed.
    """
    total, weight = sum(counts.values()), sum(weights.values())
    expected = [total * weights[arm] / weight for arm in counts]
    return float(scipy_stats.chisquare(list(counts.values()), expected).pvalue)


@dataclass(frozen=True)
class Sequential:
    """An always-valid p-value, and the interval of a confidence sequence, at one look."""

    p_value: float
    low: float
    high: float


def sequential(effect: float, variance: float, scale: float, alpha: float = ALPHA) -> Sequential:
    """Return what may be said at any look, by the mixture sequential probability ratio test.

    The likelihood ratio against no effect is mixed over normal effects with standard deviation `scale`, in the metric's
    units and set before the experiment (https://arxiv.org/abs/1512.04922, with the variance estimated).
    """
    if variance <= 0:
        return Sequential(1.0, -np.inf, np.inf)
    tau = scale**2
    log_ratio = 0.5 * np.log(variance / (variance + tau)) + tau * effect**2 / (2 * variance * (variance + tau))
    bound = 2 * variance * (variance + tau) / tau * (np.log(1 / alpha) + 0.5 * np.log((variance + tau) / variance))
    half = float(np.sqrt(bound))
    return Sequential(float(min(1.0, np.exp(-log_ratio))), effect - half, effect + half)


def detectable(variance: float, users: int, power: float = 0.8, alpha: float = ALPHA) -> float:
    """Return the smallest effect that this experiment finds with this chance, in the metric's units.

    Args:
        variance: of the difference.
        users: in both arms.
    """
    standard = tt_solve_power(nobs=users, power=power, alpha=alpha, alternative="two-sided")
    return float(standard) * float(np.sqrt(variance * users))


def power(effect: float, variance: float, alpha: float = ALPHA) -> float:
    """Return the chance that this effect is found, where the difference has this variance."""
    standard = effect / float(np.sqrt(variance))
    edge = float(scipy_stats.norm.ppf(1 - alpha / 2))
    return float(scipy_stats.norm.sf(edge - standard) + scipy_stats.norm.cdf(-edge - standard))


def gini(shares: Values) -> float:
    """Return the Gini coefficient of non-negative amounts, 0 (all alike) to 1 (one has all)."""
    ordered = np.sort(shares)
    total = ordered.sum()
    if total == 0:
        return 0.0
    count = len(ordered)
    ranks = np.arange(1, count + 1)
    return float((2 * (ranks * ordered).sum() / (count * total)) - (count + 1) / count)

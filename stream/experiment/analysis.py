"""Every metric of an experiment, and the decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl
from statsmodels.stats.multitest import multipletests

from stream.experiment import stats
from stream.experiment.logs import LogError, Logs
from stream.experiment.stats import ALPHA, Difference, Sequential, Values

SRM_ALPHA = 0.001
PRIMARY = "transactions"
"""Average transactions per user: the paper's metric."""
_MIN_SEGMENT = 100
"""Users of each arm that a segment needs."""
_RESAMPLES = 400


@dataclass(frozen=True)
class Metric:
    """One number for each user, or a ratio of two."""

    name: str
    title: str
    above: str
    below: str = ""
    """Empty: a mean over users; else the ratio of sums."""
    kind: Literal["mean", "share", "money"] = "mean"


METRICS = (
    Metric(PRIMARY, "Transactions per user", "transactions"),
    Metric("conversion", "Users who bought", "transactions", kind="share"),
    Metric("click_through", "Clicks per impression", "clicks", "impressions"),
    Metric("gmv", "GMV per user", "gmv", kind="money"),
)


@dataclass(frozen=True)
class Guardrail:
    """A metric that must not get worse by more than `margin`, a share of control."""

    name: str
    title: str
    worse: Literal["higher", "lower"]
    margin: float


GUARDRAILS = (
    Guardrail("latency", "Search latency, ms", "higher", 0.05),
    Guardrail("new_sellers", "Share of new sellers among impressions", "lower", 0.1),
    Guardrail("exposure_gini", "Gini of impressions over sellers", "higher", 0.05),
)


@dataclass(frozen=True)
class Finding:
    """A metric's difference, and what more is known of it."""

    metric: Metric
    difference: Difference
    raw: Difference
    """Without CUPED; the same where there is nothing to adjust with."""
    saved: float
    """Share of the variance that CUPED took away, 0..1."""
    always_valid: Sequential
    cap: float = 0.0
    """Of money: what larger amounts count as."""


@dataclass(frozen=True)
class Guarded:
    guardrail: Guardrail
    difference: Difference
    state: Literal["kept", "unclear", "broken"]
    """broken: worse by more than the margin, with the interval; kept: not, with the interval; else unclear."""


@dataclass(frozen=True)
class Segment:
    name: str
    value: str
    users: int
    difference: Difference
    corrected_p: float
    """By Holm, over all segments."""


@dataclass(frozen=True)
class Look:
    """The primary metric as it stood at the end of a day, as shares of control's then."""

    day: int
    lift: float
    always_valid: Sequential
    p_value: float
    """The least always-valid p-value so far."""


@dataclass(frozen=True)
class Analysis:
    """Everything about one comparison; see the report for its meaning in words."""

    control: str
    treatment: str
    users: dict[str, int]
    sample_ratio_p: float
    findings: list[Finding]
    guarded: list[Guarded]
    segments: list[Segment]
    looks: list[Look]
    crossovers: int
    detectable: float
    """Smallest change of the primary metric found with 80% chance, as a share of control."""
    alpha: float = ALPHA
    notes: list[str] = field(default_factory=list)

    @property
    def primary(self) -> Finding:
        return self.findings[0]

    @property
    def decision(self) -> tuple[Literal["invalid", "ship", "stop", "unclear"], str]:
        """Return what to do, and why, in a sentence."""
        found = self.primary.difference
        low, high = found.lift_interval
        lift = f"{found.lift:+.1%} transactions per user ({low:+.1%} to {high:+.1%})"
        if self.sample_ratio_p < SRM_ALPHA:
            return (
                "invalid",
                "The arms do not have the numbers of users that they should: find out why, and run it again.",
            )
        broken = [g.guardrail.title for g in self.guarded if g.state == "broken"]
        if broken:
            return "stop", f"A guardrail is broken ({', '.join(broken)}), whatever the effect: {lift}."
        if found.p_value < self.alpha and found.effect > 0:
            return "ship", f"The treatment brings {lift}."
        if found.p_value < self.alpha:
            return "stop", f"The treatment costs: {lift}."
        return (
            "unclear",
            f"No effect is shown: {lift}. This experiment would find {self.detectable:.1%} four times in five.",
        )


def analyze(
    logs: Logs,
    control: str,
    treatment: str,
    weights: dict[str, float] | None = None,
    expected_lift: float = 0.05,
    alpha: float = ALPHA,
    seed: int = 0,
) -> Analysis:
    """Compare two arms.

    Args:
        weights: how users were shared out; default: alike.
        expected_lift: a plausible effect, as a share of control, set before: it scales the always-valid statistics.

    Raises:
        LogError: an arm is not in the exposures, or has fewer than two users.
    """
    arms = {arm: logs.users.filter(pl.col("arm") == arm) for arm in (control, treatment)}
    for arm, users in arms.items():
        if len(users) < 2:
            there = logs.users["arm"].unique().sort().to_list()
            raise LogError(f"arm {arm!r} has {len(users)} users; the exposures have arms {there}")
    sizes = {arm: len(users) for arm, users in arms.items()}
    weights = weights or dict.fromkeys(sizes, 1.0)
    findings = [_find(metric, arms[control], arms[treatment], expected_lift, alpha) for metric in METRICS]
    primary = findings[0].difference
    least = stats.detectable(primary.variance, sum(sizes.values()), alpha=alpha)
    return Analysis(
        control,
        treatment,
        sizes,
        stats.sample_ratio_p(sizes, weights),
        findings,
        _guard(logs, arms[control], arms[treatment], control, treatment, alpha, seed),
        _segments(logs, arms[control], arms[treatment], alpha),
        _looks(logs, control, treatment, expected_lift, alpha),
        logs.crossovers,
        least / primary.control if primary.control else float("nan"),
        alpha,
    )


def _column(users: pl.DataFrame, name: str) -> Values:
    return users[name].to_numpy().astype(np.float64)


def _find(
    metric: Metric, control: pl.DataFrame, treatment: pl.DataFrame, expected_lift: float, alpha: float
) -> Finding:
    if metric.below:
        both = [(_column(users, metric.above), _column(users, metric.below)) for users in (control, treatment)]
        found = stats.ratio_difference(both[0], both[1], alpha)
        return Finding(metric, found, found, 0.0, _always(found, expected_lift, alpha))
    values = [_column(users, metric.above) for users in (control, treatment)]
    before = [_column(users, f"{metric.above}_before") for users in (control, treatment)]
    cap = 0.0
    if metric.kind == "share":
        values, before = [(v > 0).astype(np.float64) for v in values], [(v > 0).astype(np.float64) for v in before]
    if metric.kind == "money":
        capped, cap = stats.winsorized(np.concatenate(values))
        values = [capped[: len(values[0])], capped[len(values[0]) :]]
    raw = stats.mean_difference(values[0], values[1], alpha)
    first, second, saved = stats.cuped(values[0], values[1], before[0], before[1])
    found = stats.mean_difference(first, second, alpha)
    return Finding(metric, found, raw, saved, _always(found, expected_lift, alpha), cap)


def _always(found: Difference, expected_lift: float, alpha: float) -> Sequential:
    return stats.sequential(found.effect, found.variance, abs(found.control) * expected_lift or 1.0, alpha)


def _guard(
    logs: Logs,
    control: pl.DataFrame,
    treatment: pl.DataFrame,
    control_arm: str,
    treatment_arm: str,
    alpha: float,
    seed: int,
) -> list[Guarded]:
    def ratio(above: str, below: str) -> Difference:
        both = [(_column(users, above), _column(users, below)) for users in (control, treatment)]
        return stats.ratio_difference(both[0], both[1], alpha)

    found = {
        "latency": ratio("latency", "searches"),
        "new_sellers": ratio("new_shown", "impressions"),
        "exposure_gini": _gini_difference(logs.impressions, control_arm, treatment_arm, alpha, seed),
    }
    return [Guarded(rail, found[rail.name], _state(rail, found[rail.name])) for rail in GUARDRAILS]


def _state(rail: Guardrail, found: Difference) -> Literal["kept", "unclear", "broken"]:
    limit = rail.margin * abs(found.control)
    least, most = (found.low, found.high) if rail.worse == "higher" else (-found.high, -found.low)
    return "broken" if least > limit else "kept" if most <= limit else "unclear"


def _gini_difference(shown: pl.DataFrame, control: str, treatment: str, alpha: float, seed: int) -> Difference:
    """Compare how unequally impressions fall on sellers; the variance is a (Poisson) bootstrap's over users."""
    rng = np.random.default_rng(seed)
    values, variance = [], 0.0
    for arm in (control, treatment):
        rows = shown.filter(pl.col("arm") == arm).drop_nulls("seller_id")
        sellers = rows["seller_id"].rank("dense").to_numpy().astype(np.int64) - 1
        users = rows["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
        amounts = rows["shown"].to_numpy().astype(np.float64)
        if not len(rows):
            return stats.normal_difference(0.0, 0.0, 0.0, alpha)
        values.append(stats.gini(np.bincount(sellers, amounts).astype(np.float64)))
        again = [
            stats.gini(np.bincount(sellers, amounts * drawn[users]).astype(np.float64))
            for drawn in rng.poisson(1.0, (_RESAMPLES, users.max() + 1))
        ]
        variance += float(np.var(again, ddof=1))
    return stats.normal_difference(values[0], values[1], variance, alpha)


def _segments(logs: Logs, control: pl.DataFrame, treatment: pl.DataFrame, alpha: float) -> list[Segment]:
    found = []
    for name in logs.segments:
        for value in logs.users[name].drop_nulls().unique().sort().to_list():
            parts = [users.filter(pl.col(name) == value) for users in (control, treatment)]
            if min(map(len, parts)) < _MIN_SEGMENT:
                continue
            difference = _find(METRICS[0], parts[0], parts[1], 0.05, alpha).difference
            found.append((name, str(value), sum(map(len, parts)), difference))
    if not found:
        return []
    corrected = multipletests([difference.p_value for *_, difference in found], alpha, method="holm")[1]
    return [Segment(*row, float(p)) for row, p in zip(found, corrected, strict=True)]


def _looks(logs: Logs, control: str, treatment: str, expected_lift: float, alpha: float) -> list[Look]:
    """Return the primary metric day by day, as it could have been seen then."""
    looks: list[Look] = []
    least = 1.0
    days: Any = logs.users["day"].max()
    bought = logs.transactions
    for day in range(days + 1):
        users = logs.users.filter(pl.col("day") <= day).select("user_id", "arm")
        counts = bought.filter(pl.col("day") <= day).group_by("user_id").len("count")
        joined = users.join(counts, on="user_id", how="left").with_columns(pl.col("count").fill_null(0))
        values = [_column(joined.filter(pl.col("arm") == arm), "count") for arm in (control, treatment)]
        if min(map(len, values)) < 2:
            continue
        found = stats.mean_difference(values[0], values[1], alpha)
        if not found.control:
            continue
        always = stats.sequential(found.lift, found.variance / found.control**2, expected_lift, alpha)
        least = min(least, always.p_value)
        looks.append(Look(day, found.lift, always, least))
    return looks

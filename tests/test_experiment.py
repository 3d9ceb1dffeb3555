"""Analysis of experiments: error rates on simulated data, the logs, the decision, the report."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from schemas import vectors
from stream.cli import main
from stream.experiment import analysis, logs, stats

Floats = NDArray[np.float64]
SIMULATIONS = 2000
START = datetime(2026, 1, 1, tzinfo=UTC)


def buyers(rng: np.random.Generator, count: int, lift: float = 0.0) -> tuple[Floats, Floats]:
    """Return each buyer's purchases before and after; buyers differ, so the two go together."""
    rate = rng.gamma(0.8, 1.0, count)
    return rng.poisson(rate).astype(float), rng.poisson(rate * (1 + lift)).astype(float)


def test_a_a_tests_reject_as_often_as_stated() -> None:
    rng = np.random.default_rng(1)
    rejected = {"t": 0, "cuped": 0, "delta": 0, "always": 0}
    for _ in range(SIMULATIONS):
        (before_a, a), (before_b, b) = buyers(rng, 400), buyers(rng, 400)
        rejected["t"] += stats.mean_difference(a, b).p_value < 0.05
        first, second, _ = stats.cuped(a, b, before_a, before_b)
        adjusted = stats.mean_difference(first, second)
        rejected["cuped"] += adjusted.p_value < 0.05
        shown = [rng.poisson(20, 400) + 1.0 for _ in range(2)]
        clicks = [
            rng.binomial(n.astype(int), np.minimum(0.9, 0.02 * (1 + before))) * 1.0
            for n, before in zip(shown, (before_a, before_b), strict=True)
        ]
        rejected["delta"] += stats.ratio_difference((clicks[0], shown[0]), (clicks[1], shown[1])).p_value < 0.05
        rejected["always"] += stats.sequential(adjusted.effect, adjusted.variance, 0.05).p_value < 0.05
    shares = {name: count / SIMULATIONS for name, count in rejected.items()}
    always = shares.pop("always")
    assert shares == pytest.approx(dict.fromkeys(shares, 0.05), abs=0.01)
    assert always <= 0.05


def test_looking_every_day_is_safe_with_the_always_valid_p_value_alone() -> None:
    rng = np.random.default_rng(2)
    fixed = always = 0
    for _ in range(600):
        a, b = buyers(rng, 2000)[1], buyers(rng, 2000)[1]
        looks = [stats.mean_difference(a[:n], b[:n]) for n in range(100, 2001, 100)]
        fixed += any(look.p_value < 0.05 for look in looks)
        always += any(stats.sequential(look.effect, look.variance, 0.05).p_value < 0.05 for look in looks)
    assert fixed / 600 > 0.15
    assert always / 600 <= 0.05


def test_a_lift_of_seven_percent_is_found_with_the_stated_power() -> None:
    rng = np.random.default_rng(3)
    count, lift = 4000, 0.07
    plain = [buyers(rng, 50_000) for _ in range(2)]
    variance = stats.mean_difference(plain[0][1], plain[1][1]).variance * 50_000 / count
    stated = stats.power(lift * 0.8, variance)
    found = adjusted = 0
    for _ in range(500):
        (before_a, a), (before_b, b) = buyers(rng, count), buyers(rng, count, lift)
        found += stats.mean_difference(a, b).p_value < 0.05
        adjusted += stats.mean_difference(*stats.cuped(a, b, before_a, before_b)[:2]).p_value < 0.05
    assert found / 500 == pytest.approx(stated, abs=0.05)
    assert adjusted > found, "CUPED finds more"


def test_the_detectable_effect_is_the_one_with_eighty_percent_power() -> None:
    assert stats.power(stats.detectable(0.01, 1000), 0.01) == pytest.approx(0.8, abs=0.005)


def test_means_agree_with_scipy() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(1, 2, 300), rng.normal(1.3, 1, 200)
    found, expected = stats.mean_difference(a, b), scipy_stats.ttest_ind(b, a, equal_var=False)
    interval = expected.confidence_interval()
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.lift == pytest.approx(b.mean() / a.mean() - 1)


def test_the_delta_method_agrees_with_a_bootstrap() -> None:
    rng = np.random.default_rng(5)
    shown = rng.poisson(10, 2000) + 1.0
    clicks = rng.binomial(shown.astype(int), rng.beta(1, 9, 2000)) * 1.0
    found = stats.ratio_difference((clicks, shown), (clicks, shown)).variance / 2
    draws = rng.integers(0, 2000, (2000, 2000))
    again = clicks[draws].sum(1) / shown[draws].sum(1)
    assert found == pytest.approx(again.var(), rel=0.1)


def test_the_sample_ratio_is_checked_against_the_weights() -> None:
    assert stats.sample_ratio_p({"a": 5000, "b": 5100}, {"a": 1, "b": 1}) > 0.1
    assert stats.sample_ratio_p({"a": 5000, "b": 5600}, {"a": 1, "b": 1}) < 1e-6
    assert stats.sample_ratio_p({"a": 9000, "b": 1000}, {"a": 9, "b": 1}) == 1


def test_cuped_keeps_the_effect_and_takes_variance_away() -> None:
    rng = np.random.default_rng(6)
    (before_a, a), (before_b, b) = buyers(rng, 20_000), buyers(rng, 20_000, 0.2)
    first, second, saved = stats.cuped(a, b, before_a, before_b)
    plain, adjusted = stats.mean_difference(a, b), stats.mean_difference(first, second)
    assert adjusted.effect == pytest.approx(plain.effect, abs=0.02)
    assert adjusted.variance == pytest.approx(plain.variance * (1 - saved), rel=0.02)
    assert saved > 0.1


def test_money_beyond_the_cap_counts_as_the_cap() -> None:
    values, cap = stats.winsorized(np.array([0.0, 0.0, *range(1, 101), 1e6]), 0.99)
    assert values.max() == cap < 1e6
    assert values[:3].tolist() == [0, 0, 1]


@pytest.mark.parametrize(("amounts", "gini"), [([1, 1, 1, 1], 0.0), ([0, 0, 0, 1], 0.75), ([1, 3], 0.25), ([0], 0)])
def test_gini(amounts: list[float], gini: float) -> None:
    assert stats.gini(np.array(amounts, dtype=float)) == pytest.approx(gini)


def write_logs(folder: Path, lift: float = 0.0, users: int = 2000, slow: float = 1.0, share: float = 0.5) -> list[str]:
    """Write the logs of an experiment; return their paths."""
    rng = np.random.default_rng(7)
    exposures: list[tuple[Any, ...]] = []
    events: list[tuple[Any, ...]] = []
    for number in range(users):
        treated = rng.random() < share
        user, day = f"u{number}", float(rng.random() * 10)
        met = START + timedelta(days=day)
        exposures.append((user, "treatment" if treated else "control", met, rng.choice(["phone", "computer"])))
        rate = rng.gamma(1.0, 1.0)
        for before in (True, False):
            at = met + timedelta(hours=-1 if before else 1)
            factor = 1 + lift * (treated and not before)
            events += [(user, at, "transaction", float(rng.lognormal(3, 1)), None, None)] * rng.poisson(rate * factor)
            events.append((user, at, "search", 50.0 * (slow if treated else 1), None, None))
            shown = [f"s{int(s)}" for s in rng.zipf(1.5, 10) % 50]
            events += [(user, at, "impression", None, seller, seller < "s2") for seller in shown]
            events += [(user, at, "click", None, None, None)] * rng.poisson(1.0)
        events.append((user, met, "unknown", None, None, None))
    paths = [folder / "exposures.parquet", folder / "events.parquet"]
    names = ["user_id", "arm", "at", "device"]
    pl.DataFrame(exposures, names, orient="row").write_parquet(paths[0])
    names = ["user_id", "at", "type", "value", "seller_id", "new_seller"]
    pl.DataFrame(events, names, orient="row", infer_schema_length=None).write_parquet(paths[1])
    return [str(path) for path in paths]


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["experiment", *map(str, words)], catch_exceptions=False)


def analyzed(folder: Path, *options: object, **changes: float) -> dict[str, object]:
    done = command("analyze", *write_logs(folder, **changes), "--out", folder, *options)  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads((folder / "analysis.json").read_text())
    return found


def test_a_lift_is_shipped(tmp_path: Path) -> None:
    found = analyzed(tmp_path, lift=0.3)
    assert found["decision"] == "ship"
    page = (tmp_path / "report.html").read_text()
    assert page.index("Ship it.") < page.index("<h2>")
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


def test_no_effect_is_said_with_what_could_have_been_found(tmp_path: Path) -> None:
    found = analyzed(tmp_path)
    assert found["decision"] == "unclear"
    assert "would find" in str(found["why"])


def test_wrong_shares_make_an_experiment_invalid(tmp_path: Path) -> None:
    assert analyzed(tmp_path, lift=0.3, share=0.4)["decision"] == "invalid"
    assert analyzed(tmp_path, "--weights", "60:40", lift=0.3, share=0.4)["decision"] == "ship"


def test_a_broken_guardrail_stops_whatever_the_effect(tmp_path: Path) -> None:
    found = analyzed(tmp_path, lift=0.3, slow=1.2)
    assert found["decision"] == "stop"
    assert "latency" in str(found["why"])


def test_simulated_data_is_said_to_be_so_at_the_top(tmp_path: Path) -> None:
    analyzed(tmp_path, "--simulated", "Drawn by a test.")
    page = (tmp_path / "report.html").read_text()
    assert page.index("Drawn by a test.") < page.index('<div class="decision')


def test_users_seen_in_both_arms_are_left_out(tmp_path: Path) -> None:
    exposures, events = write_logs(tmp_path, users=300)
    frame = pl.read_parquet(exposures)
    other = pl.when(pl.col("arm") == "control").then(pl.lit("treatment")).otherwise(pl.lit("control")).alias("arm")
    pl.concat([frame, frame.head(3).with_columns(other)]).write_parquet(exposures)
    read = logs.read(Path(exposures), Path(events))
    assert read.crossovers == 3
    assert len(read.users) == 297


def test_events_count_from_the_exposure_on(tmp_path: Path) -> None:
    rows = [("a", "control", START), ("b", "treatment", START)]
    pl.DataFrame(rows, ["user_id", "arm", "at"], orient="row").write_parquet(tmp_path / "x.parquet")
    hours = {-1: 5.0, 0: 7.0, 30: 2.0}
    events = [("a", START + timedelta(hours=h), "transaction", v, None, None) for h, v in hours.items()]
    schema: dict[str, Any] = {"user_id": pl.String, "at": pl.Datetime("us", "UTC"), "type": pl.String}
    schema |= {"value": pl.Float64, "seller_id": pl.String, "new_seller": pl.Boolean}
    pl.DataFrame(events, schema, orient="row").write_parquet(tmp_path / "e.parquet")
    read = logs.read(tmp_path / "x.parquet", tmp_path / "e.parquet")
    user = read.users.filter(pl.col("user_id") == "a").row(0, named=True)
    assert (user["transactions"], user["transactions_before"], user["gmv"]) == (2, 1, 9)
    assert read.users.filter(pl.col("user_id") == "b")["transactions"].to_list() == [0]
    assert sorted(read.transactions["day"].to_list()) == [0, 1]


def test_segments_are_corrected_for_their_number(tmp_path: Path) -> None:
    exposures, events = write_logs(tmp_path)
    found = analysis.analyze(logs.read(Path(exposures), Path(events)), "control", "treatment")
    assert {segment.value for segment in found.segments} == {"phone", "computer"}
    assert all(segment.corrected_p >= segment.difference.p_value for segment in found.segments)


@pytest.mark.parametrize(
    ("drop", "problem"), [("arm", "lacks arm"), ("at", "lacks at"), (None, "arm 'other' has 0 users")]
)
def test_logs_that_cannot_be_read_say_why(tmp_path: Path, drop: str | None, problem: str) -> None:
    exposures, events = write_logs(tmp_path, users=20)
    frame = pl.read_parquet(exposures)
    (frame.drop(drop) if drop else frame).write_parquet(exposures)
    done = command("analyze", exposures, events, "--out", tmp_path, "--treatment", "other" if not drop else "treatment")
    assert done.exit_code == 2
    assert problem in done.output


def test_assign_prints_the_arms_of_the_vectors(tmp_path: Path) -> None:
    found = vectors.experiments()
    file = tmp_path / "experiments.json"
    file.write_text(json.dumps(found["experiments"]))
    users = [row["user"] for row in found["users"]]
    lines = command("assign", file, *users).output.splitlines()
    assert [json.loads(line) for line in lines] == found["users"]
    (tmp_path / "users").write_text("\n".join(f"u{n}" for n in range(1000)))
    assert "treatment" in command("assign", file, "--users-file", tmp_path / "users", "--counts").output


def test_assign_names_what_is_wrong_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "experiments.json"
    file.write_text('{"layers": [{"name": "a", "salt": ""}]}')
    done = command("assign", file, "u1")
    assert done.exit_code == 1
    assert "layers.0.salt" in done.output

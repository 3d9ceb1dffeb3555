"""Preference pairs from search logs, and from SIMULATED logs whose preferences are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from stream.cli import main
from triton_models.labels import read_pairs
from triton_models.preferences.pairs import COLUMNS, Filters, preference_pairs, propensities, read_log
from triton_models.preferences.simulate import simulate_log


def row(photo: str, position: int, search: str = "q", **changes: Any) -> dict[str, Any]:
    found = {"search_id": search, "listing_id": f"l-{photo}", "photo": photo, "category": "hat", "title": "blue hat"}
    return found | {"price": 10.0, "position": position, "seen": True, "clicked": False, "bought": False} | changes


def pairs(*rows: dict[str, Any], **filters: Any) -> list[tuple[str, str]]:
    found = preference_pairs(pl.DataFrame(list(rows)).lazy(), Filters(**filters))
    return list(zip(found["better"].to_list(), found["worse"].to_list(), strict=True))


def test_chosen_result_is_preferred_to_those_seen_above_it() -> None:
    rows = [row("a", 1), row("b", 2), row("c", 3, clicked=True), row("d", 4)]
    assert set(pairs(*rows)) == {("c", "a"), ("c", "b")}


def test_result_that_was_not_seen_is_no_loser() -> None:
    assert pairs(row("a", 1, seen=False), row("b", 2, clicked=True)) == []


def test_bought_is_preferred_to_clicked() -> None:
    assert pairs(row("a", 1, clicked=True), row("b", 2, clicked=True, bought=True)) == [("b", "a")]


@pytest.mark.parametrize(
    "changes", [{"category": "shoes"}, {"price": 16.0}, {"price": 6.0}, {"title": "red leather boots"}]
)
def test_results_that_differ_otherwise_are_not_compared(changes: dict[str, Any]) -> None:
    assert pairs(row("a", 1, **changes), row("b", 2, clicked=True)) == []


def test_searches_are_not_mixed() -> None:
    assert pairs(row("a", 1), row("b", 2, search="other", clicked=True)) == []


def test_searches_that_disagree_cancel() -> None:
    for_b = [row("a", 1), row("b", 2, clicked=True)]
    for_a = [row("b", 1, search="r"), row("a", 2, search="r", clicked=True)]
    assert pairs(*for_b, *for_a) == []
    again = [row("a", 1, search="s"), row("b", 2, search="s", clicked=True)]
    assert pairs(*for_b, *for_a, *again) == [("b", "a")]


def test_rarely_seen_listings_are_left_out() -> None:
    rows = [row("a", 1), row("b", 2, clicked=True), row("a", 1, search="r"), row("c", 2, search="r", clicked=True)]
    assert pairs(*rows, min_impressions=2) == []


def test_weights_undo_position_bias() -> None:
    """A lower position is clicked half as often, so a click there weighs twice."""
    log = pl.DataFrame(
        [row(f"p{i}", 1 + i % 2, search=f"q{i // 2}", clicked=i % 2 == 0 or i % 4 == 1) for i in range(40)]
    ).lazy()
    found = dict(propensities(log).sort("position").iter_rows())
    assert found == pytest.approx({1: 1.0, 2: 0.5})


@pytest.mark.parametrize("bias", ["lower_chosen", "ipw"])
def test_pairs_recover_the_preferences_that_made_a_simulated_log(bias: str) -> None:
    simulated = simulate_log(30_000, listings=600, seed=3)
    found = preference_pairs(simulated.log.lazy(), Filters(bias=bias, min_margin=3.0))  # type: ignore[arg-type]
    quality = simulated.quality
    better = np.array([quality[photo] for photo in found["better"]])
    worse = np.array([quality[photo] for photo in found["worse"]])
    assert len(found) > 300
    assert (better > worse).mean() > 0.8
    far = abs(better - worse) > 0.3
    assert (better > worse)[far].mean() > 0.9


def test_simulated_log_without_an_effect_gives_pairs_without_one() -> None:
    simulated = simulate_log(30_000, listings=600, quality_effect=0.0, seed=3)
    found = preference_pairs(simulated.log.lazy(), Filters())
    quality = simulated.quality
    right = [quality[a] > quality[b] for a, b in zip(found["better"], found["worse"], strict=True)]
    assert np.mean(right) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_command_reads_parquet_and_csv_and_writes_what_training_reads(suffix: str, tmp_path: Path) -> None:
    log = tmp_path / f"log{suffix}"
    simulated = simulate_log(2_000, listings=100).log
    simulated.write_csv(log) if suffix == ".csv" else simulated.write_parquet(log)
    out = tmp_path / "pairs.jsonl"
    result = CliRunner().invoke(main, ["pairs", str(log), "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = read_pairs(out)
    assert len(found) == json.loads(result.output)["pairs"] > 100
    assert all(pair.weight >= 1 for pair in found)


def test_missing_column_is_named(tmp_path: Path) -> None:
    pl.DataFrame([row("a", 1)]).drop("seen", "price").write_parquet(tmp_path / "log.parquet")
    result = CliRunner().invoke(main, ["pairs", str(tmp_path / "log.parquet"), "--out", str(tmp_path / "p.jsonl")])
    assert result.exit_code == 2
    assert "lacks price, seen" in result.output


def test_value_of_the_wrong_type_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    pl.DataFrame([row("a", 1)]).with_columns(price=pl.lit("cheap")).write_csv(tmp_path / "log.csv")
    result = CliRunner().invoke(main, ["pairs", str(tmp_path / "log.csv"), "--out", str(tmp_path / "p.jsonl")])
    assert result.exit_code == 2
    assert "cheap" in result.output
    assert "Traceback" not in result.output


def test_help_documents_every_column() -> None:
    text = CliRunner().invoke(main, ["pairs", "--help"]).output
    for name, (_, meaning) in COLUMNS.items():
        assert name in text
        assert meaning in " ".join(text.split())


def test_log_is_read_with_exactly_its_columns(tmp_path: Path) -> None:
    pl.DataFrame([row("a", 1)]).with_columns(secret=pl.lit(1)).write_parquet(tmp_path / "log.parquet")
    assert read_log(tmp_path / "log.parquet").collect_schema().names() == list(COLUMNS)

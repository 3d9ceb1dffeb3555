"""Rankings tried on logged searches: estimates against what truly happens, on SIMULATED buyers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import redis
from click.testing import CliRunner

from schemas import record_key
from stream.cli import main
from stream.embedded import EmbeddedStack
from stream.search import replay
from stream.search.rerank import Result, Rules, rerank
from tests.bench.lookup import record
from triton_models.preferences.pairs import COLUMNS

PAGE = 10
LOOKED = np.arange(1, PAGE + 1) ** -0.8
RULES = Rules(max_places=5, weight=0.8, band=0.6)


class World:
    """Listings whose attraction rises with their score, and pages on which buyers click by position and attraction."""

    def __init__(self, searches: int, effect: float = 1.0, seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.scores = {f"l{n}": float(self.rng.random()) for n in range(300)}
        self.attraction = {one: 0.1 + 0.5 * effect * score for one, score in self.scores.items()}
        self.pages = [[f"l{n}" for n in self.rng.choice(300, PAGE, replace=False)] for _ in range(searches)]
        self.relevance = [np.sort(self.rng.uniform(1, 2, PAGE))[::-1] for _ in range(searches)]
        chance = np.array([[self.attraction[one] for one in page] for page in self.pages])
        looked = self.rng.random(chance.shape) < LOOKED
        self.seen = looked | (self.rng.random(chance.shape) < 0.3)
        self.clicked = looked & (self.rng.random(chance.shape) < chance)

    def true_clicks(self, rules: Rules) -> tuple[float, float]:
        """Return the clicks of a search with the logged and with the new ranking, as they are in this world."""
        old = new = 0.0
        for page, relevance in zip(self.pages, self.relevance, strict=True):
            chance = np.array([self.attraction[one] for one in page])
            results = [Result(one, float(r), self.scores[one]) for one, r in zip(page, relevance, strict=True)]
            order = [ranked.was - 1 for ranked in rerank(results, rules)]
            old += float((LOOKED * chance).sum())
            new += float((LOOKED * chance[order]).sum())
        return old / len(self.pages), new / len(self.pages)

    def log(self) -> pl.DataFrame:
        rows = []
        for search, page in enumerate(self.pages):
            for i, one in enumerate(page):
                seen, clicked = bool(self.seen[search, i]), bool(self.clicked[search, i])
                what = (f"{one}.jpg", "dress" if search % 2 else "shoes", "a title", 20.0)
                seller = f"s{int(one[1:]) // (1 if one < 'l2' else 20)}"
                row = (f"q{search:05d}", one, *what, i + 1, seen, clicked, False, self.relevance[search][i], seller)
                rows.append(row)
        names = [*COLUMNS, "relevance", "seller_id"]
        return pl.DataFrame(rows, names, orient="row")


def named(estimates: list[replay.Estimate]) -> dict[str, replay.Estimate]:
    return {estimate.name.rpartition(", ")[2]: estimate for estimate in estimates}


@pytest.mark.parametrize("seed", [1, 2])
def test_estimates_agree_with_what_would_happen(seed: int) -> None:
    world = World(6000, seed=seed)
    old, new = world.true_clicks(RULES)
    found = named(replay.simulate(world.log(), world.scores, RULES).overall)
    for name in ("IPS", "SNIPS", "doubly robust"):
        assert found[name].logged == pytest.approx(old, rel=0.05)
        assert found[name].low < new - old < found[name].high
        assert found[name].low > 0
    assert found["NDCG"].low > 0


def test_a_ranking_by_something_else_shows_no_effect() -> None:
    world = World(4000, effect=0.0)
    found = named(replay.simulate(world.log(), world.scores, RULES).overall)
    for name in ("IPS", "SNIPS", "doubly robust"):
        assert found[name].low < 0 < found[name].high


def test_a_ranking_that_moves_nothing_changes_nothing() -> None:
    world = World(200)
    report = replay.simulate(world.log(), world.scores, Rules(max_places=0))
    assert report.moved == 0
    assert named(report.overall)["IPS"].change == 0
    assert named(report.overall)["NDCG"].change == 0


def test_the_doubly_robust_estimate_is_the_surest() -> None:
    found = named(replay.simulate(World(3000).log(), World(3000).scores, RULES).overall)
    width = {name: found[name].high - found[name].low for name in ("IPS", "doubly robust")}
    assert width["doubly robust"] <= 1.05 * width["IPS"]


def test_the_report_tells_categories_and_seller_sizes(tmp_path: Path) -> None:
    world = World(400)
    world.log().write_parquet(tmp_path / "log.parquet")
    scores = pl.DataFrame(list(world.scores.items()), ["listing_id", "score"], orient="row")
    scores.write_csv(tmp_path / "scores.csv")
    words = [str(tmp_path / "log.parquet"), "--scores", str(tmp_path / "scores.csv"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["simulate-ranking", *words, "--weight", "0.5"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "doubly robust" in done.output
    found = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert {(by, value) for by, value, *_ in found["groups"]} >= {("category", "dress"), ("category", "shoes")}
    assert {by for by, *_ in found["groups"]} == {"category", "seller"}
    assert found["examples"]
    assert "Nobody has seen this ranking" in (tmp_path / "out" / "report.html").read_text()


def test_scores_come_from_redis_where_no_file_gives_them(stack: EmbeddedStack, tmp_path: Path) -> None:
    world = World(60)
    client = redis.Redis.from_url(stack.settings.redis)
    client.mset({record_key(one): record(round(1000 * score)) for one, score in list(world.scores.items())[:200]})
    found = replay.lookup_scores(stack.settings, world.log())
    assert 0 < len(found) <= 200
    assert all(found[one] == pytest.approx(world.scores[one], abs=2e-3) or world.scores[one] > 0.9995 for one in found)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda log: log.drop("seen"), "lacks seen"),
        (lambda log: log.with_columns(pl.lit(False).alias("clicked")), "nobody clicked"),
        (lambda log: log.with_columns(pl.lit(0.0).alias("relevance")), "relevance must be above 0"),
    ],
)
def test_logs_that_tell_nothing_are_refused(tmp_path: Path, change: object, problem: str) -> None:
    world = World(40)
    change(world.log()).write_parquet(tmp_path / "log.parquet")  # type: ignore[operator]
    with pytest.raises(replay.LogError, match=problem):
        replay.simulate(replay.read_log(tmp_path / "log.parquet"), world.scores, RULES)


def test_without_relevance_the_logged_order_stands_for_it(tmp_path: Path) -> None:
    World(5).log().drop("relevance").write_csv(tmp_path / "log.csv")
    found = replay.read_log(tmp_path / "log.csv")
    assert found.filter(pl.col("position") == 1)["relevance"].to_list() == [1.0] * 5

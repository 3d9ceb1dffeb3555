"""`image-score simulate-ranking`: what a ranking would change, told from logged searches alone.

The logged page is re-ranked, and clicks are corrected for position. Under a position-based model a result at position k
is looked at with probability e(k), whatever it is; so with propensities e, the clicks of the new page are estimated by

    IPS    mean over searches of sum_i c_i e(new_i) / e(old_i)                        (https://arxiv.org/abs/1608.04468)
    SNIPS  IPS times sum_i e(new_i) over sum_i s_i e(new_i) / P(s_i), which has the same mean (self-normalised)
    DR     sum_i e(new_i) g_i, g_i = m_i + s_i / P(s_i) (c_i / t(old_i) - m_i)        (doubly robust)

where c_i is 1 for a click, s_i for a result that was on the screen, t(k) = e(k) / P(s | k) is the attention to what is
on the screen, and m_i a model of the chance of a click when looked at. NDCG takes the gains g_i, and the ideal order of
m_i; raw clicks would favour the logged order, in which they came about. Intervals are by bootstrap over searches.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stream.errors import ImageScoreError
from stream.lookup.service import reader_of
from stream.search.rerank import Result, Rules, rerank
from stream.settings import Settings
from triton_models.preferences.pairs import COLUMNS, propensities

Values = NDArray[np.float64]
_TEMPLATE = Path(__file__).parent / "replay.html"
_RESAMPLES, _BLOCKS = 1000, 2000
_MIN_SEARCHES = 30
_BATCH = 5000
_LEAST_PROPENSITY = 0.02
"""Rarer looks would let single clicks decide: what is below counts as this."""
SIZES = ((1, "one listing"), (9, "2 to 9 listings"), (10**9, "10 listings and more"))


class LogError(ImageScoreError):
    """A log or a scores file that cannot be read; says which column is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Estimate:
    """One number of the logged and of the new ranking, each a mean over searches; the interval is of the change."""

    name: str
    logged: float
    new: float
    low: float
    high: float

    @property
    def change(self) -> float:
        return self.new - self.logged


@dataclass(frozen=True)
class Report:
    searches: int
    scored: float
    """Share of the results that have a score."""
    moved: float
    """Share of the results that stand elsewhere."""
    overall: list[Estimate]
    groups: list[tuple[str, str, int, list[Estimate]]]
    """(by what, value, searches, estimates)."""
    examples: list[str]
    """Why results moved."""


def read_log(path: Path) -> pl.DataFrame:
    """Read a search log; adds `relevance`, where search logged none, as 1 / log2(position + 1).

    Raises:
        LogError: it cannot be read, or a column is missing or of another type; names it.
    """
    frame = _scan(path)
    schema = frame.collect_schema()
    if missing := [name for name in COLUMNS if name not in schema]:
        raise LogError(f"search log {str(path)!r} lacks {', '.join(missing)}: see `image-score pairs --help`")
    columns = [pl.col(name).cast(kind) for name, (kind, _) in COLUMNS.items()]
    relevance = pl.col("relevance").cast(pl.Float64) if "relevance" in schema else 1 / (pl.col("position") + 1).log(2)
    columns.append(relevance.alias("relevance"))
    if "seller_id" in schema:
        columns.append(pl.col("seller_id").cast(pl.String))
    try:
        return frame.select(columns).sort("search_id", "position").collect()
    except pl.exceptions.PolarsError as error:
        raise LogError(f"search log {str(path)!r}: {error}") from None


def _scan(path: Path) -> pl.LazyFrame:
    try:
        frame = pl.scan_csv(path) if path.suffix == ".csv" else pl.scan_parquet(path)
        frame.collect_schema()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LogError(f"cannot read {str(path)!r}: {error}: give a Parquet or .csv file") from None
    return frame


def read_scores(path: Path) -> dict[str, float]:
    """Return the score of each listing of a file with the columns listing_id and score.

    Raises:
        LogError: it cannot be read, or a score is not 0..1.
    """
    frame = _scan(path)
    if missing := {"listing_id", "score"} - set(frame.collect_schema()):
        raise LogError(f"scores {str(path)!r} lack {', '.join(sorted(missing))}")
    found = frame.select(pl.col("listing_id").cast(pl.String), pl.col("score").cast(pl.Float64)).drop_nulls().collect()
    if len(wrong := found.filter(~pl.col("score").is_between(0, 1))):
        raise LogError(f"scores {str(path)!r}: {wrong['listing_id'][0]} has {wrong['score'][0]}: a score is 0..1")
    return dict(found.iter_rows())


def lookup_scores(settings: Settings, log: pl.DataFrame) -> dict[str, float]:
    """Return the scores that Redis has of the log's listings."""
    listings = log["listing_id"].unique().to_list()

    async def ask() -> dict[str, float]:
        found: dict[str, float] = {}
        async with reader_of(settings.model_copy(update={"lookup_cache": 0})) as reader:
            for start in range(0, len(listings), _BATCH):
                part = listings[start : start + _BATCH]
                answer = await reader.get_many(part, budget_s=10)
                records = ((listing, answer.record(listing)) for listing in part)
                found |= {listing: record.score for listing, record in records if record is not None}
        return found

    return asyncio.run(ask())


def simulate(log: pl.DataFrame, scores: dict[str, float], rules: Rules, seed: int = 0) -> Report:
    """Re-rank every logged page, and estimate what that changes.

    Raises:
        LogError: nobody clicked, or a relevance is not above 0.
    """
    log = log.filter(pl.len().over("search_id") > 1)
    if not log["clicked"].any():
        raise LogError("nobody clicked in the log: nothing can be told from it")
    if (log["relevance"] <= 0).any():
        raise LogError("relevance must be above 0")
    log, examples = _reranked(log, scores, rules)
    pages = _Pages.of(log, scores, rules)
    rng = np.random.default_rng(seed)
    rows = np.arange(len(pages.searches))
    groups = [("category", value, picked) for value, picked in _by_category(log, pages)]
    found = [
        (by, value, len(picked), pages.estimates(picked, rng))
        for by, value, picked in groups
        if len(picked) >= _MIN_SEARCHES
    ]
    found += [("seller", value, count, estimates) for value, count, estimates in pages.by_seller(log, rng)]
    return Report(
        len(rows),
        float(log["listing_id"].is_in(list(scores)).mean() or 0.0),  # type: ignore[arg-type]
        float((log["place"] != log["was"]).mean() or 0.0),  # type: ignore[arg-type]
        pages.estimates(rows, rng),
        found,
        examples,
    )


def _reranked(log: pl.DataFrame, scores: dict[str, float], rules: Rules) -> tuple[pl.DataFrame, list[str]]:
    """Add `was` and `place`, the ranks within the logged and the new page, from 1."""
    place: list[int] = []
    examples: list[str] = []
    for (_,), page in log.group_by(["search_id"], maintain_order=True):
        listings = page["listing_id"].to_list()
        results = [
            Result(listing, relevance, scores.get(listing))
            for listing, relevance in zip(listings, page["relevance"].to_list(), strict=True)
        ]
        ranked = rerank(results, rules)
        new = [0] * len(ranked)
        for one in ranked:
            new[one.was - 1] = one.place
        place += new
        if len(examples) < 5:
            examples += [one.explain() for one in ranked if one.place != one.was][:1]
    was = pl.int_range(1, pl.len() + 1).over("search_id")
    return log.with_columns(was.alias("was"), pl.Series("place", place)), examples


@dataclass
class _Pages:
    """The log as arrays, a row for each result, and the sums that every estimate needs."""

    searches: list[str]
    page: NDArray[np.int64]
    """Of each row: which search."""
    clicked: Values
    chance: Values
    """That the logged position is on the screen."""
    screen: Values
    """1 / chance for what was on the screen, else 0."""
    old: Values
    """Propensity at the logged position."""
    new: Values
    model: Values
    """Chance of a click when looked at."""
    place: Values
    was: Values

    @classmethod
    def of(cls, log: pl.DataFrame, scores: dict[str, float], rules: Rules) -> _Pages:
        seen = log.group_by("position").agg(pl.col("seen").mean().alias("share"))
        table = propensities(log.lazy()).join(seen, on="position")
        looked = table.select("position", pl.col("propensity") * pl.col("share"))
        found: dict[int, float] = dict(looked.iter_rows())
        most = max(found.values())
        shown: dict[int, float] = dict(seen.iter_rows())

        def look(position: int) -> float:
            return max(found.get(position, 0.0) / most, _LEAST_PROPENSITY)

        positions = log["position"].to_list()
        slots = _slots(log)
        searches = log["search_id"].unique(maintain_order=True).to_list()
        page = log["search_id"].rank("dense").to_numpy().astype(np.int64) - 1
        old = np.array([look(position) for position in positions])
        new = np.array([look(position) for position in slots])
        clicked = log["clicked"].cast(pl.Float64).to_numpy()
        model = _click_model(log, scores, rules, clicked, old, page)
        chances = np.array([max(shown[position], _LEAST_PROPENSITY) for position in positions])
        screen = log["seen"].cast(pl.Float64).to_numpy() / chances
        places = log["place"].to_numpy() * 1.0, log["was"].to_numpy() * 1.0
        return cls(sorted(searches), page, clicked, chances, screen, old, new, model, *places)

    def _sums(self, values: Values, rows: NDArray[np.bool_] | None = None) -> Values:
        weights = values if rows is None else values * rows
        return np.bincount(self.page, weights, minlength=len(self.searches)).astype(np.float64)

    def estimates(
        self, picked: NDArray[np.int64], rng: np.random.Generator, rows: NDArray[np.bool_] | None = None
    ) -> list[Estimate]:
        """Return the estimates over these searches (and these rows of them alone)."""
        ratio = self.new / self.old
        sums = [
            self._sums(values, rows)
            for values in (
                self.clicked,
                self.clicked * ratio,
                self.screen * self.new,
                self.new,
                self.new * self._gains(),
            )
        ]
        if rows is None:
            sums += [self._ideal_dcg(), self._dcg(self.was), self._dcg(self.place)]
        logged, ips, weight, looks, dr, *dcg = _resampled([one[picked] for one in sums], rng)
        found = [
            _estimate("clicks a search, IPS", logged, ips),
            _estimate("clicks a search, SNIPS", logged, ips / weight * looks),
            _estimate("clicks a search, doubly robust", logged, dr),
        ]
        if dcg:
            ideal, before, after = dcg
            found.insert(0, _estimate("NDCG", before / ideal, after / ideal))
        return found

    def _gains(self) -> Values:
        """Return the chance of a click when looked at: the model's, set right where it was on the screen."""
        attention = np.minimum(self.old / self.chance, 1.0)
        gains: Values = self.model + self.screen * (self.clicked / attention - self.model)
        return gains

    def _dcg(self, place: Values) -> Values:
        return self._sums(self._gains() / np.log2(place + 1))

    def _ideal_dcg(self) -> Values:
        order = np.lexsort((-self.model, self.page))
        first = np.searchsorted(self.page[order], np.arange(len(self.searches)))
        rank = np.arange(len(order)) - first[self.page[order]] + 1
        gains = self.model[order] / np.log2(rank + 1)
        return np.bincount(self.page[order], gains, minlength=len(self.searches)).astype(np.float64)

    def by_seller(self, log: pl.DataFrame, rng: np.random.Generator) -> list[tuple[str, int, list[Estimate]]]:
        """Return the clicks on listings of sellers of each size, if the log names sellers."""
        if "seller_id" not in log.columns:
            return []
        listings = log.group_by("seller_id").agg(pl.col("listing_id").n_unique().alias("count"))
        counts = log.join(listings, on="seller_id", how="left", maintain_order="left")["count"].fill_null(1).to_numpy()
        found, least = [], 0
        every = np.arange(len(self.searches))
        for most, name in SIZES:
            rows = (counts > least) & (counts <= most)
            least = most
            searches = int((self._sums(rows * 1.0) > 0).sum())
            if searches >= _MIN_SEARCHES:
                found.append((name, searches, self.estimates(every, rng, rows)))
        return found


def _resampled(sums: list[Values], rng: np.random.Generator) -> list[Values]:
    """Return the mean over searches of each of these, and then those of bootstrap samples of the searches.

    Searches are drawn in blocks where there are very many, so that memory does not grow with their number.
    """
    count = len(sums[0])
    blocks = min(count, _BLOCKS)
    block = np.arange(count) % blocks
    sizes = np.bincount(block, minlength=blocks)
    draws = np.vstack([np.ones(blocks), rng.multinomial(blocks, np.full(blocks, 1 / blocks), _RESAMPLES)])
    drawn = draws @ sizes
    return [draws @ np.bincount(block, one, minlength=blocks) / drawn for one in sums]


def _slots(log: pl.DataFrame) -> list[int]:
    """Return the position that each result would have: that of the result which stood where it stands now."""
    places = log.select("search_id", "was", pl.col("position").alias("slot"))
    joined = log.join(places, left_on=["search_id", "place"], right_on=["search_id", "was"], maintain_order="left")
    return joined["slot"].to_list()


def _estimate(name: str, logged: Values, new: Values) -> Estimate:
    """The first of each is the estimate, the others are its resamples."""
    low, high = np.quantile((new - logged)[1:], [0.025, 0.975])
    return Estimate(name, float(logged[0]), float(new[0]), float(low), float(high))


def _click_model(
    log: pl.DataFrame, scores: dict[str, float], rules: Rules, clicked: Values, old: Values, page: NDArray[np.int64]
) -> Values:
    """Return each result's chance of a click when looked at, by a logistic regression fitted on other searches.

    Each click counts 1 / propensity, so that what is rarely looked at is not taken for what is rarely wanted.
    """
    score = np.array([scores.get(listing, rules.neutral) for listing in log["listing_id"].to_list()])
    price = np.log(np.maximum(log["price"].to_numpy(), 1e-9))
    category = log.select("category").to_dummies().to_numpy() * 1.0
    features = np.column_stack([score, np.log(log["relevance"].to_numpy()), price, category])
    seen = old / old.max()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    folds = min(3, len(np.unique(page)))
    weights = np.where(clicked > 0, 1 / seen, 1.0)
    if clicked.sum() < 2 or folds < 2:
        return np.full(len(clicked), float(np.average(clicked, weights=weights)))
    chances = cross_val_predict(
        model,
        features,
        clicked > 0,
        groups=page,
        cv=GroupKFold(folds),
        method="predict_proba",
        params={"logisticregression__sample_weight": weights},
    )
    found: Values = chances[:, 1]
    return found


def _by_category(log: pl.DataFrame, pages: _Pages) -> list[tuple[str, NDArray[np.int64]]]:
    index = {search: i for i, search in enumerate(pages.searches)}
    of = log.group_by("search_id").agg(pl.col("category").mode().sort().first())
    found: dict[str, list[int]] = {}
    for search, category in of.iter_rows():
        found.setdefault(category, []).append(index[search])
    return [(category, np.array(sorted(rows))) for category, rows in sorted(found.items())]


def write(report: Report, out: Path, simulated: str = "") -> None:
    """Write replay.json and report.html into `out`.

    Args:
        simulated: says, at the top, how the log came about if not from people; empty: it did.
    """
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = asdict(report)
    (out / "replay.json").write_text(json.dumps(found, indent=2) + "\n")
    page = Environment(autoescape=True).from_string(_TEMPLATE.read_text())
    (out / "report.html").write_text(page.render(r=report, simulated=simulated))

"""Preference pairs from search logs, after the paper (arXiv 2408.11349): of two results of one search, similarly
relevant and priced, one was chosen and the other seen and not.

What a buyer chooses depends on more than the photo, so a pair is kept only where the rest is alike (category, price,
title), and position bias is dealt with: by default only pairs whose chosen result stood lower are kept, as it was
chosen against its position; or every pair is kept, weighted by inverse propensity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from triton_models.errors import LabelError

COLUMNS: dict[str, tuple[type[pl.DataType], str]] = {
    "search_id": (pl.String, "one result page that one buyer saw"),
    "listing_id": (pl.String, "the listing"),
    "photo": (pl.String, "its cover photo: a path or an id"),
    "category": (pl.String, "the listing's category"),
    "title": (pl.String, "the listing's title"),
    "price": (pl.Float64, "the listing's price, above 0"),
    "position": (pl.Int64, "rank on the page, from 1"),
    "seen": (pl.Boolean, "whether the result was on the buyer's screen"),
    "clicked": (pl.Boolean, "whether the buyer opened it"),
    "bought": (pl.Boolean, "whether the buyer bought it"),
}
"""The columns of a search log, their types and meanings; one row is one result of one search (an impression)."""


@dataclass(frozen=True)
class Filters:
    """What makes two results comparable. `title_similarity` is the Jaccard similarity of the titles' words, 0..1."""

    price_ratio: float = 1.5
    title_similarity: float = 0.3
    min_impressions: int = 1
    min_margin: float = 1.0
    bias: Literal["lower_chosen", "ipw"] = "lower_chosen"
    max_weight: float = 10.0


def read_log(path: Path) -> pl.LazyFrame:
    """Return a search log, Parquet or CSV, with exactly the documented columns.

    Raises:
        LabelError: it cannot be read, a column is missing, or has the wrong type; names it.
    """
    try:
        frame = pl.scan_csv(path) if path.suffix == ".csv" else pl.scan_parquet(path)
        schema = frame.collect_schema()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LabelError(f"cannot read search log {str(path)!r}: {error}: give a Parquet or .csv file") from None
    if missing := [name for name in COLUMNS if name not in schema]:
        raise LabelError(f"search log {str(path)!r} lacks {', '.join(missing)}: see `image-score pairs --help`")
    return frame.select(pl.col(name).cast(kind) for name, (kind, _) in COLUMNS.items())


def propensities(log: pl.LazyFrame) -> pl.DataFrame:
    """Return the share of seen results that are clicked, by position, relative to the first: [position, propensity].

    It takes relevance to be spread alike over positions; an estimate from randomised results is better where there is
    one.
    """
    rate = log.filter("seen").group_by("position").agg(pl.col("clicked").mean().alias("rate"))
    best = pl.col("rate").max()
    return rate.select("position", (pl.col("rate") / best).clip(0.01, 1.0).alias("propensity")).collect()


def preference_pairs(log: pl.LazyFrame, filters: Filters) -> pl.DataFrame:
    """Return [better, worse, category, weight, wins, losses]: one row for two photos, the preferred one first.

    `wins` and `losses` are weighted counts of searches that preferred the better or the worse one, `weight` is their
    difference; a bought result counts over a clicked one, both over one that was only seen.

    Raises:
        LabelError: a value of the log does not have its column's type.
    """
    choice = pl.col("bought").cast(pl.Int8) + (pl.col("clicked") | pl.col("bought")).cast(pl.Int8)
    seen = log.filter(pl.col("seen") & (pl.col("price") > 0)).with_columns(choice.alias("choice"))
    if filters.min_impressions > 1:
        seen = seen.filter(pl.len().over("listing_id") >= filters.min_impressions)
    words = pl.col("title").str.to_lowercase().str.extract_all(r"\w+").list.unique()
    seen = seen.with_columns(words.alias("words"))
    if filters.bias == "ipw":
        seen = seen.join(propensities(log).lazy(), on="position")
    chosen = seen.filter(pl.col("choice") > 0)
    pairs = chosen.join(seen, on=["search_id", "category"], suffix="_2").filter(
        pl.col("choice") > pl.col("choice_2"),
        pl.col("photo") != pl.col("photo_2"),
        pl.max_horizontal("price", "price_2") <= filters.price_ratio * pl.min_horizontal("price", "price_2"),
    )
    if filters.bias == "lower_chosen":
        pairs = pairs.filter(pl.col("position") > pl.col("position_2")).with_columns(weight=pl.lit(1.0))
    else:
        weight = (1 / pl.col("propensity")).clip(upper_bound=filters.max_weight)
        pairs = pairs.with_columns(weight=weight)
    if filters.title_similarity > 0:
        both = pl.col("words").list.set_intersection("words_2").list.len()
        either = pl.col("words").list.set_union("words_2").list.len()
        pairs = pairs.filter(both >= filters.title_similarity * either)
    try:
        return _net(pairs, filters.min_margin).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise LabelError(f"search log: {error}: see `image-score pairs --help` for the columns") from None


def _net(pairs: pl.LazyFrame, min_margin: float) -> pl.LazyFrame:
    """Sum what all searches said of the same two photos; drop those where the margin is under `min_margin`."""
    first = pl.min_horizontal("photo", "photo_2")
    signed = pl.when(pl.col("photo") == first).then(pl.col("weight"))
    sums = (
        pairs.select(
            "category",
            first.alias("a"),
            pl.max_horizontal("photo", "photo_2").alias("b"),
            signed.otherwise(0.0).alias("for_a"),
            (pl.col("weight") - signed.otherwise(0.0)).alias("for_b"),
        )
        .group_by("a", "b")
        .agg(pl.col("category").first(), pl.col("for_a").sum(), pl.col("for_b").sum())
    )
    a_wins = pl.col("for_a") >= pl.col("for_b")
    return (
        sums.select(
            pl.when(a_wins).then("a").otherwise("b").alias("better"),
            pl.when(a_wins).then("b").otherwise("a").alias("worse"),
            "category",
            (pl.col("for_a") - pl.col("for_b")).abs().alias("weight"),
            pl.max_horizontal("for_a", "for_b").alias("wins"),
            pl.min_horizontal("for_a", "for_b").alias("losses"),
        )
        .filter(pl.col("weight") >= min_margin)
        .sort("weight", "better", "worse", descending=[True, False, False])
    )


def write_pairs(pairs: pl.DataFrame, path: Path) -> None:
    """Write pairs as Parquet, or as JSON lines that `train` and `evaluate` read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pairs.write_parquet(path)
    else:
        pairs.write_ndjson(path)

"""Reads an experiment's logs, and gathers them by user."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from stream.errors import ImageScoreError

EXPOSURES: dict[str, tuple[pl.DataType, str]] = {
    "user_id": (pl.String(), "the buyer"),
    "arm": (pl.String(), "the arm that the buyer was in"),
    "at": (pl.Datetime("ms", "UTC"), "when the buyer met the experiment; the first counts"),
}
"""Columns of the exposures; any further text column is a segment."""
EVENTS: dict[str, tuple[pl.DataType, str]] = {
    "user_id": (pl.String(), "the buyer"),
    "at": (pl.Datetime("ms", "UTC"), "when"),
    "type": (pl.String(), "search, impression, click or transaction; others are ignored"),
    "value": (pl.Float64(), "of a transaction: what was paid; of a search: its latency in ms; else null"),
    "seller_id": (pl.String(), "of an impression: whose listing was shown; else null"),
    "new_seller": (pl.Boolean(), "of an impression: whether the seller is new; else null"),
}
"""Columns of the events. Those of the time before a buyer's exposure are used to reduce variance (CUPED)."""


class LogError(ImageScoreError):
    """A log that cannot be read; says which column is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Logs:
    """One row for each exposed user, and the impressions."""

    users: pl.DataFrame
    """user_id, arm, day (of exposure, from 0), the segments, and for each metric its value, and `<name>_before`."""
    impressions: pl.DataFrame
    """arm, user_id, seller_id, shown: how often."""
    transactions: pl.DataFrame
    """user_id, day (from the first exposure on, 0): one row for each, after the user's exposure."""
    segments: list[str]
    crossovers: int
    """Users who were seen in more than one arm, and are left out."""


def read(exposures: Path, events: Path) -> Logs:
    """Read both logs, Parquet or CSV.

    Raises:
        LogError: a file cannot be read, lacks a column, or a column has another type; names it.
    """
    exposed, segments = _exposures(exposures)
    arms = exposed.group_by("user_id").agg(pl.col("arm").n_unique().alias("arms"))
    crossed = arms.filter(pl.col("arms") > 1).select("user_id")
    first = exposed.join(crossed, on="user_id", how="anti").sort("at").unique("user_id", keep="first")
    log = _read(events, EVENTS).join(first.lazy().select("user_id", "arm", pl.col("at").alias("met")), on="user_id")
    start: datetime = first["at"].min()  # type: ignore[assignment]
    try:
        counted = _by_user(log).collect()
        impressions = _impressions(log).collect()
        transactions = _transactions(log, start).collect()
    except pl.exceptions.PolarsError as error:
        raise LogError(f"events {str(events)!r}: {error}: see `image-score experiment analyze --help`") from None
    users = (
        first.with_columns((pl.col("at") - start).dt.total_days().alias("day"))
        .join(counted, on="user_id", how="left")
        .with_columns(pl.col(counted.columns[1:]).fill_null(0.0))
        .sort("user_id")
    )
    return Logs(users, impressions, transactions, segments, len(crossed))


def _exposures(path: Path) -> tuple[pl.DataFrame, list[str]]:
    frame = _read(path, EXPOSURES)
    schema = frame.collect_schema()
    segments = [name for name, kind in schema.items() if name not in EXPOSURES and kind == pl.String]
    try:
        found = frame.select(*EXPOSURES, *segments).collect()
    except pl.exceptions.PolarsError as error:
        raise LogError(f"exposures {str(path)!r}: {error}: see `image-score experiment analyze --help`") from None
    if found["arm"].n_unique() < 2:
        raise LogError(f"exposures {str(path)!r}: arms {found['arm'].unique().to_list()}: two are needed")
    return found, segments


def _read(path: Path, columns: dict[str, tuple[pl.DataType, str]]) -> pl.LazyFrame:
    try:
        frame = pl.scan_csv(path, try_parse_dates=True) if path.suffix == ".csv" else pl.scan_parquet(path)
        schema = frame.collect_schema()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LogError(f"cannot read {str(path)!r}: {error}: give a Parquet or .csv file") from None
    if missing := [name for name in columns if name not in schema]:
        raise LogError(f"{str(path)!r} lacks {', '.join(missing)}: see `image-score experiment analyze --help`")
    casts = [
        pl.col(name).dt.replace_time_zone("UTC").cast(kind)
        if isinstance(schema[name], pl.Datetime) and getattr(schema[name], "time_zone", None) is None
        else pl.col(name).cast(kind)
        for name, (kind, _) in columns.items()
    ]
    return frame.with_columns(casts)


def _by_user(log: pl.LazyFrame) -> pl.LazyFrame:
    """Sum each user's events since the exposure, and before it."""
    after = pl.col("at") >= pl.col("met")

    def count(kind: str, when: pl.Expr) -> pl.Expr:
        return ((pl.col("type") == kind) & when).sum().cast(pl.Float64)

    def total(kind: str, when: pl.Expr) -> pl.Expr:
        return pl.col("value").filter((pl.col("type") == kind) & when).sum()

    sums = []
    for suffix, when in (("", after), ("_before", ~after)):
        sums += [
            count("search", when).alias(f"searches{suffix}"),
            count("impression", when).alias(f"impressions{suffix}"),
            count("click", when).alias(f"clicks{suffix}"),
            count("transaction", when).alias(f"transactions{suffix}"),
            total("transaction", when).alias(f"gmv{suffix}"),
            total("search", when).alias(f"latency{suffix}"),
        ]
    new = ((pl.col("type") == "impression") & after & pl.col("new_seller")).sum().cast(pl.Float64)
    return log.group_by("user_id").agg(*sums, new.alias("new_shown"))


def _impressions(log: pl.LazyFrame) -> pl.LazyFrame:
    shown = log.filter((pl.col("type") == "impression") & (pl.col("at") >= pl.col("met")))
    return shown.group_by("arm", "user_id", "seller_id").agg(pl.len().alias("shown"))


def _transactions(log: pl.LazyFrame, start: datetime) -> pl.LazyFrame:
    bought = log.filter((pl.col("type") == "transaction") & (pl.col("at") >= pl.col("met")))
    return bought.select("user_id", (pl.col("at") - start).dt.total_days().alias("day"))

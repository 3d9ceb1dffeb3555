"""How long preference pairs take to find in a SIMULATED search log.

    make bench-pairs
    python tests/bench/pairs.py --searches 50000

The baseline is reading the same Parquet file and grouping it by search, which any way of finding pairs must do.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import click
import polars as pl

from triton_models.preferences.pairs import Filters, preference_pairs, read_log
from triton_models.preferences.simulate import simulate_log


@click.command()
@click.option("--searches", default=50_000, show_default=True, help="of 20 impressions each")
def main(searches: int) -> None:
    """Measure both, in one run on one machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        simulate_log(searches).log.write_parquet(path)
        seconds = {}
        for name in ("grouped", "lower_chosen", "ipw"):
            started = time.perf_counter()
            if name == "grouped":
                read_log(path).group_by("search_id").agg(pl.len()).collect()
            else:
                preference_pairs(read_log(path), Filters(bias=name))  # type: ignore[arg-type]
            seconds[name] = time.perf_counter() - started
    figures = {f"{name}_s": round(value, 2) for name, value in seconds.items()}
    ratio = round(seconds["lower_chosen"] / seconds["grouped"], 1)
    print(json.dumps({"bench": "pairs", "impressions": 20 * searches, **figures, "ratio": ratio}))


if __name__ == "__main__":
    main()

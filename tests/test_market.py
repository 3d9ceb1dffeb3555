"""The SIMULATED A/B test, small, through every real process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import NO_SKIPS
from tests.real_kafka import missing


@pytest.mark.timeout(400)
def test_the_whole_loop_runs_and_ranks_good_photos_higher(tmp_path: Path) -> None:
    if (problem := missing()) and not NO_SKIPS:
        pytest.skip(problem)
    words = ["--listings", "80", "--buyers", "600", "--searches", "2", "--photos", "none", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "tests.market.run", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["simulated"] is True
    assert summary["users"] > 400
    page = (tmp_path / "report.html").read_text()
    assert page.index("Simulated.") < page.index('<div class="decision')
    assert (tmp_path / "ranking" / "report.html").is_file()
    events = pl.read_parquet(tmp_path / "events.parquet")
    assert set(events["type"].unique()) == {"search", "impression", "click", "transaction"}
    scores = pl.read_parquet(tmp_path / "scores.parquet")["score"]
    assert scores.n_unique() > 20, "real scores, not the neutral one"

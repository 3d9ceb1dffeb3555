"""Compares what two versions say of the same photos."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
from jinja2 import Environment
from matplotlib import pyplot as plt
from scipy.stats import ks_2samp

from triton_models import metrics
from triton_models.plots import as_svg

Scores = Mapping[tuple[str, int, str], tuple[float, dict[str, float]]]
"""(listing, version, photo) -> score and issues' probabilities, all 0..1."""

MOVED = 0.1
_NAMED = 0.5
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PAGE = Path(__file__).parent / "compare.html"


def comparison(served: Scores, candidate: Scores) -> dict[str, Any]:
    """Return how two versions' scores of the photos that both have scored differ; `scores` holds the pairs."""
    both = sorted(served.keys() & candidate.keys())
    if not both:
        return {"photos": 0}
    a, b = (np.array([side[key][0] for key in both]) for side in (served, candidate))
    test = ks_2samp(a, b)
    correlation = metrics.srcc(a, b)
    issues = {
        name: {
            "served": sum(served[key][1].get(name, 0) >= _NAMED for key in both),
            "candidate": sum(candidate[key][1].get(name, 0) >= _NAMED for key in both),
        }
        for name in served[both[0]][1]
    }
    return {
        "photos": len(both),
        "served": _distribution(a),
        "candidate": _distribution(b),
        "srcc": None if np.isnan(correlation) else round(correlation, 4),
        "mean_change": round(float((b - a).mean()), 4),
        "moved": round(float((np.abs(b - a) > MOVED).mean()), 4),
        "ks": round(float(test.statistic), 4),
        "ks_p": round(float(test.pvalue), 4),
        "issues": issues,
        "scores": [[round(float(x), 4), round(float(y), 4)] for x, y in zip(a, b)],
    }


def _distribution(scores: metrics.Floats) -> dict[str, Any]:
    quantiles = [round(float(v), 4) for v in np.quantile(scores, _QUANTILES)]
    return {"mean": round(float(scores.mean()), 4), "deviation": round(float(scores.std()), 4), "quantiles": quantiles}


def write_comparison(found: dict[str, Any], out: Path) -> None:
    """Write comparison.json and comparison.html."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison.json").write_text(json.dumps(found, indent=2) + "\n")
    a, b = (np.array([pair[i] for pair in found["scores"]]) for i in (0, 1))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    bins = np.linspace(0, 1, 26).tolist()
    left.hist([a, b], bins, label=["served", "candidate"])
    left.set_title("scores")
    left.legend(frameon=False)
    right.plot(a, b, ".", ms=3)
    right.plot([0, 1], [0, 1], color="grey", lw=1)
    right.set_title("candidate by served")
    page = Environment(autoescape=True).from_string(_PAGE.read_text())
    html = page.render(f=found, moved=MOVED, quantiles=_QUANTILES, plot=as_svg(figure))
    (out / "comparison.html").write_text(html)

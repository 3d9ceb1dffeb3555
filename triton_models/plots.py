"""The report's plots, as SVG for the page and one picture for a README."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from triton_models.robustness import STRENGTHS

_BLUE, _GREY, _RED = "#2563a8", "#9aa3ad", "#b3402e"
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "svg.hashsalt": "report"})


def _against_baselines(axes: Axes, figures: dict[str, Any], metric: str) -> None:
    rows = figures[metric]
    names = list(rows)[::-1]
    for i, name in enumerate(names):
        row, colour = rows[name], _BLUE if name == "model" else _GREY
        axes.barh(i, row["value"], color=colour)
        axes.plot([row["low"], row["high"]], [i, i], color="black", lw=1)
    if metric in figures["ceilings"]:
        axes.axvline(figures["ceilings"][metric]["ceiling"], color=_RED, ls="--", lw=1)
        axes.text(figures["ceilings"][metric]["ceiling"], len(names) - 0.4, "judges", color=_RED, ha="center")
    axes.set_yticks(range(len(names)), names)
    axes.set_title(f"{metric.upper()}, 95% interval")
    if metric == "opa":
        axes.set_xlim(left=0.4)


def _classes(axes: Axes, figures: dict[str, Any]) -> None:
    rows = figures["predictions"]
    groups = [[row["score"] for row in rows if row["class"] == c] for c in range(1, 6)]
    axes.boxplot(groups, showfliers=False, medianprops={"color": _BLUE})
    axes.set_xlabel("labelled class")
    axes.set_title("score by labelled class")
    axes.set_ylim(0, 1)


def _issues(axes: Axes, figures: dict[str, Any]) -> None:
    rows = sorted(
        ((n, v) for n, v in figures["issues"].items() if v["positives"]),
        key=lambda row: row[1]["average_precision"]["value"],
    )
    for i, (_, row) in enumerate(rows):
        axes.barh(i, row["average_precision"]["value"], color=_BLUE if row["passes"] else _GREY)
        axes.plot(row["positives"] / figures["photos"], i, "|", color="black")
    axes.set_yticks(range(len(rows)), [f"{name} ({row['positives']})" for name, row in rows])
    axes.set_xlim(0, 1)
    axes.set_title("average precision (| by chance; blue: named to sellers)")


def _reliability(axes: Axes, figures: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color=_GREY, lw=1)
    for name, colour in (("classes", _RED), ("issues", _BLUE)):
        found = figures["calibration"][name]
        x = [row["probability"] for row in found["reliability"]]
        y = [row["share"] for row in found["reliability"]]
        axes.plot(x, y, "o-", color=colour, label=f"{name}, ECE {found['ece']:.3f}")
    axes.set_xlabel("probability")
    axes.set_title("share that is right")
    axes.legend(frameon=False)


def _degradations(axes: Axes, figures: dict[str, Any]) -> None:
    colours = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for i, (name, curve) in enumerate(figures["robustness"]["degradations"].items()):
        axes.plot(STRENGTHS, curve["mean"], color=colours[i], label=f"{name} ({curve['violations']:.0%})")
    axes.set_xlabel("strength of a made flaw (share of steps at which the score rose)")
    axes.set_title("mean score")
    axes.legend(frameon=False, fontsize=7, ncols=2)


PLOTS: dict[str, Callable[[Axes, dict[str, Any]], None]] = {
    "srcc": lambda axes, figures: _against_baselines(axes, figures, "srcc"),
    "opa": lambda axes, figures: _against_baselines(axes, figures, "opa"),
    "classes": _classes,
    "issues": _issues,
    "reliability": _reliability,
    "degradations": _degradations,
}


def svg(name: str, figures: dict[str, Any]) -> str:
    """Return one plot as an <svg> element; an empty string where the figures have nothing for it."""
    if name == "opa" and not figures["opa"]:
        return ""
    figure, axes = plt.subplots(figsize=(5.2, 3.6 if name != "issues" else 4.6), layout="constrained")
    PLOTS[name](axes, figures)
    return as_svg(figure)


def as_svg(figure: Figure) -> str:
    """Return a figure as an <svg> element, and close it."""
    data = io.StringIO()
    figure.savefig(data, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    plt.close(figure)
    return data.getvalue()[data.getvalue().index("<svg") :]


def picture(figures: dict[str, Any], path: Path) -> None:
    """Write all plots as one PNG."""
    names = [name for name in PLOTS if name != "opa" or figures["opa"]]
    figure, grid = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    for axes, name in zip(grid.flat, names):
        PLOTS[name](axes, figures)
    for axes in grid.flat[len(names) :]:
        axes.axis("off")
    figure.savefig(path, dpi=80)
    plt.close(figure)

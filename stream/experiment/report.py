"""Writes an analysis: figures as JSON, and one self-contained HTML page with the decision at its top."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from stream.experiment.analysis import Analysis

_TEMPLATE = Path(__file__).parent / "report.html"
_HEADLINES = {
    "ship": "Ship it.",
    "stop": "Do not ship it.",
    "unclear": "Not shown either way.",
    "invalid": "Do not believe this experiment.",
}
_BLUE, _GREY = "#2563a8", "#9aa3ad"


def write(analysis: Analysis, out: Path, title: str, simulated: str = "") -> None:
    """Write report.html, report.png and analysis.json into `out`.

    Args:
        simulated: says, at the top, how the data came about if not from people; empty: it did.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "analysis.json").write_text(json.dumps(figures(analysis, simulated), indent=2) + "\n")
    kind, why = analysis.decision
    lifts = _lifts(analysis)
    lifts.savefig(out / "report.png", dpi=110, bbox_inches="tight")
    page = Environment(autoescape=True).from_string(_TEMPLATE.read_text())
    html = page.render(
        a=analysis,
        title=title,
        simulated=simulated,
        kind=kind,
        headline=_HEADLINES[kind],
        why=why,
        lifts=_svg(lifts),
        looks=_svg(_looks(analysis)) if len(analysis.looks) > 1 else "",
        p=_p,
        number=_number,
        percent=_percent,
    )
    (out / "report.html").write_text(html)


def figures(analysis: Analysis, simulated: str = "") -> dict[str, Any]:
    """Return the analysis as JSON has it; `simulated` is there only when it is."""
    kind, why = analysis.decision
    found = {"decision": kind, "why": why, **dataclasses.asdict(analysis)}
    return _plain({"simulated": simulated, **found} if simulated else found)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """JSON has no infinities."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float) -> str:
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{value:+.1%}" if math.isfinite(value) else "-"


def _lifts(analysis: Analysis) -> Figure:
    """Every change with its interval, in percent of control."""
    rows = [(f.metric.title, f.difference, _BLUE) for f in analysis.findings]
    rows += [(g.guardrail.title, g.difference, _GREY) for g in analysis.guarded]
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(rows) + 0.9))
    for i, (_, difference, colour) in enumerate(reversed(rows)):
        low, high = (100 * value for value in difference.lift_interval)
        axes.plot([low, high], [i, i], color=colour, lw=2)
        axes.plot(100 * difference.lift, i, "o", color=colour)
    axes.set_yticks(range(len(rows)), [title for title, *_ in reversed(rows)])
    axes.axvline(0, color="black", lw=0.8)
    axes.set_xlabel(f"change from {analysis.control} to {analysis.treatment}, %; blue: metrics, grey: guardrails")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def _looks(analysis: Analysis) -> Figure:
    """The primary metric day by day, with its confidence sequence."""
    days = [look.day + 1 for look in analysis.looks]
    figure, axes = plt.subplots(figsize=(8, 2.8))
    axes.plot(days, [100 * look.lift for look in analysis.looks], color=_BLUE)
    low = [100 * look.always_valid.low for look in analysis.looks]
    high = [100 * look.always_valid.high for look in analysis.looks]
    axes.fill_between(days, low, high, color=_BLUE, alpha=0.2, lw=0)
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xlabel("day")
    axes.set_ylabel("transactions per user, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def _svg(figure: Figure) -> str:
    data = io.StringIO()
    figure.savefig(data, format="svg")
    plt.close(figure)
    return data.getvalue().partition("?>")[2].partition(">")[2] if "<!DOCTYPE" in data.getvalue() else data.getvalue()

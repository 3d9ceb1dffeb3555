"""Writes what `evaluate` found: figures as JSON, one self-contained HTML page, and a picture of its plots."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image

from triton_models import plots

_TEMPLATE = Path(__file__).parent / "report.html"
_WORST = 12


def write_report(figures: dict[str, Any], folder: Path, out: Path, title: str) -> None:
    """Write metrics.json, report.html and report.png into `out`; `folder` holds the photos that the page shows."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n")
    gap = sorted(figures["predictions"], key=lambda row: row["score"] - row["label"])
    worst = [("Scored far below its label", gap[:_WORST]), ("Scored far above its label", gap[: -_WORST - 1 : -1])]
    shown = [(heading, [row | {"image": _thumbnail(folder / row["photo"])} for row in rows]) for heading, rows in worst]
    page = Environment(autoescape=True).from_string(_TEMPLATE.read_text())
    html = page.render(
        title=title,
        f=figures,
        cell=cell,
        metrics=[metric for metric in ("srcc", "plcc", "opa") if figures[metric]],
        plots=[plots.svg(name, figures) for name in plots.PLOTS],
        worst=shown,
    )
    (out / "report.html").write_text(html)
    plots.picture(figures, out / "report.png")


def cell(figure: dict[str, float]) -> str:
    """Return a figure and its interval: 0.649 (0.583 to 0.711)."""
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _thumbnail(path: Path) -> str:
    data = io.BytesIO()
    with Image.open(path) as image:
        image.draft("RGB", (200, 266))
        small = image.convert("RGB")
        small.thumbnail((200, 266))
        small.save(data, "JPEG", quality=80)
    return base64.b64encode(data.getvalue()).decode()

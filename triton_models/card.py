"""Writes the model card from the figures of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_CARD = """# Model card: image_score, version {version}

Scores one listing photo: quality 0..1, probabilities of five quality classes, six aspects, twenty named issues.
Made on {date} by `triton_models/train.py`, from random weights.

## Data
{photos} photos of clothes by real sellers (CC0), 400 px wide, labelled by two independent multimodal LLM judges by one
rubric; a photo that both judged is learned from the mean of both. {share} of the photos of each batch get a made flaw
(`triton_models/degrade.py`) that lowers the labels by about one class. Judges agree with each other to SRCC 0.83 and
order 87% of pairs alike: that is the ceiling.

## Figures
On {validation} validation photos and {pairs} same-category pairs that the training never saw, with 95% bootstrap
intervals. The target of SRCC is the rubric's finer order, (score + mean(aspects) / 5).

| | SRCC | OPA |
|---|---|---|
{rows}

The plain small CNN that the authors of the labels report has SRCC 0.51 and OPA 0.69 on other photos kept apart.

## Issues
On validation, at probability 0.5. Made flaws teach some issues that few real photos show; where `named` is small, the
precision says little, and where it is 0 the issue is not yet named on photos like these.

| issue | photos that have it | average precision | named | precision |
|---|---|---|---|---|
{issues}

## Limits
Clothes only. Sellers recur between training and validation, as they do on a marketplace: photos of a room that was
never seen may score less well. Sharpness was judged on small pictures and is the weakest aspect. The score judges the
photo, never the item or the seller.

## Make it again
`make model PHOTOS=folder LABELS=folder`: {epochs} epochs, batch 48, seed 0, about 20 minutes on two cores. The figures
come out within their intervals; bit for bit only on the same machine and library versions.
"""


def write_card(report: dict[str, Any], path: Path) -> None:
    """Write the card for a report as `evaluate.report` returns it, with `training` added by train.py."""

    def cell(value: dict[str, float]) -> str:
        return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"

    rows = [f"| {name} | {cell(report['srcc'][name])} | {cell(report['opa'][name])} |" for name in report["srcc"]]
    issues = [
        f"| {name} | {v['positives']} | {v['average_precision']:.2f} | {v['named_at_0.5']} | "
        + ("- |" if not v["named_at_0.5"] else f"{v['precision_at_0.5']:.2f} |")
        for name, v in report["issues"].items()
    ]
    training = report["training"]
    text = _CARD.format(
        version=path.parent.name,
        date=training["date"],
        photos=f"{training['photos']:,}",
        share=f"{training['flawed_share']:.0%}",
        validation=report["photos"],
        pairs=report["pairs"],
        rows="\n".join(rows),
        issues="\n".join(issues),
        epochs=training["epochs"],
    )
    path.write_text(text)

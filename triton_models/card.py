"""The model card: what a model was made from, how good it is, and where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_CARD = """\
# Model card: image_score, version {version}

Scores one listing photo: quality 0..1, probabilities of five quality classes, six aspects, twenty named issues.
Made on {date} by `image-score train` and `image-score export`.

## What it is
Backbone `{backbone}`{weights}, which sees {height} x {width} pixels; beside it hand-made statistics of light,
colour, edges and what stands out from the border (`triton_models/statistics.py`); on both, a {head} head.
{onnx_mb:.1f} MB.

## Data
{photos:,} photos of clothes by real sellers (CC0), 400 px wide, labelled by two independent multimodal LLM judges by
one rubric; a photo that both judged is learned from the mean of both. {flawed:.0%} of the photos are learned once more
with a made flaw (`triton_models/degrade.py`) that lowers the labels by about one class.

## Figures
On {validation} validation photos and {pairs} same-category pairs that training never saw, with 95% bootstrap
intervals. The target of SRCC is the rubric's finer order, score + mean(aspects) / 5.

| | SRCC | OPA |
|---|---|---|
{rows}

{ceilings}Class accuracy {ca}, against {commonest:.3f} for always saying the commonest class.
Mean absolute error of the score {mae}.

## Issues
An issue is named to sellers only where, on validation, at least 70% of at least five namings were right; from the
threshold given here on. These pass: {passing}.

| issue | photos that have it | average precision | threshold | named | precision |
|---|---|---|---|---|---|
{issues}

Thresholds were chosen on these same photos, and few photos have most issues: expect the precision elsewhere to be
lower.

## Robustness
Mean score as a made flaw grows from none to its strongest, and the share of steps at which it rose by more than 0.01:

| flaw | mean score | rose |
|---|---|---|
{flaws}

{handlings}

## Limits
Clothes only. Sellers recur between training and validation, as they do on a marketplace: photos of a room that was
never seen may score less well. Sharpness was judged on small pictures and is the weakest aspect. The score judges the
photo, never the item or the seller.
"""


def write_card(figures: dict[str, Any], version: int, path: Path) -> None:
    """Write the card for figures as `evaluate` returns them, with `training` and `export` added."""

    def cell(value: dict[str, float]) -> str:
        return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"

    opa = figures["opa"]
    training, issues = figures["training"], figures["issues"]
    robust = figures["robustness"]
    ceilings = [
        f"{name.upper()} is {value['share']:.0%} of what two judges reach ({value['ceiling']}). "
        for name, value in figures["ceilings"].items()
    ]
    text = _CARD.format(
        version=version,
        date=training["date"],
        backbone=training["backbone"],
        weights=f" with weights `{Path(training['weights']).name}`" if training["weights"] else " from random weights",
        height=training["height"],
        width=training["width"],
        head=training["head"],
        onnx_mb=figures["export"]["bytes"] / 1e6,
        photos=training["photos"],
        flawed=training["flawed_share"],
        validation=figures["photos"],
        pairs=figures["pairs"],
        rows="\n".join(f"| {n} | {cell(v)} | {cell(opa[n]) if opa else '-'} |" for n, v in figures["srcc"].items()),
        ceilings="".join(ceilings),
        ca=cell(figures["ca"]),
        commonest=figures["ca_commonest"],
        mae=cell(figures["mae"]),
        passing=", ".join(name for name, v in issues.items() if v["passes"]) or "none",
        issues="\n".join(_issue_row(name, v) for name, v in issues.items()),
        flaws="\n".join(
            f"| {name} | {' '.join(f'{m:.2f}' for m in v['mean'])} | {v['violations']:.0%} |"
            for name, v in robust["degradations"].items()
        ),
        handlings=" ".join(
            f"{name.capitalize()}, a photo's score moves by {v['mean']:.3f} on average."
            for name, v in robust["handlings"].items()
        ),
    )
    path.write_text(text)


def _issue_row(name: str, v: dict[str, Any]) -> str:
    precision = f"{v['average_precision']['value']:.2f}" if v["positives"] else "-"
    if not v["passes"]:
        return f"| {name} | {v['positives']} | {precision} | not named | | |"
    return f"| {name} | {v['positives']} | {precision} | {v['threshold']:.2f} | {v['named']} | {v['precision']:.2f} |"

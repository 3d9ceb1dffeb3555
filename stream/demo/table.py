"""The table that the demo ends with."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from schemas import ASPECTS, DeadLetter, ImageScore, SellerHint


def results_table(
    scores: dict[str, ImageScore],
    hints: dict[str, SellerHint],
    dead: dict[str, DeadLetter],
    files: dict[str, list[Path]],
) -> Table:
    """Return one row for each photo, listings with the best score first."""
    table = Table(title="listings by score")
    for name in ("listing", "photo", "score"):
        table.add_column(name, justify="right" if name == "score" else "left", overflow="fold")
    for aspect in ASPECTS:
        table.add_column(aspect.value[:5], justify="right")
    table.add_column("first tip", overflow="fold", ratio=1)
    for listing_id, score in sorted(scores.items(), key=lambda pair: -pair[1].score):
        tips = hints[listing_id].tips if listing_id in hints else ()
        for photo in score.photos:
            tip = next((tip.text for tip in tips if tip.photo_id == photo.photo_id), "")
            aspects = [f"{photo.aspects[aspect]:.2f}" for aspect in ASPECTS]
            name = listing_id.rsplit(".", 1)[0]
            table.add_row(name, files[listing_id][photo.position].name, f"{photo.score:.2f}", *aspects, tip)
        for miss in score.failed:
            path = files[listing_id][miss.position]
            table.add_row(
                listing_id.rsplit(".", 1)[0], path.name, "-", *[""] * 6, f"{miss.error.type}: {miss.error.message}"
            )
    for listing_id, letter in dead.items():
        name = listing_id.rsplit(".", 1)[0]
        table.add_row(name, "", "-", *[""] * 6, f"dead letter, {letter.type}: {letter.message}")
    return table

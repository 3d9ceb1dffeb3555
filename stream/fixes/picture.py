"""Before and after, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _HEIGHT, _GAP, _LINE = 220, 290, 12, 20


class Pair(NamedTuple):
    """A photo before and after, encoded, and what to write below."""

    before: bytes
    after: bytes
    text: str


def write_pairs(pairs: Sequence[Pair], path: Path, columns: int = 4) -> None:
    """Write a sheet of pairs; the format follows the path's suffix."""
    columns = min(columns, max(1, len(pairs)))
    rows = -(-len(pairs) // columns)
    cell_width, cell_height = 2 * _WIDTH + 3 * _GAP, _HEIGHT + _LINE + 2 * _GAP
    sheet = Image.new("RGB", (columns * cell_width, max(1, rows) * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, pair in enumerate(pairs):
        x, y = number % columns * cell_width + _GAP, number // columns * cell_height + _GAP
        for data, left in ((pair.before, x), (pair.after, x + _WIDTH + 4)):
            with Image.open(io.BytesIO(data)) as image:
                small = image.convert("RGB")
            small.thumbnail((_WIDTH, _HEIGHT))
            sheet.paste(small, (left + (_WIDTH - small.width) // 2, y + (_HEIGHT - small.height) // 2))
        draw.text((x, y + _HEIGHT + 2), pair.text, fill="black", font=ImageFont.load_default(13))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=82)

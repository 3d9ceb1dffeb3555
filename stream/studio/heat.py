"""Where in a photo the score is lost: parts are hidden at random, and the model is asked what it then thinks.

After RISE (Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", arXiv
1806.07421): it needs nothing of the model but its answers, so it holds for any model that Triton serves. Instead of
averaging, a linear model is fitted to the scores, smooth over neighbours, which tells the same from fewer questions.
Hiding many parts at once finds what hiding one does not: a background that is busy everywhere.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from stream.inference import TritonModel

_SIDE = 320
"""Parts are hidden in a copy of at most this many pixels; the models look at less."""
_CELLS = 9
"""Parts along the longer side."""
_ASKED, _HIDDEN = 192, 0.3
"""How often the model is asked, and the share of the parts that is hidden each time."""
_RIDGE, _SMOOTH = 0.3, 0.5
"""How strongly effects are drawn to nothing, and to those of their neighbours."""
_BATCH = 16
_LEAST = 0.003
"""A part whose hiding raises the score by less is not shown."""
_STRONG = 0.012
"""From here on the colour is full."""
_COLOUR, _OPACITY = (226, 40, 40), 0.75
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Heat:
    """How much of the score each part costs."""

    costs: Floats
    """(rows, columns): how much hiding the part raises the score, 0..1."""

    @property
    def found(self) -> bool:
        """Whether any one place lowers the score enough to be shown."""
        return bool(self.costs.max() >= _LEAST)

    def laid_over(self, photo: Image.Image) -> bytes:
        """Return a JPEG of the photo in grey with what lowers its score in red; strong red costs most."""
        shown = np.where(self.costs >= _LEAST, self.costs, 0.0)
        alpha = 255 * _OPACITY * shown / max(_STRONG, float(shown.max()))
        mask = Image.fromarray(alpha.astype(np.uint8)).resize(photo.size, Image.Resampling.BICUBIC)
        data = io.BytesIO()
        Image.composite(Image.new("RGB", photo.size, _COLOUR), photo.convert("L").convert("RGB"), mask).save(
            data, "JPEG"
        )
        return data.getvalue()

    def places(self) -> list[tuple[int, int]]:
        """Return the ninths of the photo (row 0..2, column 0..2) that are red, the worst first."""
        rows, columns = self.costs.shape
        worst: dict[tuple[int, int], float] = {}
        for row, column in np.argwhere(self.costs >= _LEAST):
            ninth = int(3 * row // rows), int(3 * column // columns)
            worst[ninth] = max(worst.get(ninth, 0.0), float(self.costs[row, column]))
        return sorted(worst, key=lambda ninth: -worst[ninth])


async def heat(model: TritonModel, photo: Image.Image) -> AsyncIterator[float | Heat]:
    """Yield the share done, 0..1, and at last the heat of an upright RGB photo; always the same for the same photo.

    It costs the model what `_ASKED` small photos cost.
    """
    small = photo.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    blurred = small.filter(ImageFilter.GaussianBlur(max(small.size) / 8))
    hidden = np.random.default_rng(0).random((_ASKED, *_grid(small.size))) < _HIDDEN
    scores: list[float] = []
    for first in range(0, _ASKED, _BATCH):
        versions = await asyncio.to_thread(_versions, small, blurred, hidden[first : first + _BATCH])
        scores += [found.score for found in await asyncio.gather(*map(model.predict, versions))]
        yield len(scores) / _ASKED
    yield Heat(_effects(hidden, np.array(scores)))


def _grid(size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of parts that are about square."""
    width, height = size
    part = max(size) / _CELLS
    return max(2, round(height / part)), max(2, round(width / part))


def _versions(small: Image.Image, blurred: Image.Image, hidden: NDArray[np.bool_]) -> list[bytes]:
    """Return the photo as PNG files with these parts blurred; soft edges, or the model would see those."""
    made = []
    for parts in hidden:
        mask = Image.fromarray((parts * 255).astype(np.uint8)).resize(small.size, Image.Resampling.BICUBIC)
        data = io.BytesIO()
        Image.composite(blurred, small, mask).save(data, "PNG", compress_level=1)
        made.append(data.getvalue())
    return made


def _effects(hidden: NDArray[np.bool_], scores: Floats) -> Floats:
    """Return how much hiding each part changes the score: ridge regression with a penalty on steps to neighbours."""
    count, rows, columns = hidden.shape
    given = hidden.reshape(count, -1).astype(float)
    given -= given.mean(axis=0)
    weight = count * _HIDDEN * (1 - _HIDDEN)
    penalty = weight * (_RIDGE * np.eye(rows * columns) + _SMOOTH * _laplacian(rows, columns))
    found: Floats = np.linalg.solve(given.T @ given + penalty, given.T @ (scores - scores.mean()))
    return found.reshape(rows, columns)


def _laplacian(rows: int, columns: int) -> Floats:
    """Return the matrix whose quadratic form sums the squared steps between neighbours of a grid."""
    number = np.arange(rows * columns).reshape(rows, columns)
    found = np.zeros((rows * columns, rows * columns))
    for some, others in ((number[:-1], number[1:]), (number[:, :-1], number[:, 1:])):
        i, j = some.ravel(), others.ravel()
        np.add.at(found, (i, i), 1)
        np.add.at(found, (j, j), 1)
        np.add.at(found, (i, j), -1)
        np.add.at(found, (j, i), -1)
    return found

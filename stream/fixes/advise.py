"""Tries every fix at Triton, and ranks those that raise the score."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps

from stream.fixes.edits import EDITS, Fix, candidates
from stream.fixes.measures import measure
from stream.inference import Prediction, TritonModel

SIDE = 1024
"""Fixes are tried on a copy of at most this many pixels."""
LEAST_GAIN = 0.02
"""A fix that raises the score by less is no tip."""
ROUNDS = 3
"""Fixes are put on top of each other this often at most."""
_QUALITY = 90


@dataclass(frozen=True)
class Fixed:
    """A photo after one fix."""

    fix: Fix
    score: float
    gain: float
    jpeg: bytes


@dataclass(frozen=True)
class Advice:
    """What helps one photo."""

    prediction: Prediction
    """Of the photo as it is."""
    fixes: tuple[Fixed, ...]
    """That raise the score, each alone, the most first."""
    best: Fixed | None
    """All of them that help on top of each other; None: none does."""
    chain: tuple[Fix, ...]
    """What `best` consists of, in order."""


def opened(data: bytes) -> Image.Image:
    """Return a photo upright, in RGB, at most `SIDE` pixels; its header was checked before."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (SIDE, SIDE))
    upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    return upright


def encoded(photo: Image.Image) -> bytes:
    data = io.BytesIO()
    photo.save(data, "JPEG", quality=_QUALITY)
    return data.getvalue()


def versions(photo: Image.Image) -> dict[Fix, bytes]:
    """Return the JPEG of each fix that applies; CPU work, for a thread."""
    return {fix: encoded(image) for fix, image in candidates(photo).items()}


def fixed_in_full(data: bytes, chain: Sequence[Fix]) -> bytes:
    """Return the JPEG of a photo after these fixes, as large as it came, without metadata; CPU work, for a thread."""
    photo = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    for fix in chain:
        small = photo.copy()
        small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        photo = EDITS[fix](photo, measure(small)) or photo
    return encoded(photo)


async def helpful(model: TritonModel, data: bytes) -> tuple[Prediction, list[Fixed]]:
    """Return the prediction of the copy that fixes are tried on, and the fixes that raise its score, the most first.

    Raises:
        PhotoRejected: the photo does not decode.
    """
    photo = await asyncio.to_thread(opened, data)
    start = await model.predict(await asyncio.to_thread(encoded, photo))
    return start, await _try(model, photo, start.score)


async def advise(model: TritonModel, data: bytes) -> Advice:
    """Try the fixes on an encoded photo, one by one and on top of each other.

    Raises:
        PhotoRejected: the photo does not decode.
    """
    before = await model.predict(data)
    start, alone = await helpful(model, data)
    chain: list[Fix] = []
    best: Fixed | None = None
    step = alone
    while step and len(chain) < ROUNDS:
        gain = step[0].score - start.score
        best = Fixed(step[0].fix, step[0].score, gain, step[0].jpeg)
        chain.append(step[0].fix)
        found = await _try(model, await asyncio.to_thread(opened, best.jpeg), best.score)
        step = [fixed for fixed in found if fixed.fix not in chain]
    return Advice(before, tuple(alone), best, tuple(chain))


async def _try(model: TritonModel, photo: Image.Image, score: float) -> list[Fixed]:
    """Return the fixes that raise `score`, the most first."""
    made = await asyncio.to_thread(versions, photo)
    found = await asyncio.gather(*map(model.predict, made.values()))
    fixed = [
        Fixed(fix, prediction.score, prediction.score - score, jpeg)
        for (fix, jpeg), prediction in zip(made.items(), found, strict=True)
    ]
    return sorted((one for one in fixed if one.gain >= LEAST_GAIN), key=lambda one: -one.gain)

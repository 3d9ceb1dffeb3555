"""Whether a score behaves when a photo is harmed (it must fall, step by step) or merely handled (it must not move)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.progress import track

from triton_models.degrade import FLAWS
from triton_models.metrics import Floats

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
TOLERANCE = 0.01
"""A score that rises by no more than this from one strength to the next has not risen."""

Photos = NDArray[np.uint8]
Score = Callable[[Photos], Floats]


@dataclass(frozen=True)
class Curve:
    """Mean score at each strength of a flaw, and the share of steps (photo x strength) at which the score rose."""

    mean: list[float]
    violations: float


def degradation_curves(score: Score, photos: Photos, seed: int = 0) -> dict[str, Curve]:
    """Return, for every made flaw, how `score` falls as it grows in photos [N, H, W, 3]."""
    floats = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255
    curves = {}
    for name, flaw in track(FLAWS.items(), "degrading photos", transient=True):
        levels = []
        for strength in STRENGTHS:
            # The same randomness at each strength: only the strength differs.
            torch.manual_seed(seed)
            made = torch.stack([flaw.make(photo, strength) for photo in floats])
            levels.append(score((made.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()))
        scores = np.stack(levels)
        rose = np.diff(scores, axis=0) > TOLERANCE
        curves[name] = Curve([round(float(v), 4) for v in scores.mean(1)], round(float(rose.mean()), 4))
    return curves


def _recompressed(photo: Photos, quality: int) -> Photos:
    data = io.BytesIO()
    Image.fromarray(photo).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data))


def _cropped(photo: Photos) -> Photos:
    height, width = photo.shape[:2]
    dy, dx = round(0.02 * height), round(0.02 * width)
    inner = Image.fromarray(photo[dy : height - dy, dx : width - dx])
    return np.asarray(inner.resize((width, height), Image.Resampling.BICUBIC))


HANDLINGS: dict[str, Callable[[Photos], Photos]] = {
    "flipped": lambda photo: np.asarray(ImageOps.mirror(Image.fromarray(photo))),
    "cropped by 2% a side": _cropped,
    "recompressed at quality 85": lambda photo: _recompressed(photo, 85),
}


def handling_shifts(score: Score, photos: Photos) -> dict[str, dict[str, Any]]:
    """Return how far each harmless handling moves the score: mean and 95th percentile of |change|."""
    before = score(photos)
    found = {}
    for name, handle in HANDLINGS.items():
        moved = np.abs(score(np.stack([handle(photo) for photo in photos])) - before)
        found[name] = {"mean": round(float(moved.mean()), 4), "p95": round(float(np.percentile(moved, 95)), 4)}
    return found

"""What a model must beat: figures that need no training on our labels. Higher is better for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from triton_models.metrics import Floats


def baselines(photos: NDArray[np.uint8]) -> dict[str, Floats]:
    """Return scores [N] of photos [N, H, W, 3] by brightness, contrast, sharpness, and BRISQUE where it is installed.

    Sharpness is the variance of the Laplacian; BRISQUE (Mittal et al. 2012) is the `brisque` library's, negated,
    as it grows with distortion.
    """
    luma = photos.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    laplacian = (
        4 * luma[:, 1:-1, 1:-1] - luma[:, 2:, 1:-1] - luma[:, :-2, 1:-1] - luma[:, 1:-1, 2:] - luma[:, 1:-1, :-2]
    )
    found: dict[str, Floats] = {
        "brightness": luma.mean((1, 2)),
        "contrast": luma.std((1, 2)),
        "sharpness": laplacian.var((1, 2)),
    }
    try:
        from brisque import BRISQUE
    except ImportError:
        return found
    judge = BRISQUE()
    found["BRISQUE"] = np.array([-_brisque(judge, photo) for photo in track(photos, "BRISQUE", transient=True)])
    return found


def _brisque(judge: Any, photo: NDArray[np.uint8]) -> float:
    """Return a photo's BRISQUE; 100, the worst, where it has none: one colour all over, for example."""
    try:
        value = float(judge.score(photo))
    except (ValueError, FloatingPointError, ZeroDivisionError):
        return 100.0
    return value if np.isfinite(value) else 100.0

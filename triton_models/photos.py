"""Reads photos exactly as the served model does: with its own `decode`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from triton_models.errors import LabelError
from triton_models.serving.model import HEIGHT, WIDTH, decode

__all__ = ["HEIGHT", "WIDTH", "decode", "load_photos", "photos_below"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def photos_below(folder: Path) -> list[Path]:
    """Return the photos of a folder and its subfolders, sorted.

    Raises:
        LabelError: there are none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise LabelError(f"no photos in {str(folder)!r}: it must hold files that end in {', '.join(SUFFIXES)}")
    return found


def load_photos(folder: Path, names: Sequence[str]) -> NDArray[np.uint8]:
    """Return the photos as [N, 256, 192, 3] RGB.

    Raises:
        LabelError: a photo is not there or does not decode; names it.
    """

    def load(name: str) -> NDArray[np.uint8]:
        try:
            return decode((folder / name).read_bytes())
        except Exception as error:  # whatever a decoder raises
            raise LabelError(f"photo {name!r} in {str(folder)!r}: {type(error).__name__}: {error}") from None

    photos = np.empty((len(names), HEIGHT, WIDTH, 3), np.uint8)
    with ThreadPoolExecutor() as pool:
        for i, photo in enumerate(track(pool.map(load, names), "reading photos", len(names), transient=True)):
            photos[i] = photo
    return photos

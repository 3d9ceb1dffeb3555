"""What a network is trained on: photos, targets, preference pairs; and how photos are varied."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_models.degrade import degrade
from triton_models.errors import LabelError
from triton_models.labels import TARGET, LabelledPhoto, Pair
from triton_models.photos import HEIGHT, WIDTH, load_photos

MAX_SHIFT = 12


@dataclass
class Data:
    """`photos` [N, 256, 192, 3] uint8; `targets` [M, 32] of the first M of them; pairs as rows of `photos`."""

    photos: Tensor
    targets: Tensor
    better: Tensor
    worse: Tensor
    weights: Tensor


def load_data(folder: Path, labelled: Sequence[LabelledPhoto], pairs: Sequence[Pair] = ()) -> Data:
    """Read the photos of labels and pairs; a pair's photos need no label.

    Raises:
        LabelError: a photo is not there or does not decode.
    """
    row = {photo.photo: i for i, photo in enumerate(labelled)}
    for pair in pairs:
        for name in (pair.better, pair.worse):
            row.setdefault(name, len(row))
    return Data(
        photos=torch.from_numpy(load_photos(folder, list(row))),
        targets=torch.tensor([photo.target() for photo in labelled]).reshape(-1, TARGET),
        better=torch.tensor([row[pair.better] for pair in pairs], dtype=torch.long),
        worse=torch.tensor([row[pair.worse] for pair in pairs], dtype=torch.long),
        weights=torch.tensor([pair.weight for pair in pairs]),
    )


def split(photos: Sequence[LabelledPhoto], share: float, seed: int) -> tuple[list[LabelledPhoto], list[LabelledPhoto]]:
    """Return photos to learn from, and a share kept apart to know when to stop.

    Raises:
        LabelError: too few photos for two parts.
    """
    order = list(photos)
    random.Random(seed).shuffle(order)
    count = round(share * len(order))
    if not 0 < count < len(order):
        raise LabelError(f"{len(order)} labelled photos are too few to keep {share:.0%} apart: label more")
    return order[count:], order[:count]


def to_input(photos: Tensor) -> Tensor:
    """[N, H, W, 3] uint8 -> [N, 3, H, W] in 0..1."""
    return photos.permute(0, 3, 1, 2).float() / 255


def vary(x: Tensor) -> Tensor:
    """Flip, shift, and change light and colour a little, as much as keeps a label true."""
    n = len(x)
    x = torch.where((torch.rand(n) < 0.5).view(n, 1, 1, 1), x.flip(3), x)
    top, left = torch.randint(2 * MAX_SHIFT + 1, (2,)).tolist()
    x = F.pad(x, [MAX_SHIFT] * 4, mode="replicate")[:, :, top : top + HEIGHT, left : left + WIDTH]
    light = 1 + 0.1 * (torch.rand(n, 1, 1, 1) - 0.5)
    tint = 1 + 0.04 * (torch.rand(n, 3, 1, 1) - 0.5)
    return (x * light * tint).clamp(0, 1)


def put_flaws(x: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Put a made flaw into a share of the photos; return them and their targets."""
    x, targets = x.clone(), targets.clone()
    for i in torch.nonzero(torch.rand(len(x)) < share).flatten().tolist():
        x[i], targets[i] = degrade(x[i], targets[i])
    return x, targets

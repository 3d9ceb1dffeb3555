"""Known flaws, put into photos at a chosen strength.

They serve three ends. Real labels hold few photos of some flaws (8 noisy ones in 3,781), so made ones join the training
set with the labels that they earn. Ranking a photo's strengths and naming the flaw is a task that needs no labels
(pretrain.py). And a score that does not fall as a flaw grows is a fault that `evaluate` reports.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from schemas.vocabulary import ASPECTS, ISSUES, Aspect, Issue

SCORE_LOSS = 0.25
"""How far a made flaw at training's mean strength lowers a score in 0..1: a little over one class."""

Make = Callable[[Tensor, float], Tensor]
"""Photo [3, H, W] in 0..1 and a strength 0..1 (0 changes nothing) -> the flawed photo."""


@dataclass(frozen=True)
class Flaw:
    make: Make
    issue: Issue
    aspect: Aspect


def dark(x: Tensor, strength: float) -> Tensor:
    return x ** (1 + 0.5 * strength) * (1 - 0.8 * strength)


def overexposed(x: Tensor, strength: float) -> Tensor:
    return (x * (1 + 1.2 * strength) + 0.15 * strength).clamp(0, 1)


def low_contrast(x: Tensor, strength: float) -> Tensor:
    return x * (1 - 0.7 * strength) + 0.4 * strength


_CASTS = torch.tensor([[1.3, 1.0, 0.55], [0.6, 0.95, 1.3], [0.75, 1.2, 0.7], [1.25, 0.95, 0.75]])


def color_cast(x: Tensor, strength: float) -> Tensor:
    gains = 1 + (_CASTS[_choice(len(_CASTS))] - 1) * strength
    return (x * gains.view(3, 1, 1)).clamp(0, 1)


def blurry(x: Tensor, strength: float) -> Tensor:
    size = 2 * round(5 * strength) + 1
    for _ in range(2):
        x = F.avg_pool2d(F.pad(x[None], [size // 2] * 4, mode="replicate"), size, 1)[0]
    return x


def noisy(x: Tensor, strength: float) -> Tensor:
    return (x + torch.randn_like(x) * 0.18 * strength).clamp(0, 1)


def compressed(x: Tensor, strength: float) -> Tensor:
    """JPEG of quality 80 down to 5."""
    if strength == 0:
        return x
    data = io.BytesIO()
    pixels = (x.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(data, "JPEG", quality=round(80 - 75 * strength))
    return torch.from_numpy(np.array(Image.open(data))).permute(2, 0, 1).float() / 255


def tilted(x: Tensor, strength: float) -> Tensor:
    angle = math.radians(28 * strength) * (1 if _choice(2) else -1)
    return _affine(x, 1 - 0.05 * strength, angle, 0, 0)


def item_cut_off(x: Tensor, strength: float) -> Tensor:
    shift = 0.65 * strength
    dx, dy = [(shift, 0.0), (-shift, 0.0), (0.0, shift), (0.0, -shift)][_choice(4)]
    return _affine(x, 1 - 0.85 * shift, 0, dx, dy)


def item_too_small(x: Tensor, strength: float) -> Tensor:
    """Shrink the photo and continue its border outwards, softened so that no streaks remain."""
    down, across = torch.rand(2).tolist()
    if strength == 0:
        return x
    small = F.interpolate(x[None], scale_factor=1 - 0.7 * strength, mode="area")[0]
    rows, columns = x.shape[1] - small.shape[1], x.shape[2] - small.shape[2]
    top, left = int(rows * (0.2 + 0.6 * down)), int(columns * (0.2 + 0.6 * across))
    wide = F.pad(small[None], [left, columns - left, top, rows - top], mode="replicate")
    soft = F.avg_pool2d(F.pad(wide, [15] * 4, mode="replicate"), 31, 1)[0]
    soft[:, top : top + small.shape[1], left : left + small.shape[2]] = small
    return soft


def cluttered_background(x: Tensor, strength: float) -> Tensor:
    """Lay up to eight patches of the photo itself, mirrored and recoloured, around its border."""
    out, (_, rows, columns) = x.clone(), x.shape
    for _ in range(round(8 * strength)):
        h, w = int(_between(0.12, 0.24) * rows), int(_between(0.14, 0.28) * columns)
        top, left = _choice(rows - h), _choice(columns - w)
        patch = x[torch.randperm(3)][:, top : top + h, left : left + w].flip(2) * _between(0.6, 1.1)
        side = _choice(4)
        left = (0, columns - w, left, left)[side]
        top = (top, top, 0, rows - h)[side]
        out[:, top : top + h, left : left + w] = patch
    return out.clamp(0, 1)


FLAWS: dict[str, Flaw] = {
    "dark": Flaw(dark, Issue.DARK, Aspect.LIGHTING),
    "overexposed": Flaw(overexposed, Issue.OVEREXPOSED, Aspect.LIGHTING),
    "low_contrast": Flaw(low_contrast, Issue.LOW_CONTRAST, Aspect.LIGHTING),
    "color_cast": Flaw(color_cast, Issue.COLOR_CAST, Aspect.COLOR),
    "blurry": Flaw(blurry, Issue.BLURRY, Aspect.SHARPNESS),
    "noisy": Flaw(noisy, Issue.NOISY, Aspect.SHARPNESS),
    "compressed": Flaw(compressed, Issue.NOISY, Aspect.SHARPNESS),
    "tilted": Flaw(tilted, Issue.TILTED, Aspect.FRAMING),
    "item_cut_off": Flaw(item_cut_off, Issue.ITEM_CUT_OFF, Aspect.FRAMING),
    "item_too_small": Flaw(item_too_small, Issue.ITEM_TOO_SMALL, Aspect.FRAMING),
    "cluttered_background": Flaw(cluttered_background, Issue.CLUTTERED_BACKGROUND, Aspect.BACKGROUND),
}
NAMES = tuple(FLAWS)

_HARD = ("tilted", "item_cut_off")
_DRAWN = [*NAMES, *_HARD]
"""What `degrade` draws from: the flaws of shape, which are harder to learn, twice as often."""


def degrade(photo: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return a flawed copy of `photo` [3, H, W] in 0..1, and its `target` [32] (see labels.LabelledPhoto.target)."""
    flaw = FLAWS[_DRAWN[_choice(len(_DRAWN))]]
    target = target.clone()
    # one class down; class 1 stays
    target[0:5] = torch.cat([target[0:1] + target[1:2], target[2:5], torch.zeros(1)])
    target[5 + ASPECTS.index(flaw.aspect)] = (target[5 + ASPECTS.index(flaw.aspect)] - 0.4).clamp_min(0.1)
    target[11 + ISSUES.index(flaw.issue)] = 1.0
    target[31] = (target[31] - SCORE_LOSS).clamp_min(0.0)
    return flaw.make(photo, _between(0.55, 1.0)), target


def _choice(count: int) -> int:
    return int(torch.randint(count, ()))


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _affine(x: Tensor, scale: float, angle: float, dx: float, dy: float) -> Tensor:
    ratio = x.shape[2] / x.shape[1]
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    theta = torch.tensor([[[c, -s / ratio, dx], [s * ratio, c, dy]]])
    grid = F.affine_grid(theta, [1, *x.shape], align_corners=False)
    return F.grid_sample(x[None], grid, padding_mode="reflection", align_corners=False)[0]

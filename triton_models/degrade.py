"""Made examples: known flaws put into photos, with the labels that they earn.

Real labels hold few photos of some flaws (8 noisy ones in 3,781); made ones teach the network what
a flaw does to the score, and that the same photo with the flaw is worse than without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.vocabulary import ASPECTS, ISSUES, Aspect, Issue

SCORE_LOSS = 0.25
"""How far a made flaw lowers a score in 0..1: a little over one class."""


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def dark(x: Tensor) -> Tensor:
    return x ** _uniform(1.0, 1.5) * _uniform(0.2, 0.5)


def overexposed(x: Tensor) -> Tensor:
    return (x * _uniform(1.5, 2.2) + _uniform(0.0, 0.15)).clamp(0, 1)


def low_contrast(x: Tensor) -> Tensor:
    return x * _uniform(0.3, 0.5) + _uniform(0.3, 0.4)


def color_cast(x: Tensor) -> Tensor:
    gains = torch.tensor([[1.3, 1.0, 0.55], [0.6, 0.95, 1.3], [0.75, 1.2, 0.7], [1.25, 0.95, 0.75]])
    return (x * gains[torch.randint(4, ())].view(3, 1, 1)).clamp(0, 1)


def blurry(x: Tensor) -> Tensor:
    for _ in range(2):
        size = 2 * int(torch.randint(2, 6, ())) + 1
        x = F.avg_pool2d(F.pad(x[None], [size // 2] * 4, mode="replicate"), size, 1)[0]
    return x


def noisy(x: Tensor) -> Tensor:
    return (x + torch.randn_like(x) * _uniform(0.08, 0.18)).clamp(0, 1)


def _affine(x: Tensor, scale: float, angle: float, dx: float, dy: float) -> Tensor:
    ratio = x.shape[2] / x.shape[1]
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    theta = torch.tensor([[[c, -s / ratio, dx], [s * ratio, c, dy]]])
    grid = F.affine_grid(theta, [1, *x.shape], align_corners=False)
    return F.grid_sample(x[None], grid, padding_mode="reflection", align_corners=False)[0]


def tilted(x: Tensor) -> Tensor:
    sign = 1 if torch.rand(()) < 0.5 else -1
    return _affine(x, 0.95, sign * math.radians(_uniform(12, 28)), 0, 0)


def item_cut_off(x: Tensor) -> Tensor:
    side = torch.randint(4, ())
    shift = _uniform(0.45, 0.65)
    dx, dy = [(shift, 0.0), (-shift, 0.0), (0.0, shift), (0.0, -shift)][int(side)]
    scale = 1 - shift
    return _affine(x, scale + 0.1, 0, dx, dy)


def cluttered_background(x: Tensor) -> Tensor:
    """Lay a handful of patches of the photo itself, mirrored and recoloured, around its border."""
    out, (_, rows, columns) = x.clone(), x.shape
    for _ in range(int(torch.randint(5, 9, ()))):
        h, w = int(_uniform(0.12, 0.24) * rows), int(_uniform(0.14, 0.28) * columns)
        top, left = int(torch.randint(rows - h, ())), int(torch.randint(columns - w, ()))
        patch = x[torch.randperm(3)][:, top : top + h, left : left + w].flip(2) * _uniform(0.6, 1.1)
        if torch.rand(()) < 0.5:
            left = 0 if torch.rand(()) < 0.5 else columns - w
        else:
            top = 0 if torch.rand(()) < 0.5 else rows - h
        out[:, top : top + h, left : left + w] = patch
    return out.clamp(0, 1)


def item_too_small(x: Tensor) -> Tensor:
    """Shrink the photo and continue its border outwards, softened so that no streaks remain."""
    small = F.interpolate(x[None], scale_factor=_uniform(0.3, 0.45), mode="area")[0]
    _, rows, columns = x.shape
    down, across = rows - small.shape[1], columns - small.shape[2]
    top, left = int(down * _uniform(0.2, 0.8)), int(across * _uniform(0.2, 0.8))
    pad = [left, across - left, top, down - top]
    wide = F.pad(small[None], pad, mode="replicate")
    soft = F.avg_pool2d(F.pad(wide, [15] * 4, mode="replicate"), 31, 1)[0]
    soft[:, top : top + small.shape[1], left : left + small.shape[2]] = small
    return soft


FLAWS: dict[Issue, tuple[Callable[[Tensor], Tensor], Aspect]] = {
    Issue.DARK: (dark, Aspect.LIGHTING),
    Issue.OVEREXPOSED: (overexposed, Aspect.LIGHTING),
    Issue.LOW_CONTRAST: (low_contrast, Aspect.LIGHTING),
    Issue.COLOR_CAST: (color_cast, Aspect.COLOR),
    Issue.BLURRY: (blurry, Aspect.SHARPNESS),
    Issue.NOISY: (noisy, Aspect.SHARPNESS),
    Issue.TILTED: (tilted, Aspect.FRAMING),
    Issue.ITEM_CUT_OFF: (item_cut_off, Aspect.FRAMING),
    Issue.ITEM_TOO_SMALL: (item_too_small, Aspect.FRAMING),
    Issue.CLUTTERED_BACKGROUND: (cluttered_background, Aspect.BACKGROUND),
}


_HARD = (Issue.TILTED, Issue.ITEM_CUT_OFF)
_DRAWN = [*FLAWS, *_HARD]
"""What `degrade` draws from: the flaws of shape, which are harder to learn, twice as often."""


def degrade(photo: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return a flawed copy of `photo` [3, H, W] in 0..1, and its `target` [32] (see train.target)."""
    issue = _DRAWN[int(torch.randint(len(_DRAWN), ()))]
    make, aspect = FLAWS[issue]
    target = target.clone()
    # one class down; class 1 stays
    target[0:5] = torch.cat([target[0:1] + target[1:2], target[2:5], torch.zeros(1)])
    target[5 + ASPECTS.index(aspect)] = (target[5 + ASPECTS.index(aspect)] - 0.4).clamp_min(0.1)
    target[11 + ISSUES.index(issue)] = 1.0
    target[31] = (target[31] - SCORE_LOSS).clamp_min(0.0)
    return make(photo), target

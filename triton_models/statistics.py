"""Hand-made statistics of a photo: light, colour, and what stands out from the border.

On a few thousand photos a network learns slowly what simple statistics already say: how dark a photo is, how busy its
border, how much of it the item fills. They are part of the network, so that they are served, and exported, with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_models.photos import HEIGHT, WIDTH

_LUMA = (0.299, 0.587, 0.114)
_BINS = 16
_THRESHOLDS = (0.12, 0.25)
"""How far from the border's mean colour, as mean difference of the channels, a pixel is taken for the item."""


def _luma(x: Tensor) -> Tensor:
    return _LUMA[0] * x[:, 0:1] + _LUMA[1] * x[:, 1:2] + _LUMA[2] * x[:, 2:3]


def _saturation(x: Tensor) -> Tensor:
    return x.amax(1, keepdim=True) - x.amin(1, keepdim=True)


def _edges(luma: Tensor) -> Tensor:
    """Return the size of the gradient, [N, 1, H - 1, W - 1]."""
    return (luma[..., :-1, 1:] - luma[..., :-1, :-1]).abs() + (luma[..., 1:, :-1] - luma[..., :-1, :-1]).abs()


def _deviation(square: Tensor, mean: Tensor) -> Tensor:
    return (square - mean * mean).clamp_min(0).add(1e-8).sqrt()


def _spread(m: Tensor) -> list[Tensor]:
    """Mean and deviation of maps [N, C, H, W], each [N, C]."""
    mean = m.mean((2, 3))
    return [mean, _deviation((m * m).mean((2, 3)), mean)]


def _texture(x: Tensor, half: Tensor) -> list[Tensor]:
    """Of photos [N, 3, H, W], and the same at half size: light, colour, edge and detail energy at three scales, and
    histograms of luma and saturation of the photo and of its upper and lower borders."""
    luma = _luma(x)
    features = _spread(torch.cat([luma, _saturation(x), x[:, 2:3] - luma, x[:, 0:1] - luma], 1))
    scaled = luma
    for _ in range(3):
        detail = (scaled - F.avg_pool2d(scaled, 3, 1, 1)).abs()
        features += [*_spread(_edges(scaled)), *_spread(detail)]
        scaled = F.avg_pool2d(scaled, 2)
    centres = torch.linspace(0, 1, _BINS, device=x.device).view(1, _BINS, 1, 1)
    for m in (F.avg_pool2d(_luma(half), 2), F.avg_pool2d(_saturation(half), 2)):
        bins = torch.exp(-(((m - centres) * _BINS) ** 2))
        border = torch.cat([bins[..., :4, :], bins[..., -4:, :]], 2)
        features += [bins.mean((2, 3)), border.mean((2, 3))]
    return features


def _item(x: Tensor, border: Tensor, threshold: float, maps: list[Tensor]) -> list[Tensor]:
    """What stands out from the border's colour [N, 3]: how much, where, how alike left and right, how it differs."""
    height, width = HEIGHT // 2, WIDTH // 2  # numbers, not shapes: an exported network's windows must be constants
    distance = (x - border[:, :, None, None]).abs().mean(1, keepdim=True)
    item = torch.sigmoid((distance - threshold) * 30)
    rest = 1 - item
    area = item.mean((2, 3))
    features = [
        area,
        F.avg_pool2d(item, (height // 16, width)).flatten(1),
        F.avg_pool2d(item, (height, width // 12)).flatten(1),
    ]
    for m in maps:
        rows, columns = (height, width) if m is not maps[-1] else (height - 1, width - 1)  # the last is of edges
        here, there = item[..., :rows, :columns], rest[..., :rows, :columns]
        inside, outside = (m * here).mean((2, 3)) / (area + 1e-2), (m * there).mean((2, 3)) / (1 - area + 1e-2)
        square_in = (m * m * here).mean((2, 3)) / (area + 1e-2)
        square_out = (m * m * there).mean((2, 3)) / (1 - area + 1e-2)
        features += [inside, outside, inside - outside]
        features += [_deviation(square_out, outside), _deviation(square_in, inside)]
    y = torch.linspace(-1, 1, height, device=x.device).view(1, 1, height, 1)
    across = torch.linspace(-1, 1, width, device=x.device).view(1, 1, 1, width)
    middle = [(item * axis).mean((2, 3)) / (area + 1e-2) for axis in (y, across)]
    extent = [_deviation((item * axis * axis).mean((2, 3)) / (area + 1e-2), m) for axis, m in zip((y, across), middle)]
    left, right = item[..., :4].mean((2, 3)), item[..., -4:].mean((2, 3))
    touches = [item[:, :, :4].mean((2, 3)), item[:, :, -4:].mean((2, 3)), left + right, (left - right).abs()]
    return [*features, middle[0], middle[1].abs(), *extent, (item - item.flip(3)).abs().mean((2, 3)), *touches]


def _layout(x: Tensor) -> list[Tensor]:
    """Of photos [N, 3, H, W] at half size: the border, the item against it, symmetry, clipping, local contrast."""
    luma, saturation = _luma(x), _saturation(x)
    ring = [
        x[:, :, :8].flatten(2),
        x[:, :, -8:].flatten(2),
        x[:, :, 8:-8, :8].flatten(2),
        x[:, :, 8:-8, -8:].flatten(2),
    ]
    pixels = torch.cat(ring, 2)
    border = pixels.mean(2)
    features = [border, _deviation((pixels * pixels).mean(2), border)]
    for threshold in _THRESHOLDS:
        features += _item(x, border, threshold, [luma, saturation, _edges(luma)])
    features.append((luma - luma.flip(3)).abs().mean((2, 3)))
    for mask in (luma > 0.95, luma < 0.06, (luma > 0.75) & (saturation < 0.12)):
        features.append(mask.to(x.dtype).mean((2, 3)))
    coarse, square = F.avg_pool2d(x, 2), F.avg_pool2d(luma * luma, 2)
    for _ in range(3):
        coarse, square = F.avg_pool2d(coarse, 2), F.avg_pool2d(square, 2)
        mean = _luma(coarse)
        features += [_deviation(square, mean).mean((2, 3)), _spread(mean)[1]]
        features.append((coarse - coarse.mean((2, 3), keepdim=True)).abs().mean((2, 3)))
    return features


def statistics(x: Tensor) -> Tensor:
    """Return the statistics [N, K] of photos `x` [N, 3, 256, 192] in 0..1; mirroring a photo changes none of them
    but the profile of columns."""
    half = F.avg_pool2d(x, 2)
    return torch.cat([*_texture(x, half), *_layout(half)], 1)

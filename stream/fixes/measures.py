"""What is off in a photo, in numbers that the fixes act on.

All of it is measured on a copy of at most 192 pixels, so that it costs a few milliseconds whatever the photo's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SIDE = 192
_LEAST_SIDE = 24
_WARM, _TINT = 0.05, 0.08
"""How much of a cast is let be, in logarithms of gains, from warm to cold and from green to magenta."""
_BORDER = 0.06
"""Share of the frame, at each side, that is taken for background."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measures:
    """Light is 0 (black) to 1 (white), in the photo's own encoding."""

    median: float
    surround: float
    """Median light of the background: a dark item before a light one is not a dark photo."""
    low: float
    """Light below which 1% of the pixels are."""
    high: float
    """Light above which 1% of the pixels are."""
    blown: float
    """Share of the pixels that are white in every channel, outside of a white background."""
    cast: tuple[float, float, float]
    """Gains that take a cast of the light away; (1, 1, 1) when none is seen."""
    angle: float
    """Degrees, clockwise, that straight edges are off the upright; 0 when there are few or they disagree."""
    item: tuple[float, float, float, float]
    """Left, top, right and bottom of what stands out from the background, 0..1; the whole frame when unclear."""
    noise: float
    """Deviation of what a small median filter removes, in flat places, 0..1."""


def measure(photo: Image.Image) -> Measures:
    """Measure an RGB photo."""
    small = photo.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    if min(small.size) < _LEAST_SIDE:
        small = small.resize((_LEAST_SIDE, _LEAST_SIDE))
    pixels = np.asarray(small, np.float64) / 255
    light = pixels @ np.array([0.299, 0.587, 0.114])
    border = _border(light.shape)
    return Measures(
        float(np.median(light)),
        float(np.median(light[border])),
        float(np.quantile(light, 0.01)),
        float(np.quantile(light, 0.99)),
        float(((pixels.min(axis=2) > 0.985) & ~border).mean()),
        _cast(pixels, light, border),
        _angle(small),
        _item(pixels, border),
        _noise(photo),
    )


def _border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    height, width = shape[:2]
    rows, columns = max(1, round(_BORDER * height)), max(1, round(_BORDER * width))
    found = np.ones((height, width), bool)
    found[rows:-rows, columns:-columns] = False
    return found


def _cast(pixels: Floats, light: Floats, border: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Take the light, nearly grey part of the background for a grey wall or sheet.

    Lamps and shade move colours between warm and cold, seldom between green and magenta, and a sheet may have a colour
    of its own: so a little is let be, and only what is beyond it taken away. Nothing is, when light parts of the item,
    nearly grey now, would become coloured: then the light is right, and the sheet is not grey.
    """
    saturation = pixels.max(axis=2) - pixels.min(axis=2)
    grey = border & (saturation < 0.22) & (light > 0.35) & (pixels.max(axis=2) < 0.98)
    none = (1.0, 1.0, 1.0)
    if grey.sum() < 0.35 * border.sum():
        return none
    red, green, blue = -np.log(np.maximum(pixels[grey].mean(axis=0), 1e-3))
    warm, tint = _beyond((red - blue) / 2, _WARM), _beyond(green - (red + blue) / 2, _TINT)
    gains = np.clip(np.exp(np.array([warm - tint / 3, 2 * tint / 3, -warm - tint / 3])), 0.75, 1.33)
    item = ~border & (saturation < 0.2) & (light > 0.5)
    if item.any():
        before, after = pixels[item].mean(axis=0), pixels[item].mean(axis=0) * gains
        if np.ptp(after) > np.ptp(before) + 0.01:
            return none
    return float(gains[0]), float(gains[1]), float(gains[2])


def _beyond(value: float, limit: float) -> float:
    return float(np.sign(value) * max(0.0, abs(value) - limit))


def _angle(small: Image.Image) -> float:
    """Find the tilt that the strongest straight edges, near upright or level, agree on."""
    light = np.asarray(small.convert("L").filter(ImageFilter.GaussianBlur(1.5)), np.float64) / 255
    across, down = np.zeros_like(light), np.zeros_like(light)
    across[:, 1:-1] = light[:, 2:] - light[:, :-2]
    down[1:-1] = light[2:] - light[:-2]
    strength = np.hypot(across, down)
    strong = strength > max(0.06, float(np.quantile(strength, 0.9)))
    if strong.sum() < 300:
        return 0.0
    # The angle modulo a right angle, -45..45: upright and level edges then tell the same tilt.
    angles = (np.degrees(np.arctan2(down[strong], across[strong])) + 45) % 90 - 45
    near = np.abs(angles) < 12
    if near.mean() < 0.45:
        return 0.0
    counts, edges = np.histogram(angles[near], bins=48, range=(-12, 12), weights=strength[strong][near])
    smooth = np.convolve(counts, [1, 2, 3, 2, 1], mode="same")
    peak = int(smooth.argmax())
    if smooth[peak] < 2.2 * smooth.mean():
        return 0.0
    return float((edges[peak] + edges[peak + 1]) / 2)


def _item(pixels: Floats, border: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Bound what differs from a plain background; a background that is not plain gives the whole frame."""
    whole = (0.0, 0.0, 1.0, 1.0)
    middle = np.median(pixels[border], axis=0)
    distance = np.abs(pixels - middle).max(axis=2)
    if float(np.quantile(distance[border], 0.8)) > 0.12:
        return whole
    stands_out = distance > 0.16
    rows, columns = stands_out.mean(axis=1) > 0.02, stands_out.mean(axis=0) > 0.02
    if not rows.any() or not columns.any() or stands_out.mean() < 0.02:
        return whole
    top, bottom = int(rows.argmax()), len(rows) - int(rows[::-1].argmax())
    left, right = int(columns.argmax()), len(columns) - int(columns[::-1].argmax())
    return left / len(columns), top / len(rows), right / len(columns), bottom / len(rows)


def _noise(photo: Image.Image) -> float:
    """Measure grain in the photo's own pixels, in a patch of the middle and in flat places of it alone."""
    width, height = photo.size
    side = min(256, width, height)
    if side < _LEAST_SIDE:
        return 0.0
    left, top = (width - side) // 2, (height - side) // 2
    grey = np.asarray(photo.crop((left, top, left + side, top + side)).convert("L"), np.float64) / 255
    difference = np.abs(grey[1:-1, 1:-1] - (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]) / 4)
    return float(np.quantile(difference, 0.3))

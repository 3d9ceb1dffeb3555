"""The fixes: each mends one flaw as a phone's editor could, and invents nothing.

A fix returns None for a photo that does not have its flaw, so that a good photo stays as it is, and so that fixing what
was fixed changes nothing. All are deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

from PIL import Image, ImageFilter

from stream.fixes.measures import Measures, measure

_DARK, _LIT = 0.36, 0.46
"""A photo whose light, its background's too, is below the first is brightened towards the second."""
_LIGHT, _CALM = 0.8, 0.68
_LEAST_GAMMA, _MOST_GAMMA = 0.5, 1.7
_FLAT, _FULL, _MOST_STRETCH = 0.5, 0.58, 1.25
"""A photo whose light spans less than the first is stretched towards the second."""
_CAST = 0.04
_TILT, _MOST_TILT = 1.2, 8.0
_SMALL = 0.42
"""An item that fills less of the frame is cropped to."""
_MARGIN = 0.12
_GRAIN = 0.012


class Fix(StrEnum):
    """What is tried."""

    BRIGHTEN = "brighten"
    RECOVER_EXPOSURE = "recover_exposure"
    CONTRAST = "contrast"
    WHITE_BALANCE = "white_balance"
    STRAIGHTEN = "straighten"
    CROP = "crop"
    DENOISE = "denoise"


Edit = Callable[[Image.Image, Measures], Image.Image | None]


def brighten(photo: Image.Image, found: Measures) -> Image.Image | None:
    """Raise the mid-tones; black and white stay."""
    if not _is_dark(found):
        return None
    wanted = math.log(_LIT) / math.log(max(found.median, found.surround, 0.02))
    return _curve(photo, lambda x: x ** max(wanted, _LEAST_GAMMA))


def _is_dark(found: Measures) -> bool:
    return max(found.median, found.surround) < _DARK


def recover_exposure(photo: Image.Image, found: Measures) -> Image.Image | None:
    """Lower the mid-tones of a washed-out photo; one before a white background is not washed out."""
    if found.median <= _LIGHT or found.low < 0.5 or found.blown > 0.25:
        return None
    wanted = math.log(_CALM) / math.log(min(found.median, 0.97))
    return _curve(photo, lambda x: x ** min(wanted, _MOST_GAMMA))


def contrast(photo: Image.Image, found: Measures) -> Image.Image | None:
    """Stretch the light of a flat photo, equally in all channels; a dark one would lose its shadows by it."""
    span = found.high - found.low
    if span >= _FLAT or span < 0.05 or _is_dark(found):
        return None
    gain = min(_MOST_STRETCH, _FULL / span)
    middle = (found.high + found.low) / 2
    return _curve(photo, lambda x: (x - middle) * gain + middle)


def white_balance(photo: Image.Image, found: Measures) -> Image.Image | None:
    """Take a cast of light away that a grey background shows."""
    if max(found.cast) - min(found.cast) < _CAST:
        return None
    return photo.point([round(min(255.0, level * gain)) for gain in found.cast for level in range(256)])


def straighten(photo: Image.Image, found: Measures) -> Image.Image | None:
    """Turn the photo upright, and crop the corners away; not if that would, or might, cut the item."""
    angle = found.angle
    if not _TILT <= abs(angle) <= _MOST_TILT:
        return None
    width, height = photo.size
    share = _inner_share(width, height, math.radians(abs(angle)))
    left, top, right, bottom = found.item
    edge = (1 - share) / 2
    if left < edge or top < edge or right > 1 - edge or bottom > 1 - edge:
        return None
    turned = photo.rotate(angle, Image.Resampling.BICUBIC)
    return _cropped(turned, edge, edge, 1 - edge, 1 - edge)


def _inner_share(width: int, height: int, angle: float) -> float:
    """Return the scale at which a frame of the same shape fits into the turned one."""
    ratio = max(width, height) / min(width, height)
    return 1 / (math.cos(angle) + ratio * math.sin(angle))


def crop(photo: Image.Image, found: Measures) -> Image.Image | None:
    """Crop to the whole item with a margin, in the photo's own shape."""
    left, top, right, bottom = found.item
    if (right - left) * (bottom - top) >= _SMALL or found.item == (0.0, 0.0, 1.0, 1.0):
        return None
    side = min(1.0, max(right - left, bottom - top) + 2 * _MARGIN * max(right - left, bottom - top) + 0.04)
    if side > 0.9:
        return None
    x = min(max((left + right - side) / 2, 0.0), 1 - side)
    y = min(max((top + bottom - side) / 2, 0.0), 1 - side)
    return _cropped(photo, x, y, x + side, y + side)


def _cropped(photo: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Crop to shares of the frame."""
    width, height = photo.size
    return photo.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def denoise(photo: Image.Image, found: Measures) -> Image.Image | None:
    """Take grain away with a small median, then give edges some of their sharpness back."""
    if found.noise < _GRAIN:
        return None
    return photo.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.UnsharpMask(1.2, 60, 3))


def _curve(photo: Image.Image, curve: Callable[[float], float]) -> Image.Image:
    levels = [round(255 * min(1.0, max(0.0, curve(level / 255)))) for level in range(256)]
    return photo.point(levels * 3)


EDITS: dict[Fix, Edit] = {
    Fix.BRIGHTEN: brighten,
    Fix.RECOVER_EXPOSURE: recover_exposure,
    Fix.CONTRAST: contrast,
    Fix.WHITE_BALANCE: white_balance,
    Fix.STRAIGHTEN: straighten,
    Fix.CROP: crop,
    Fix.DENOISE: denoise,
}


def candidates(photo: Image.Image) -> dict[Fix, Image.Image]:
    """Return what each fix that applies makes of an upright RGB photo."""
    found = measure(photo)
    made = {fix: edit(photo, found) for fix, edit in EDITS.items()}
    return {fix: image for fix, image in made.items() if image is not None}

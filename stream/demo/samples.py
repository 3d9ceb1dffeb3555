"""Draws sample product photos: each item once well taken, and once with each of seven named flaws.

They are drawn, not photographed: fabric, folds, light and shadow are made from noise and blurred masks, so that
a newcomer has photos whose flaws are known. The random seed is fixed: every run draws the same photos.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 600, 800
Floats = NDArray[np.float32]
Polygon = list[tuple[float, float]]

# Outlines of the left half, from the top middle down, in units of the item's box; mirrored to the right.
_HALVES: dict[str, Polygon] = {
    "t-shirt": [
        (0.5, 0.07),
        (0.42, 0.05),
        (0.36, 0.0),
        (0.22, 0.06),
        (0.0, 0.26),
        (0.11, 0.40),
        (0.24, 0.30),
        (0.25, 0.6),
        (0.23, 1.0),
        (0.5, 1.0),
    ],
    "dress": [
        (0.5, 0.10),
        (0.40, 0.09),
        (0.36, 0.0),
        (0.30, 0.0),
        (0.29, 0.14),
        (0.24, 0.24),
        (0.31, 0.42),
        (0.22, 0.62),
        (0.06, 0.97),
        (0.28, 1.0),
        (0.5, 1.0),
    ],
    "trousers": [(0.5, 0.0), (0.24, 0.0), (0.22, 0.3), (0.14, 1.0), (0.36, 1.0), (0.49, 0.34), (0.5, 0.33)],
    "skirt": [(0.5, 0.0), (0.27, 0.0), (0.26, 0.09), (0.02, 0.93), (0.2, 0.99), (0.5, 1.0)],
    "hat": [
        (0.5, 0.10),
        (0.38, 0.12),
        (0.24, 0.24),
        (0.15, 0.48),
        (0.12, 0.66),
        (0.1, 0.86),
        (0.3, 0.91),
        (0.5, 0.92),
    ],
    "bag": [
        (0.5, 0.03),
        (0.36, 0.05),
        (0.28, 0.16),
        (0.26, 0.34),
        (0.05, 0.36),
        (0.0, 0.95),
        (0.06, 1.0),
        (0.5, 1.0),
    ],
}
_BOXES = {
    "t-shirt": (440, 500),
    "dress": (470, 680),
    "trousers": (470, 680),
    "skirt": (440, 520),
    "hat": (470, 480),
    "bag": (430, 500),
}
_COLORS = {
    "t-shirt": (46, 92, 150),
    "dress": (176, 62, 84),
    "trousers": (58, 62, 78),
    "skirt": (74, 120, 92),
    "hat": (206, 146, 60),
    "bag": (122, 78, 52),
}
_PATTERNS = {
    "t-shirt": "stripes",
    "dress": "dots",
    "trousers": "plain",
    "skirt": "plain",
    "hat": "ribs",
    "bag": "plain",
}
ITEMS = tuple(_HALVES)


def _smooth_noise(rng: np.random.Generator, sigma: float, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Floats:
    """Return noise [H, W] of mean 0 and deviation 1 whose features are about `sigma` pixels wide."""
    step = max(1, int(sigma / 2))
    small = rng.standard_normal((size[1] // step + 4, size[0] // step + 4)).astype(np.float32)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    values = np.asarray(image, np.float32)
    return np.asarray((values - values.mean()) / (values.std() + 1e-6), np.float32)


def _shadow(mask: Floats) -> Floats:
    """Return the item's soft shadow, down and to the right of it."""
    shadow = np.zeros_like(mask)
    shadow[12:, 9:] = _blurred(mask, 14)[:-12, :-9]
    return shadow * (1 - mask)


def _blurred(mask: Floats, radius: float) -> Floats:
    image = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float32) / 255


@cache
def _mask(item: str) -> Floats:
    """Return the item's outline [H, W] in 0..1, soft by one pixel, upright and centred."""
    width, height = _BOXES[item]
    left, top = (WIDTH - width) / 2, (HEIGHT - height) / 2
    half = _HALVES[item]
    whole = half + [(1 - x, y) for x, y in reversed(half)]
    image = Image.new("L", (2 * WIDTH, 2 * HEIGHT))
    draw = ImageDraw.Draw(image)
    draw.polygon([(2 * (left + x * width), 2 * (top + y * height)) for x, y in whole], fill=255)
    if item == "bag":
        box = [
            2 * (left + width * 0.37),
            2 * (top + height * 0.13),
            2 * (left + width * 0.63),
            2 * (top + height * 0.6),
        ]
        draw.ellipse(box, fill=0)
        draw.rectangle([2 * left, 2 * (top + height * 0.36), 2 * (left + width), 2 * (top + height * 0.6)], fill=255)
    rounded = image.filter(ImageFilter.GaussianBlur(9)).point(lambda v: 255 if v > 127 else 0)
    return np.asarray(rounded.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), np.float32) / 255


@cache
def _fabric(item: str) -> Floats:
    """Return the item's surface [H, W, 3] in 0..1: colour, pattern, folds, weave, seams and rounded edges."""
    mask, rng = _mask(item), np.random.default_rng(ITEMS.index(item))
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    color = np.array(_COLORS[item], np.float32) / 255
    surface = np.broadcast_to(color, (HEIGHT, WIDTH, 3)).copy()
    pattern = _PATTERNS[item]
    if pattern == "stripes":
        surface[(y + 3 * np.sin(x / 60)) % 64 < 22] = (0.90, 0.89, 0.86)
    elif pattern == "dots":
        across, down = x % 48 - 24, (y + 24 * (x // 48 % 2)) % 48 - 24
        surface[across**2 + down**2 < 49] = (0.95, 0.90, 0.88)
    elif pattern == "ribs":
        surface *= (1 + 0.10 * np.sin(x / 3.2))[..., None]
        surface[(y > HEIGHT * 0.62)] *= 0.86
    folds = _smooth_noise(rng, 70) * 0.035 + _smooth_noise(rng, 24) * 0.012
    weave = rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32) * 0.018
    edge = 0.72 + 0.28 * np.clip((_blurred(mask, 12) - 0.5) * 2, 0, 1)
    light = (1.04 - 0.10 * (x + y) / (WIDTH + HEIGHT)) * edge + folds + weave
    seam = np.clip(_blurred(mask, 7) - _blurred(mask, 5), 0, 1) * 1.5
    return np.asarray(surface * (light - seam)[..., None], np.float32)


@cache
def _wall(item: str) -> Floats:
    rng = np.random.default_rng(100 + ITEMS.index(item))
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    glow = 0.90 - 0.10 * (((x - WIDTH * 0.42) / WIDTH) ** 2 + ((y - HEIGHT * 0.36) / HEIGHT) ** 2)
    glow += _smooth_noise(rng, 120) * 0.006 + rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32) * 0.006
    return np.asarray(glow[..., None] * np.array([1.0, 0.99, 0.97], np.float32), np.float32)


def _cluttered_room(rng: np.random.Generator) -> Floats:
    """A patterned rug with books, mugs, cables and clothes lying about."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    u, v = (x + y) / 1.4, (x - y) / 1.4
    tiles = ((u // 46 + v // 46) % 2)[..., None]
    rug = tiles * np.array([0.55, 0.24, 0.18], np.float32) + (1 - tiles) * np.array([0.72, 0.62, 0.44], np.float32)
    rug += (np.sin(u / 7) * np.sin(v / 7) * 0.08 + rng.standard_normal((HEIGHT, WIDTH)) * 0.04)[..., None]
    image = Image.fromarray((np.clip(rug, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    palette = [(212, 180, 60), (60, 130, 160), (190, 80, 60), (235, 230, 220), (70, 70, 74), (110, 150, 90)]
    for i in range(14):
        side = rng.integers(4)
        cx = int(
            rng.choice([rng.integers(0, 110), rng.integers(WIDTH - 110, WIDTH)]) if side < 2 else rng.integers(WIDTH)
        )
        cy = int(
            rng.integers(HEIGHT) if side < 2 else rng.choice([rng.integers(0, 130), rng.integers(HEIGHT - 130, HEIGHT)])
        )
        w, h, fill = int(rng.integers(50, 130)), int(rng.integers(40, 120)), palette[i % len(palette)]
        draw.ellipse([cx - w // 2 + 6, cy - h // 2 + 9, cx + w // 2 + 6, cy + h // 2 + 9], fill=(60, 40, 32))
        if i % 3 == 0:
            draw.ellipse([cx - w // 2, cy - w // 2, cx + w // 2, cy + w // 2], fill=fill, outline=(40, 36, 34), width=3)
            draw.ellipse([cx - w // 3, cy - w // 3, cx + w // 3, cy + w // 3], fill=(74, 48, 34))
        elif i % 3 == 1:
            draw.rectangle(
                [cx - w // 2, cy - h // 2, cx + w // 2, cy + h // 2], fill=fill, outline=(30, 30, 30), width=2
            )
            for line in range(3):
                top = cy - h // 4 + 12 * line
                draw.line([cx - w // 3, top, cx + w // 3, top], fill=(40, 40, 40), width=3)
        else:
            draw.arc([cx - w, cy - h, cx + w, cy + h], 20, 300, fill=(24, 24, 26), width=6)
    return np.asarray(image, np.float32) / 255


def _compose(item: str, wall: Floats) -> Image.Image:
    mask = _mask(item)
    scene = wall * (1 - 0.32 * _shadow(mask))[..., None]
    scene = scene * (1 - mask[..., None]) + _fabric(item) * mask[..., None]
    return Image.fromarray((np.clip(scene, 0, 1) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))


def _placed(item: str, scale: float, angle: float, dx: int, dy: int) -> Image.Image:
    """Draw the item larger, smaller, turned or moved before the same wall."""
    rgba = np.dstack([np.clip(_fabric(item), 0, 1), _mask(item)])
    layer = Image.fromarray((rgba * 255).astype(np.uint8), "RGBA")
    layer = layer.resize((int(WIDTH * scale), int(HEIGHT * scale)), Image.Resampling.LANCZOS)
    layer = layer.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    left, top = (WIDTH - layer.width) // 2 + dx, (HEIGHT - layer.height) // 2 + dy
    full = Image.new("RGBA", (WIDTH, HEIGHT))
    full.paste(layer, (left, top))
    alpha = np.asarray(full, np.float32)[..., 3] / 255
    lit = _wall(item) * (1 - 0.32 * _shadow(alpha))[..., None]
    wall = Image.fromarray((np.clip(lit, 0, 1) * 255).astype(np.uint8))
    wall.paste(full, (0, 0), full)
    return wall.filter(ImageFilter.GaussianBlur(0.6))


def _graded(
    image: Image.Image, rng: np.random.Generator, gains: tuple[float, float, float], noise: float
) -> Image.Image:
    values = np.asarray(image, np.float32) / 255 * np.array(gains, np.float32)
    values += rng.standard_normal(values.shape).astype(np.float32) * noise
    return Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))


def _good(item: str, rng: np.random.Generator) -> Image.Image:
    return _compose(item, _wall(item))


def _dark(item: str, rng: np.random.Generator) -> Image.Image:
    return _graded(_good(item, rng), rng, (0.24, 0.23, 0.25), 0.02)


def _blurred_photo(item: str, rng: np.random.Generator) -> Image.Image:
    return _good(item, rng).filter(ImageFilter.GaussianBlur(11))


def _cluttered(item: str, rng: np.random.Generator) -> Image.Image:
    return _compose(item, _cluttered_room(rng))


def _cut_off(item: str, rng: np.random.Generator) -> Image.Image:
    return _placed(item, 1.45, 0, 190, 230)


def _tiny(item: str, rng: np.random.Generator) -> Image.Image:
    return _placed(item, 0.26, 0, 60, 90)


def _tilted(item: str, rng: np.random.Generator) -> Image.Image:
    return _placed(item, 0.9, 24, 0, 0)


def _color_cast(item: str, rng: np.random.Generator) -> Image.Image:
    return _graded(_good(item, rng), rng, (1.02, 0.78, 0.38), 0.01)


VERSIONS: dict[str, Callable[[str, np.random.Generator], Image.Image]] = {
    "good": _good,
    "dark": _dark,
    "blurred": _blurred_photo,
    "cluttered": _cluttered,
    "cut-off": _cut_off,
    "tiny": _tiny,
    "tilted": _tilted,
    "colour-cast": _color_cast,
}


def draw_samples(folder: Path) -> list[Path]:
    """Draw every item in every version as `<item>-<version>.jpg` into `folder`; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, item in enumerate(ITEMS):
        for version, draw in VERSIONS.items():
            path = folder / f"{item}-{version}.jpg"
            draw(item, np.random.default_rng(number)).save(path, quality=90)
            paths.append(path)
    return paths

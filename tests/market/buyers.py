"""SIMULATED listings, buyers and their behaviour, with preferences that are known because we chose them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.demo.samples import draw_samples

PAGE = 20
WORDS = ("blue", "cotton", "summer", "vintage", "black", "soft")
QUALITY_EFFECT = 1.6
"""Change of the log odds of a click, and of a purchase after it, from the worst photo to the best."""
_FLAW_QUALITY = {"good": 0.95}
_EXAMINED = np.arange(1, PAGE + 1) ** -0.7
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Listing:
    listing_id: str
    photo: Path
    quality: float
    """What buyers think of the photo, 0..1: the judges' label where there is one. The pipeline does not know it."""
    category: str
    title: str
    price: float
    seller_id: str
    new_seller: bool


def listings(count: int, photos: Path, labels: Path, drawn: Path, seed: int) -> list[Listing]:
    """Return listings with the labelled photos of `photos`, or with drawn ones where those are not there."""
    rng = np.random.default_rng(seed)
    files = _labelled(photos, labels) or _drawn(drawn)
    picked = [files[i] for i in rng.permutation(len(files))]
    picked = (picked * (count // len(picked) + 1))[:count]
    sellers = rng.zipf(1.6, count) % 60
    found = []
    for number, (path, category, quality) in enumerate(picked):
        words = [WORDS[i] for i in rng.choice(len(WORDS), 2, replace=False)]
        price = float(np.exp(rng.normal(3.0, 0.4)).round(2))
        title = f"{category} {' '.join(words)}"
        seller = int(sellers[number])
        found.append(Listing(f"l{number}", path, quality, category, title, price, f"s{seller}", seller % 5 == 0))
    return found


def _labelled(photos: Path, labels: Path) -> list[tuple[Path, str, float]]:
    file = labels / "validation.jsonl"
    if not file.is_file() or not photos.is_dir():
        return []
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [(photos / row["photo"], row["category"], (row["score"] - 1) / 4) for row in rows]


def _drawn(folder: Path) -> list[tuple[Path, str, float]]:
    found = []
    for path in draw_samples(folder):
        item, _, version = path.stem.rpartition("-")
        found.append((path, item.replace("-", ""), _FLAW_QUALITY.get(version, 0.3)))
    return found


@dataclass(frozen=True)
class Choice:
    """What one buyer did with one page."""

    seen: int
    """How many results, from the first, were on the screen."""
    clicked: list[int]
    bought: list[int]


class Buyers:
    """Buyers who differ in how much they buy, look from the top, and like good photos and low prices."""

    def __init__(self, count: int, listings: list[Listing], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.eager = self._rng.gamma(1.5, 1 / 1.5, count)
        """Of each buyer: a factor of the chance to buy, 1 on average."""
        self.phone = self._rng.random(count) < 0.6
        self._appeal = np.array([QUALITY_EFFECT * (one.quality - 0.5) - (np.log(one.price) - 3.0) for one in listings])

    def searches(self, mean: float) -> NDArray[np.int64]:
        """Return how often each buyer searches in a period."""
        return self._rng.poisson(mean, len(self.eager))

    def look(self, buyer: int, page: NDArray[np.int64]) -> Choice:
        """Return what a buyer does with the listings of a page, by their numbers."""
        rng, size = self._rng, len(page)
        appeal = self._appeal[page]
        seen = int(min(size, rng.geometric(0.08)))
        examined = (np.arange(size) < seen) & (rng.random(size) < _EXAMINED[:size])
        clicked = examined & (rng.random(size) < 1 / (1 + np.exp(2.2 - appeal)))
        chance = np.minimum(1.0, 0.35 * self.eager[buyer] * np.exp(0.5 * appeal))
        bought = clicked & (rng.random(size) < chance)
        return Choice(seen, np.flatnonzero(clicked).tolist(), np.flatnonzero(bought).tolist())

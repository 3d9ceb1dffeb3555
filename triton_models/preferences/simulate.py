"""SIMULATED search logs, made from known preferences, so that a test can show that pairs recover them.

A buyer looks at the results from the top and stops somewhere; opens a result that was seen with a chance that rises
with the photo's quality, its relevance, and how cheap it is. Nothing here is evidence of how people behave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

CATEGORIES = ("t-shirt", "dress", "shoes", "pants", "hat")
_WORDS = ("blue", "cotton", "new", "summer", "size", "m", "l", "vintage", "black", "soft", "brand", "casual")


@dataclass(frozen=True)
class Simulated:
    """A SIMULATED log (columns as `pairs.COLUMNS`) and what it was made from: quality of each photo, 0..1."""

    log: pl.DataFrame
    quality: dict[str, float]


def simulate_log(
    searches: int,
    listings: int = 2000,
    page: int = 20,
    quality_effect: float = 3.0,
    seed: int = 0,
) -> Simulated:
    """Return `searches` x `page` impressions.

    `quality_effect` is the change of a click's log odds from the worst photo to the best.
    """
    rng = np.random.default_rng(seed)
    quality = rng.random(listings)
    category = rng.integers(0, len(CATEGORIES), listings)
    price = np.exp(rng.normal(3.0, 0.4, listings)).round(2)
    titles = np.array(
        [f"{CATEGORIES[c]} {' '.join(rng.choice(_WORDS, 3, replace=False))}" for c in category], dtype=object
    )
    shown = _pages(rng, category, searches, page)
    relevance = rng.normal(0, 0.5, shown.shape)
    # Search puts relevant items first; quality plays no part in it yet.
    order = np.argsort(-relevance, axis=1)
    shown, relevance = np.take_along_axis(shown, order, 1), np.take_along_axis(relevance, order, 1)
    positions = np.broadcast_to(np.arange(1, page + 1), shown.shape)
    seen = positions <= rng.geometric(0.08, (searches, 1))
    cheap = -(np.log(price[shown]) - 3.0)
    odds = -3.5 + quality_effect * quality[shown] + relevance + cheap
    clicked = seen & (rng.random(shown.shape) < 1 / (1 + np.exp(-odds)) * positions**-0.5)
    bought = clicked & (rng.random(shown.shape) < 0.1)
    flat = shown.ravel()
    log = pl.DataFrame(
        {
            "search_id": np.repeat([f"q{i}" for i in range(searches)], page),
            "listing_id": np.array([f"l{i}" for i in range(listings)], dtype=object)[flat],
            "photo": np.array([f"p{i}.jpg" for i in range(listings)], dtype=object)[flat],
            "category": np.array(CATEGORIES, dtype=object)[category[flat]],
            "title": titles[flat],
            "price": price[flat],
            "position": positions.ravel().astype(np.int64),
            "seen": seen.ravel(),
            "clicked": clicked.ravel(),
            "bought": bought.ravel(),
        }
    )
    return Simulated(log, {f"p{i}.jpg": float(q) for i, q in enumerate(quality)})


def _pages(rng: np.random.Generator, category: NDArray[np.int64], searches: int, page: int) -> NDArray[np.int64]:
    """Return the listings that each search finds: `page` different ones of one category."""
    members = [np.flatnonzero(category == c) for c in range(len(CATEGORIES))]
    asked = rng.integers(0, len(CATEGORIES), searches)
    shown = np.empty((searches, page), np.int64)
    for c, of_category in enumerate(members):
        rows = np.flatnonzero(asked == c)
        start = rng.integers(0, len(of_category), (len(rows), 1))
        step = rng.integers(1, max(2, len(of_category) // page), (len(rows), 1))
        shown[rows] = of_category[(start + step * np.arange(page)) % len(of_category)]
    return shown

"""Puts results that are fetched already in a better order: bounded, neutral, and able to say why."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Result(NamedTuple):
    """One result as search ranked it."""

    listing_id: str
    relevance: float
    """Any scale; larger is more relevant."""
    score: float | None = None
    """The image score, 0..1; None: unscored."""
    new_seller: bool = False
    """May be explored."""


@dataclass(frozen=True)
class Rules:
    """How much a photo may do."""

    max_places: int = 3
    """No result moves by more than this many places."""
    weight: float = 0.2
    """Share of the relevance, at most, that a photo adds or takes: from a score of `neutral` to 1."""
    neutral: float = 0.5
    """The score of an unscored result, which neither adds nor takes."""
    band: float = 0.25
    """Results whose relevance is below another's by more than this share of it never come before it."""
    explore: float = 0.0
    """Chance that a new seller's result is treated as one with the best photo; 0: no exploration."""

    def __post_init__(self) -> None:
        if self.max_places < 0 or not 0 <= self.weight <= 1 or not 0 <= self.band <= 1 or not 0 <= self.explore <= 1:
            raise ValueError(f"{self}: max_places at least 0; weight, band and explore 0..1")


class Ranked(NamedTuple):
    """A result in its new place."""

    result: Result
    place: int
    """From 1."""
    was: int
    """Its place in search's own order, from 1."""
    effect: float
    """What the photo added to the relevance, as a share of it."""
    explored: bool

    def explain(self) -> str:
        """Say in a sentence why the result stands where it stands."""
        moved = self.was - self.place
        where = "stays" if moved == 0 else f"moves {'up' if moved > 0 else 'down'} {abs(moved)}"
        if self.explored:
            why = "a new seller, shown for once as if the photo were the best"
        elif self.result.score is None:
            why = "no score, so the photo adds nothing"
        else:
            why = f"photo {self.result.score:.2f} changes the relevance {self.result.relevance:g} by {self.effect:+.1%}"
        return f"{self.result.listing_id} {where}, to place {self.place}: {why}"


def rerank(results: Sequence[Result], rules: Rules | None = None, search_id: str = "") -> list[Ranked]:
    """Return the results in their new order.

    The order is the best by relevance * (1 + weight * (score - neutral) / max(neutral, 1 - neutral)) among those in
    which no result moves by more than `max_places`, and none stands before one that is more relevant by more than
    `band`. Ties keep search's order.

    Args:
        results: in search's own order; relevance above 0.
        search_id: makes exploration repeatable: the same search shows the same page again.
    """
    rules = rules or Rules()
    explored = [r.new_seller and _chance(search_id, r.listing_id) < rules.explore for r in results]
    effects = [_effect(1.0 if lucky else r.score, rules) for r, lucky in zip(results, explored, strict=True)]
    values = [r.relevance * (1 + effect) for r, effect in zip(results, effects, strict=True)]
    order = _bounded_order(results, values, rules)
    return [Ranked(results[i], place, i + 1, effects[i], explored[i]) for place, i in enumerate(order, 1)]


def _effect(score: float | None, rules: Rules) -> float:
    if score is None:
        return 0.0
    return rules.weight * (score - rules.neutral) / max(rules.neutral, 1 - rules.neutral)


def _chance(search_id: str, listing_id: str) -> float:
    digest = hashlib.sha256(f"{search_id}/{listing_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _bounded_order(results: Sequence[Result], values: list[float], rules: Rules) -> list[int]:
    """Fill the places from the first: the best of those that may stand there, unless one must not wait longer.

    A result may stand at a place when it is within `max_places` of its own, and when nothing that search had before it
    and that is left is more relevant by more than the band. The first of those left always may.
    """
    count, k = len(results), rules.max_places
    left = [True] * count
    order: list[int] = []
    first = 0
    for place in range(count):
        while not left[first]:
            first += 1
        chosen = first
        if place - first < k:
            most = 0.0
            for i in range(first, min(count, place + k + 1)):
                if not left[i]:
                    continue
                if results[i].relevance >= most * (1 - rules.band) and values[i] > values[chosen]:
                    chosen = i
                most = max(most, results[i].relevance)
        left[chosen] = False
        order.append(chosen)
    return order

"""Score distributions, and how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 10
_FLOOR = 1e-4
_MODERATE, _LARGE = 0.1, 0.25


@dataclass(frozen=True)
class Drift:
    """Two distributions of scores over `BINS` equal bins of 0..1."""

    now: tuple[float, ...]
    """Shares, which sum to 1; all 0 without scores."""
    before: tuple[float, ...]
    now_count: int
    before_count: int

    @property
    def psi(self) -> float | None:
        """The population stability index; None where a side has no scores."""
        if not self.now_count or not self.before_count:
            return None
        return psi(self.now, self.before)

    @property
    def level(self) -> str:
        """none, moderate or large, by the usual limits of the index, 0.1 and 0.25; unknown without it."""
        if self.psi is None:
            return "unknown"
        return "none" if self.psi < _MODERATE else "moderate" if self.psi < _LARGE else "large"


def drift(now: Sequence[float], before: Sequence[float]) -> Drift:
    """Compare scores, 0..1."""
    return Drift(_shares(now), _shares(before), len(now), len(before))


def _shares(scores: Sequence[float]) -> tuple[float, ...]:
    counts, _ = np.histogram(scores, bins=BINS, range=(0, 1))
    return tuple((counts / max(1, len(scores))).tolist())


def psi(now: Sequence[float], before: Sequence[float]) -> float:
    """Return the population stability index, sum((now - before) * ln(now / before)) over the bins.

    Empty bins count as a share of 0.0001. Siddiqi, "Credit Risk Scorecards", 2006.
    """
    a, b = np.maximum(now, _FLOOR), np.maximum(before, _FLOOR)
    return float(((a - b) * np.log(a / b)).sum())

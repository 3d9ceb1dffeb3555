"""What a run may do: the waits that the server asks for, and the money."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

_LONGEST_S = 600.0
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")


def seconds(text: str) -> float | None:
    """Return a header's duration in seconds: `2`, `1.5`, `6m0s`, `20ms`, or an HTTP date; None if it is none."""
    try:
        wait = float(text)
    except ValueError:
        found = _DURATION.fullmatch(text.strip())
        if found and any(found.groups()):
            hours, minutes, whole, thousandths = (float(part or 0) for part in found.groups())
            wait = hours * 3600 + minutes * 60 + whole + thousandths / 1000
        else:
            try:
                wait = parsedate_to_datetime(text).timestamp() - time.time()
            except (TypeError, ValueError, OverflowError):
                return None
    return min(max(wait, 0.0), _LONGEST_S) if wait == wait else None


class RateLimit:
    """Holds every request back until the time that the server's headers name."""

    def __init__(self) -> None:
        self._until = 0.0

    async def wait(self) -> None:
        while (left := self._until - time.monotonic()) > 0:  # noqa: ASYNC110 - it may move while we wait
            await asyncio.sleep(left)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Read `retry-after` and `x-ratelimit-*`: when nothing is left, wait until it is reset."""
        used_up = [kind for kind in ("requests", "tokens") if headers.get(f"x-ratelimit-remaining-{kind}") == "0"]
        for text in (headers.get("retry-after"), *(headers.get(f"x-ratelimit-reset-{kind}") for kind in used_up)):
            if text and (wait := seconds(text)) is not None:
                self._until = max(self._until, time.monotonic() + wait)


@dataclass
class Budget:
    """Money of one run: `limit` (None: no limit), prices per million tokens. Spending is reserved before it is asked.

    A request is reserved at the dearest one so far, the first at `max_tokens` of answer, so that the limit holds
    unless one request costs more than any before it.
    """

    limit: float | None
    price_in: float
    price_out: float
    max_tokens: int = 1000
    spent: float = 0.0
    _reserved: float = 0.0
    _dearest: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    def reserve(self) -> float | None:
        """Return the amount that is now reserved for one request; None: it would go over the limit."""
        amount = self._dearest or (4000 * self.price_in + self.max_tokens * self.price_out) / 1e6
        if self.limit is not None and self.spent + self._reserved + amount > self.limit:
            return None
        self._reserved += amount
        return amount

    def release(self, amount: float) -> None:
        self._reserved -= amount

    def pay(self, tokens_in: int, tokens_out: int) -> float:
        """Count what an answer used; return its cost."""
        cost = (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6
        self.spent += cost
        self.input_tokens += tokens_in
        self.output_tokens += tokens_out
        self._dearest = max(self._dearest, cost)
        return cost

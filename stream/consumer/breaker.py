"""A circuit breaker: while a service is away, nobody asks it but one probe at a time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stream.consumer.waiting import waiting

Answer = TypeVar("Answer")
log = logging.getLogger("image_score.consumer")


class CircuitBreaker:
    """Wraps calls of one service, which may raise `errors` while it is away.

    The first such failure opens the circuit. While it is open, calls wait; one at a time asks again, after a wait
    that doubles up to `longest_s`. The first success closes it, and all go on. A call thus never fails for an outage.
    """

    def __init__(self, name: str, errors: tuple[type[Exception], ...], longest_s: float = 2.0) -> None:
        self.name = name
        self.opened = 0
        """How often the circuit opened."""
        self._errors = errors
        self._longest_s = longest_s
        self._closed: asyncio.Event = asyncio.Event()
        self._closed.set()

    @property
    def is_open(self) -> bool:
        return not self._closed.is_set()

    async def call(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer of `ask`, which may be called several times; waits through an outage."""
        while True:
            if self.is_open:
                with waiting(f"{self.name} (away)"):
                    await self._closed.wait()
            try:
                return await ask()
            except self._errors as error:
                if not self.is_open:
                    return await self._probe(ask, error)

    async def _probe(self, ask: Callable[[], Awaitable[Answer]], error: Exception) -> Answer:
        """Ask until there is an answer; the others wait meanwhile."""
        self._closed.clear()
        self.opened += 1
        since = time.monotonic()
        log.warning("%s is away (%s): waiting for it", self.name, error)
        wait_s = 0.05
        try:
            while True:
                with waiting(f"{self.name} (away)"):
                    await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
                    wait_s = min(2 * wait_s, self._longest_s)
                    try:
                        return await ask()
                    except self._errors:
                        continue
        finally:  # also when the probe is cancelled or fails otherwise: another call finds out
            log.warning("%s: asking it again after %.1f s", self.name, time.monotonic() - since)
            self._closed.set()

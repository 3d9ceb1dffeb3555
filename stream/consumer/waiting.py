"""What each record in flight waits for, so that a stuck one can say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_waits: ContextVar[list[str] | None] = ContextVar("waits", default=None)


def begin() -> list[str]:
    """Start to note the waits of the running task and of those it starts; return the list of open ones."""
    waits: list[str] = []
    _waits.set(waits)
    return waits


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what the record that is being handled waits for while the block runs."""
    waits = _waits.get()
    if waits is None:
        yield
        return
    waits.append(what)
    try:
        yield
    finally:
        waits.remove(what)

"""The photos of each visitor: in memory, until the session ends."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from stream.studio.scoring import StudioPhoto


@dataclass
class Session:
    """What one visitor dropped in."""

    photos: dict[str, StudioPhoto] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Files that could not be scored, and the kind of the error; shown once."""
    listing: str = ""
    """The listing of the running stack that the photos are from; empty: they were uploaded."""
    used_at: float = field(default_factory=time.monotonic)

    @property
    def held(self) -> int:
        """Bytes of its photos."""
        return sum(photo.held for photo in self.photos.values())


class Sessions:
    """Sessions by their cookie: one that is idle for `minutes` ends; over `memory` bytes, the idlest end first."""

    def __init__(self, minutes: float, memory: int) -> None:
        self._idle_s = minutes * 60
        self._memory = memory
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def get(self, key: str) -> Session | None:
        """Return a session that has not ended, and count it as used now."""
        self.sweep()
        session = self._sessions.get(key)
        if session is not None:
            session.used_at = time.monotonic()
            self._sessions.move_to_end(key)
        return session

    def open(self, key: str) -> Session:
        """Return the session of a cookie; begins one."""
        found = self.get(key)
        if found is None:
            found = self._sessions[key] = Session()
        return found

    def end(self, key: str) -> None:
        """Forget a visitor's photos."""
        self._sessions.pop(key, None)

    def sweep(self) -> None:
        """End what is idle for too long, and what there is no memory for; the session used last stays."""
        now = time.monotonic()
        held = sum(session.held for session in self._sessions.values())
        while self._sessions:
            key, session = next(iter(self._sessions.items()))
            crowded = held > self._memory and len(self._sessions) > 1
            if now - session.used_at <= self._idle_s and not crowded:
                return
            held -= session.held
            del self._sessions[key]

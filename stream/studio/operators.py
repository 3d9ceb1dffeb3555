"""The operators' page: the running pipeline, live by server-sent events, and its dead letters with replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from stream import dlq
from stream.errors import ImageScoreError
from stream.settings import Settings
from stream.studio.guard import Guard, Refused
from stream.studio.live import SPAN_S, LiveFeed, Snapshot
from stream.studio.pages import Pages
from stream.studio.words import Words

_EVERY_S = 1.0
_LETTERS = 50
"""Dead letters that are listed; the rest are counted."""
_CHART = 100
"""Height of charts, in their own units."""


class Operators:
    """The routes, over one live feed."""

    def __init__(self, settings: Settings, guard: Guard, pages: Pages, feed: LiveFeed, end: asyncio.Event) -> None:
        self._settings = settings
        self._guard = guard
        self._pages = pages
        self._feed = feed
        self._end = end

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/operators")
        router.get("")(self.show)
        router.get("/live", response_class=EventSourceResponse)(self.live)
        router.post("/replay")(self.replay)
        return router

    def _check(self, request: Request) -> str:
        session = self._guard.session_of(request)
        if not self._guard.is_operator(request, session):
            raise Refused("refused_operator", 403)
        return session

    async def show(self, request: Request, token: str = "", done: int | None = None) -> Response:
        """Show the page; the printed token lets an operator in, and then leaves the address."""
        if token:
            session = self._guard.session_of(request)
            entered = RedirectResponse("/operators", 303)
            self._guard.let_operator_in(request, entered, session, token)
            return entered
        self._check(request)
        values = self._values(await self._feed.snapshot())
        return self._pages.page("operators.html", request, done=done, **values)

    async def live(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        """Send the figures every second, and the dead letters when they change; each is a part of the page."""
        if not self._guard.is_operator(request, self._guard.session_of(request)):
            return
        words = self._pages.words(request)
        letters = ""
        token = self._guard.token(self._guard.session_of(request))
        while not self._end.is_set():
            values = self._values(await self._feed.snapshot())
            yield ServerSentEvent(event="figures", raw_data=self._pages.part("_figures.html", words, **values))
            newest = self._pages.part("_letters.html", words, token=token, **values)
            if newest != letters:
                letters = newest
                yield ServerSentEvent(event="letters", raw_data=letters)
            try:
                async with asyncio.timeout(_EVERY_S):
                    await self._end.wait()
            except TimeoutError:
                continue

    async def replay(
        self, request: Request, token: Annotated[str, Form()], place: Annotated[str, Form()] = ""
    ) -> Response:
        """Replay one dead letter, or without a place all that are open."""
        self._guard.check_token(self._check(request), token)
        chosen = dlq.Filter(places=(place,) if place else ())
        try:
            done = await asyncio.to_thread(dlq.replay, self._settings, chosen)
        except ImageScoreError as error:
            raise Refused("refused_replay", 503) from error
        return RedirectResponse(f"/operators?done={done.replayed}", 303)

    def _values(self, now: Snapshot) -> dict[str, Any]:
        most = max((*now.history, 1))
        return {
            "now": now,
            "letters": now.letters[:_LETTERS],
            "span": SPAN_S,
            "chart": _CHART,
            "line": " ".join(f"{x},{_CHART - _CHART * n / most:.1f}" for x, n in enumerate(now.history)),
            "most": most,
            "tallest": max((*now.drift.now, *now.drift.before, 0.01)),
        }


def figure(words: Words, value: float | None, digits: int = 0) -> str:
    """Return a figure for people; a dash where it is not known."""
    return "-" if value is None else words.number(value, digits)

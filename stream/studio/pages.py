"""Renders the pages, in the visitor's language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stream.studio.guard import SESSION as SESSION_COOKIE
from stream.studio.guard import Guard
from stream.studio.words import Words, name_of, wanted_language
from stream.tips import languages

STATIC = Path(__file__).parent / "static"
_LANGUAGE = "studio_language"
"""Cookie with the language that a visitor chose."""


class Pages:
    """The templates."""

    def __init__(self, guard: Guard, **always: Any) -> None:
        self._guard = guard
        folder = FileSystemLoader(Path(__file__).parent / "templates")
        self._templates = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        self._templates.globals |= always

    def words(self, request: Request) -> Words:
        """Return the texts in the language that this visitor wants."""
        chosen = request.query_params.get("lang") or request.cookies.get(_LANGUAGE, "")
        return Words(wanted_language(chosen, request.headers.get("accept-language", "")))

    def part(self, template: str, words: Words, **values: Any) -> str:
        """Render a part of a page."""
        return self._templates.get_template(template).render(t=words, **values)

    def page(self, template: str, request: Request, status: int = 200, **values: Any) -> HTMLResponse:
        """Render a page; gives a new visitor a session, and keeps the language they chose."""
        session = self._guard.session_of(request)
        words = self.words(request)
        others = [(language, name_of(language)) for language in languages()]
        html = self.part(
            template,
            words,
            token=self._guard.token(session),
            operator=self._guard.is_operator(request, session),
            path=request.url.path,
            languages=others,
            **values,
        )
        response = HTMLResponse(html, status)
        if request.cookies.get(SESSION_COOKIE) != session:
            self._guard.set_cookie(request, response, SESSION_COOKIE, session)
        if request.query_params.get("lang") in languages():
            self._guard.set_cookie(request, response, _LANGUAGE, words.language)
        return response

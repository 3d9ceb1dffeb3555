"""Against hostile visitors: strict headers, tokens on every form, and limits."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from hashlib import sha256

from fastapi import Request, Response
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from stream.errors import SettingsError
from stream.settings import Settings

SESSION, OPERATOR = "studio_session", "studio_operator"
"""Cookies."""
_KEY_LENGTH = 43
_WRONG_TOKENS = parse("10/minute")


class Refused(Exception):
    """A request that is not answered: `kind` names the text that says why, `status` is HTTP's."""

    def __init__(self, kind: str, status: int) -> None:
        self.kind, self.status = kind, status
        super().__init__(kind)


class Guard:
    """Knows who sends a request, and whether it may."""

    def __init__(self, settings: Settings) -> None:
        self._secret = secrets.token_bytes(32)
        self._embedders = settings.studio_embed.split()
        self._uploads = _rate(settings.studio_uploads)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self.operator_token = settings.studio_operator_token.get_secret_value() or secrets.token_urlsafe(24)

    def session_of(self, request: Request) -> str:
        """Return the key of the visitor's session: their cookie's, or a new one."""
        key = request.cookies.get(SESSION, "")
        return key if len(key) == _KEY_LENGTH and key.isascii() else secrets.token_urlsafe(32)

    def token(self, session: str) -> str:
        """Return what the forms of a session carry, so that no other site's page can send them."""
        return self._sign("form", session)

    def check_token(self, session: str, given: str) -> None:
        """Raise Refused unless a form carries its session's token."""
        if not hmac.compare_digest(self.token(session).encode(), given.encode()):
            raise Refused("refused_form", 403)

    def check_rate(self, request: Request, cost: int = 1) -> None:
        """Raise Refused when an address sends too many photos."""
        if not self._limiter.hit(self._uploads, "upload", _address(request), cost=cost):
            raise Refused("refused_rate", 429)

    def is_operator(self, request: Request, session: str) -> bool:
        given = request.cookies.get(OPERATOR, "")
        return hmac.compare_digest(self._sign("operator", session).encode(), given.encode())

    def let_operator_in(self, request: Request, response: Response, session: str, given: str) -> None:
        """Give the cookies of operators for their token; raise Refused for another."""
        if not self._limiter.test(_WRONG_TOKENS, "token", _address(request)):
            raise Refused("refused_rate", 429)
        if not hmac.compare_digest(self.operator_token.encode(), given.encode()):
            self._limiter.hit(_WRONG_TOKENS, "token", _address(request))
            raise Refused("refused_operator", 403)
        self.set_cookie(request, response, SESSION, session)
        self.set_cookie(request, response, OPERATOR, self._sign("operator", session))

    def set_cookie(self, request: Request, response: Response, name: str, value: str) -> None:
        """Set a cookie that no script reads and, unless the page may be embedded, no other site's page sends."""
        secure = request.url.scheme == "https" or bool(self._embedders)
        response.set_cookie(
            name, value, httponly=True, secure=secure, samesite="none" if self._embedders else "lax", path="/"
        )

    async def headers(self, request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        """Answer with headers that let the page load nothing but its own files, and keep nothing in caches."""
        response = await proceed(request)
        rules = {"img-src": "'self'", "style-src": "'self'", "script-src": "'self'", "connect-src": "'self'"}
        rules |= {"form-action": "'self'", "base-uri": "'none'", "default-src": "'none'"}
        rules["frame-ancestors"] = " ".join(self._embedders) or "'none'"
        response.headers["Content-Security-Policy"] = "; ".join(f"{name} {value}" for name, value in rules.items())
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    def _sign(self, what: str, session: str) -> str:
        return hmac.new(self._secret, f"{what}:{session}".encode(), sha256).hexdigest()


def _rate(text: str) -> RateLimitItem:
    try:
        return parse(text)
    except ValueError:
        wanted = "give COUNT/second, minute, hour or day, such as 60/minute"
        raise SettingsError(f"studio_uploads: {text!r} is no rate: {wanted}; set IMAGE_SCORE_STUDIO_UPLOADS") from None


def _address(request: Request) -> str:
    return request.client.host if request.client else ""

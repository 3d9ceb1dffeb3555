"""The studio's process: wires the two pages, and serves them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import uvloop
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from stream import kafka
from stream.embedded import EmbeddedStack
from stream.fetch import PhotoFetcher
from stream.http_server import end_of_program, http_server
from stream.inference import TritonModel
from stream.log import log
from stream.settings import Settings
from stream.studio.guard import Guard, Refused
from stream.studio.live import LiveFeed
from stream.studio.operators import Operators, figure
from stream.studio.pages import STATIC, Pages
from stream.studio.scoring import Studio
from stream.studio.sellers import Sellers
from stream.tips import load_policy

_PHOTOS_AT_ONCE = 4
"""A request is at most as large as this many of the largest photos."""
_SWEEP_S = 30.0


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; an embedded Triton starts where no address of one is given."""
    with EmbeddedStack(settings, kafka=False, redis=False) as stack:
        uvloop.run(serve(stack.settings))


async def serve(settings: Settings) -> None:
    """Serve the sellers' page and, with a Kafka, the operators'.

    Raises:
        DependencyError: Triton or Kafka does not answer.
        SettingsError: the port is taken, or a setting of the studio is wrong.
    """
    end = end_of_program()
    async with AsyncExitStack() as stack:
        guard = Guard(settings)
        model = await stack.enter_async_context(TritonModel(settings))
        await model.check()
        fetcher = await stack.enter_async_context(PhotoFetcher(settings))
        feed = None
        if settings.kafka:
            await asyncio.to_thread(kafka.check, settings)
            feed = await stack.enter_async_context(LiveFeed(settings))
        pages = Pages(guard, feed=bool(feed), settings=settings, figure=figure)
        sellers = Sellers(
            settings, guard, pages, Studio(settings, model), load_policy(settings.model_metrics), fetcher, feed
        )
        app = _app(settings, guard, pages)
        app.include_router(sellers.router())
        if feed:
            app.include_router(Operators(settings, guard, pages, feed, end).router())
        sweep = asyncio.create_task(_sweep(sellers))
        stack.callback(sweep.cancel)
        await stack.enter_async_context(http_server(app, settings.studio_port, "studio_port", settings.studio_host))
        _tell(settings, guard, bool(feed))
        await end.wait()


def _app(settings: Settings, guard: Guard, pages: Pages) -> FastAPI:
    limit = _PHOTOS_AT_ONCE * settings.max_photo_bytes + 2**20
    app = FastAPI(openapi_url=None, max_body_size=limit)
    app.middleware("http")(guard.headers)
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    async def refused(request: Request, error: Exception) -> Response:
        kind, status = (error.kind, error.status) if isinstance(error, Refused) else ("refused_input", 422)
        return pages.page("refused.html", request, status, kind=kind)

    async def http_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {404: "refused_page", 405: "refused_page", 413: "refused_size"}.get(error.status_code, "refused_input")
        return pages.page("refused.html", request, error.status_code, kind=kind)

    app.add_exception_handler(HTTPException, http_refused)
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, refused)
    return app


async def _sweep(sellers: Sellers) -> None:
    """End idle sessions when nobody visits, too."""
    while True:
        await asyncio.sleep(_SWEEP_S)
        sellers.sessions.sweep()


def _tell(settings: Settings, guard: Guard, operators: bool) -> None:
    host = settings.studio_host if settings.studio_host != "0.0.0.0" else "127.0.0.1"  # noqa: S104 compared, not bound
    address = f"http://{host}:{settings.studio_port}"
    log.info("ready: %s/", address)
    if operators:
        shown = "the given token" if settings.studio_operator_token.get_secret_value() else guard.operator_token
        log.info("operators: %s/operators?token=%s", address, shown)

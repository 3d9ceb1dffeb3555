"""Liveness and readiness of a consumer over HTTP, for Kubernetes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
from aiohttp import web

from stream.consumer import Health
from stream.errors import SettingsError

_SILENT_S = 60.0


@asynccontextmanager
async def health_server(port: int, health: Callable[[], Health]) -> AsyncIterator[None]:
    """Serve /livez and /readyz on all interfaces while the block runs; 200 or 503, with the facts as JSON.

    Alive: the event loop answers, and the polling thread went round within the last minute.
    Ready: alive, a member of the group, and nothing (an outage of Redis or Triton) holds it up.

    Raises:
        SettingsError: the port is taken.
    """

    async def livez(_: web.Request) -> web.Response:
        facts = health()
        return _answer(facts, facts.silent_s < _SILENT_S)

    async def readyz(_: web.Request) -> web.Response:
        facts = health()
        return _answer(facts, facts.silent_s < _SILENT_S and facts.joined and not facts.holding)

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, port=port).start()
        except OSError as error:
            text = f"health_port: {error.strerror} (got {port}); set IMAGE_SCORE_HEALTH_PORT to a free port"
            raise SettingsError(text) from None
        yield
    finally:
        await runner.cleanup()


def _answer(facts: Health, good: bool) -> web.Response:
    return web.Response(
        body=orjson.dumps(facts._asdict()), status=200 if good else 503, content_type="application/json"
    )

"""A real HTTP server for the tests, in a thread: serves what a test puts there, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from types import TracebackType
from typing import Self

from aiohttp import web


class PhotoHost:
    """`/files/NAME` serves `files`; the other routes are named after what they do."""

    def __init__(self, photo: bytes) -> None:
        self.files: dict[str, bytes] = {"good.jpg": photo}
        self.requests: Counter[str] = Counter()
        self.release = threading.Event()
        self.hanging = False
        """Whether `/files` does not answer."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.address}/{path}"

    def put(self, name: str, data: bytes) -> str:
        """Serve `data` under `name`; return its URL."""
        self.files[name] = data
        return self.url(f"files/{name}")

    @property
    def good(self) -> str:
        return self.url("files/good.jpg")

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release.set()
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._count])
        app.router.add_get("/files/{name}", self._file)
        app.router.add_get("/status/{status}", self._status)
        app.router.add_get("/flaky/{name}", self._flaky)
        app.router.add_get("/late/{name}", self._late)
        app.router.add_get("/redirect", self._redirect)
        app.router.add_get("/loop", self._redirect_loop)
        app.router.add_get("/endless", self._endless)
        app.router.add_get("/gzip", self._gzip)
        app.router.add_get("/hang", self._hang)
        app.router.add_get("/drip", self._drip)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    @web.middleware
    async def _count(self, request: web.Request, handler: web.Handler) -> web.StreamResponse:  # type: ignore[name-defined]
        self.requests[request.path] += 1
        response: web.StreamResponse = await handler(request)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        while self.hanging:  # noqa: ASYNC110 - set from the test's thread
            await asyncio.sleep(0.02)
        if request.match_info["name"] not in self.files:
            raise web.HTTPNotFound
        return web.Response(body=self.files[request.match_info["name"]])

    async def _status(self, request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["status"]))

    async def _flaky(self, request: web.Request) -> web.Response:
        """Answer 503 to the first request for each path, the file afterwards."""
        if self.requests[request.path] == 1:
            return web.Response(status=503)
        return await self._file(request)

    async def _late(self, request: web.Request) -> web.Response:
        """Answer after a second, so that a test knows how many a scorer can do in a given time."""
        await asyncio.sleep(1)
        return await self._file(request)

    async def _redirect(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["to"]})

    async def _redirect_loop(self, _: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/loop"})

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        """Send bytes without a length until the client has enough."""
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"\xff" * 65536)

    async def _gzip(self, _: web.Request) -> web.Response:
        response = web.Response(body=b"0" * 1_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async def _hang(self, _: web.Request) -> web.Response:
        """Answer only when the test sets `release`."""
        while not self.release.is_set():  # noqa: ASYNC110 - set from the test's thread
            await asyncio.sleep(0.02)
        return web.Response(body=self.files["good.jpg"])

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        """Send one byte at a time."""
        response = web.StreamResponse(headers={"Content-Length": "100000"})
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b"x")
            await asyncio.sleep(0.1)
        return response

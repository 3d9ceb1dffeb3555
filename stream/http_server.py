"""Serves an ASGI application while a block runs, and leaves signals to the program around it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from stream.errors import SettingsError
from stream.settings import ENV_PREFIX

_LAST_ANSWERS_S = 5


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def http_server(app: Any, port: int, setting: str, host: str = "") -> AsyncIterator[None]:
    """Serve `app` on `port`; what is under way at the end is finished, if that takes no longer than a few seconds.

    Raises:
        SettingsError: the port cannot be had; names `setting`, which sets it.
    """
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        text = (
            f"{setting}: port {port} cannot be had ({error.strerror}); set {ENV_PREFIX}{setting.upper()} to a free one"
        )
        raise SettingsError(text) from None
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_LAST_ANSWERS_S)
    server = _Server(config)
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def end_of_program() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    return end

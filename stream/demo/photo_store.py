"""A small HTTP photo store for the demo and the tests: serves the files of one folder from memory."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from stream.embedded.server import Server, free_port


class PhotoStore(Server):
    """Serves `photos` (a folder) on a free loopback port, in a child process."""

    name = "photo-store"

    def __init__(self, photos: Path) -> None:
        super().__init__()
        self._photos = photos.resolve()
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"

    def url(self, path: Path) -> str:
        """Return the URL of a file under the folder."""
        relative = path.resolve().relative_to(self._photos)
        return f"http://{self.host}/{quote(relative.as_posix())}"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "stream.demo.photo_store", str(self._photos), str(self.port)]

    def is_ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False


def main(folder: Path, port: int) -> None:
    """Serve every file under `folder` until SIGTERM."""
    photos = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    kept: dict[str, bytes] = {}

    async def photo(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in photos:
            raise web.HTTPNotFound
        if name not in kept:
            kept[name] = photos[name].read_bytes()
        return web.Response(body=kept[name])

    app = web.Application()
    app.router.add_get("/{name:.+}", photo)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

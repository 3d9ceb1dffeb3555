"""The studio's process for tests, and a visitor without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from stream.demo.process import PipelineProcess
from stream.embedded.server import free_port
from stream.settings import Settings

TOKEN = "operators-token"


class StudioProcess(PipelineProcess):
    """`image-score studio` on a port of its own."""

    def __init__(self, settings: Settings, **changes: Any) -> None:
        own = {"studio_port": free_port(), "studio_operator_token": TOKEN} | changes
        self.settings = settings.model_validate(settings.model_dump() | own)
        super().__init__("studio", self.settings)
        self.url = f"http://127.0.0.1:{self.settings.studio_port}"


@contextmanager
def studio(settings: Settings, **changes: Any) -> Iterator[StudioProcess]:
    """Run a studio while the block runs."""
    process = StudioProcess(settings, **changes)
    process.start()
    try:
        process.wait_ready()
        yield process
        assert "Traceback" not in process.log.read_text()
    finally:
        process.stop()


class Visitor:
    """Keeps cookies, as a browser does, and sends the page's forms."""

    def __init__(self, url: str, **headers: str) -> None:
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)

    def page(self, path: str = "/") -> str:
        answer = self.http.get(path, follow_redirects=True)
        assert answer.status_code == 200, answer.text
        return answer.text

    def token(self, path: str = "/") -> str:
        (found, *_) = re.findall(r'name="token" value="([0-9a-f]{64})"', self.page(path))
        return str(found)

    def send(self, path: str, *, page: str = "/", **fields: str) -> httpx.Response:
        return self.http.post(path, data={"token": self.token(page), **fields}, follow_redirects=True)

    def upload(self, *files: tuple[str, bytes], token: str | None = None) -> httpx.Response:
        parts = [("files", file) for file in files]
        data = {"token": self.token() if token is None else token}
        return self.http.post("/photos", data=data, files=parts, follow_redirects=True)

    def upload_files(self, *paths: Path) -> httpx.Response:
        return self.upload(*((path.name, path.read_bytes()) for path in paths))


def photo_paths(page: str) -> list[str]:
    """Return the addresses of the page's photos, in order, without what is after their id."""
    return re.findall(r'data-heat="(/photos/[\w-]+)"', page)

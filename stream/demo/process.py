"""The pipeline's own processes, as children: the scorer and the hints app."""

from __future__ import annotations

import os
import sys

from stream.embedded.server import Server
from stream.settings import Settings, environment


class PipelineProcess(Server):
    """Runs `image-score worker` or `image-score hints` with these settings."""

    def __init__(self, command: str, settings: Settings) -> None:
        self.name = command
        self.grace_s = settings.drain_timeout_s + 5
        super().__init__()
        self._settings = settings

    def command(self) -> list[str]:
        return [sys.executable, "-m", "stream.cli", self.name]

    def environment(self) -> dict[str, str]:
        return {**os.environ, **environment(self._settings)}

    def is_ready(self) -> bool:
        return b"ready: " in self.log.read_bytes()

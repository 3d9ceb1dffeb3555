"""The embedded servers that a command needs: those without an external address in the settings."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.redis import EmbeddedRedis
from stream.embedded.server import Server
from stream.embedded.triton import EmbeddedTriton
from stream.kafka import topics
from stream.settings import Settings


class EmbeddedStack:
    """Context manager; inside it, `settings` holds the address of every server, embedded or external.

    Raises (on entry):
        EmbeddedError: a server could not be started; those already started are stopped.
    """

    def __init__(self, settings: Settings, kafka: bool = True, redis: bool = True, triton: bool = True) -> None:
        self.settings = settings
        self.kafka = EmbeddedKafka([t.topic for t in topics(settings)]) if kafka and not settings.kafka else None
        self.redis = EmbeddedRedis() if redis and not settings.redis else None
        self.triton = EmbeddedTriton(settings.max_pixels) if triton and not settings.triton else None
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        started: list[Server] = [s for s in (self.triton, self.kafka, self.redis) if s is not None]
        with ExitStack() as undo:
            for server in started:
                undo.callback(server.stop)
                server.start()
            for server in started:
                server.wait_ready()
            self._exit = undo.pop_all()
        addresses = {
            "kafka": self.kafka and self.kafka.address,
            "redis": self.redis and self.redis.url,
            "triton": self.triton and self.triton.address,
        }
        self.settings = self.settings.model_copy(update={k: v for k, v in addresses.items() if v})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

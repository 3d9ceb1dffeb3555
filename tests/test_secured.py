"""External servers behind TLS and passwords, real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.embedded.redis import EmbeddedRedis
from stream.embedded.triton import EmbeddedTriton
from stream.errors import DependencyError
from stream.inference import TritonModel
from stream.settings import Settings, load
from stream.store import RecordStore
from tests.test_model import score


class RedisWithPassword(EmbeddedRedis):
    def command(self) -> list[str]:
        return [*super().command(), "--requirepass", "secret"]

    def is_ready(self) -> bool:
        return b"Ready to accept connections" in self.log.read_bytes()


def ping(settings: Settings) -> None:
    async def run() -> None:
        async with RecordStore(settings) as store:
            await store.check()

    asyncio.run(run())


def test_redis_password_comes_from_the_url() -> None:
    server = RedisWithPassword()
    server.start()
    try:
        server.wait_ready()
        ping(load(redis=f"redis://:secret@127.0.0.1:{server.port}/0"))
        with pytest.raises(DependencyError, match=r"redis://:\*\*\*\*\*\*\*\*@127.0.0.1") as refused:
            ping(load(redis=f"redis://:wrong@127.0.0.1:{server.port}/0"))
        assert "wrong" not in str(refused.value).replace("wrong number", "")
    finally:
        server.stop()


class TritonWithTls(EmbeddedTriton):
    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__()
        self._tls = [f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}", "--grpc-use-ssl=true"]

    def command(self) -> list[str]:
        return [*super().command(), *self._tls]


@pytest.fixture(scope="module")
def secured_triton(certificate: tuple[Path, Path]) -> Iterator[str]:
    server = TritonWithTls(*certificate)
    server.start()
    server.wait_ready()
    yield server.address
    server.stop()


def test_triton_over_tls(secured_triton: str, certificate: tuple[Path, Path], photo: bytes) -> None:
    trusted = load(triton=secured_triton, triton_tls=True, triton_ssl_ca=str(certificate[0]))
    assert 0 < score(trusted, photo) < 1


@pytest.mark.parametrize("tls", [True, False])
def test_triton_with_an_unknown_certificate_is_not_trusted(secured_triton: str, tls: bool) -> None:
    async def run() -> None:
        async with TritonModel(load(triton=secured_triton, triton_tls=tls)) as model:
            await model.check(timeout_s=2)

    with pytest.raises(DependencyError, match="does not answer"):
        asyncio.run(run())

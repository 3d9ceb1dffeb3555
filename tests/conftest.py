"""Real servers for the tests: one embedded stack for the whole run, and a photo host that misbehaves on demand."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from stream.demo.samples import draw_samples
from stream.embedded import EmbeddedStack
from stream.settings import Settings, load
from tests import real_kafka as real_kafka_module
from tests.photo_host import PhotoHost
from tests.pipeline import Pipeline
from tests.real_kafka import RealKafka
from tests.search_server import SearchServer

NO_SKIPS = bool(os.environ.get("IMAGE_SCORE_TEST_NO_SKIPS"))
"""Fail rather than skip where a tool (real Kafka, Go, ...) cannot run."""
SHARED_PHOTOS = Path(os.environ.get("IMAGE_SCORE_PHOTOS", "../shared/photos"))


@pytest.fixture(scope="session", autouse=True)
def _only_our_settings() -> Iterator[None]:
    """The settings of the person who runs the tests must not change what they test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("IMAGE_SCORE_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The drawn photos, by name such as dress-dark."""
    return {path.stem: path for path in draw_samples(tmp_path_factory.mktemp("samples"))}


@pytest.fixture(scope="session")
def photo(samples: dict[str, Path]) -> bytes:
    return samples["t-shirt-good"].read_bytes()


@pytest.fixture(scope="session")
def shared_photos() -> Path:
    if not SHARED_PHOTOS.is_dir():
        pytest.skip(f"no labelled photos at {SHARED_PHOTOS}: set IMAGE_SCORE_PHOTOS to a folder that has them")
    return SHARED_PHOTOS


@pytest.fixture(scope="session")
def stack() -> Iterator[EmbeddedStack]:
    with EmbeddedStack(load()) as stack:
        yield stack


@pytest.fixture(scope="session")
def real_kafka() -> Iterator[RealKafka]:
    """One real broker for the whole session."""
    need_real_kafka()
    with RealKafka() as kafka:
        yield kafka


def need_real_kafka() -> None:
    """Skip the test, saying why, where real Kafka cannot run and need not."""
    problem = real_kafka_module.missing()
    if problem and not NO_SKIPS:
        pytest.skip(problem)


@pytest.fixture(scope="session")
def search() -> Iterator[SearchServer]:
    """One OpenSearch for the whole session."""
    problem = real_kafka_module.missing().replace("Kafka", "OpenSearch")
    if problem and not NO_SKIPS:
        pytest.skip(problem)
    server = SearchServer()
    server.start()
    server.wait_ready()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kafka_settings(real_kafka: RealKafka) -> Settings:
    """Settings for real Kafka alone."""
    return load(kafka=real_kafka.address, partitions=4)


@pytest.fixture
def real_pipeline(kafka_settings: Settings, stack: EmbeddedStack, host: PhotoHost) -> Iterator[Pipeline]:
    """A pipeline of the test's own on real Kafka; nothing is started yet."""
    servers = {"redis": stack.settings.redis, "triton": stack.settings.triton, "fetch_allow": (host.address,)}
    with Pipeline(kafka_settings.model_copy(update=servers), host, embedded=False) as pipeline:
        yield pipeline


@pytest.fixture(scope="session")
def settings(stack: EmbeddedStack) -> Settings:
    return stack.settings


@pytest.fixture(scope="session")
def host(photo: bytes) -> Iterator[PhotoHost]:
    with PhotoHost(photo) as host:
        yield host


@pytest.fixture(scope="session")
def pipeline(settings: Settings, host: PhotoHost) -> Iterator[Pipeline]:
    """A scorer and a hints app that run for the whole session, on the session's servers."""
    allowed = settings.model_copy(
        update={
            "fetch_allow": (host.address,),
            "fetch_timeout_s": 1.0,
            "fetch_attempts": 2,
            "max_pixels": 2_000_000,
            "retry_delays_s": (0.2, 0.4),
        }
    )
    with Pipeline(allowed, host) as pipeline:
        pipeline.start("worker", "hints")
        yield pipeline


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *files], check=True, capture_output=True
    )
    return folder / "cert.pem", folder / "key.pem"


def jpeg(image: Image.Image, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=92, **options)
    return data.getvalue()

"""A Triton that answers with errors: one photo's fault, or an outage (real Triton, with a model that fails)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import PhotoErrorType
from stream.embedded.triton import EmbeddedTriton
from stream.errors import PhotoRejected
from stream.inference import Prediction, TritonModel
from stream.settings import Settings, load
from tests.failing_model import POISON, failing_repository


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Path]]:
    """Settings for a Triton, and the file that makes it fail."""
    repository, flag = failing_repository(tmp_path_factory.mktemp("model"))
    triton = EmbeddedTriton(repository=repository)
    triton.start()
    triton.wait_ready()
    yield load(triton=triton.address), flag
    triton.stop()


def test_photo_that_the_model_always_fails_on_is_rejected_and_is_no_outage(
    failing: tuple[Settings, Path], photo: bytes
) -> None:
    settings, _ = failing

    async def run() -> None:
        async with TritonModel(settings) as model:
            await model.check()
            photos = [photo, photo + POISON, photo, photo]
            found = await asyncio.gather(*(model.predict(data) for data in photos), return_exceptions=True)
            assert [type(answer) for answer in found] == [Prediction, PhotoRejected, Prediction, Prediction]
            assert isinstance(found[1], PhotoRejected)
            assert found[1].error.type is PhotoErrorType.UNREADABLE
            assert "the model fails on this photo (INTERNAL" in found[1].error.message
            assert model.breaker.opened == 0

    asyncio.run(run())


def test_errors_for_every_photo_are_an_outage_that_is_waited_out(failing: tuple[Settings, Path], photo: bytes) -> None:
    settings, flag = failing

    async def run() -> None:
        async with TritonModel(settings) as model:
            await model.check()
            flag.touch()
            answers = [asyncio.create_task(model.predict(photo)) for _ in range(20)]
            await asyncio.sleep(1)
            assert model.breaker.is_open
            assert not any(answer.done() for answer in answers)
            flag.unlink()
            assert len(await asyncio.gather(*answers)) == 20
            assert not model.breaker.is_open

    asyncio.run(run())

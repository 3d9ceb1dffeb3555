"""What the command line does without Kafka: scoring files, and reading one record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from schemas import PhotoErrorType, RedisRecord
from stream.embedded import EmbeddedStack
from stream.errors import PhotoRejected
from stream.inference import TritonModel
from stream.photo import check_header
from stream.settings import Settings
from stream.store import RecordStore

_BATCH = 256


def score_files(settings: Settings, files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield for each file, in order: path, score, aspects and issues; or path and error (type, message)."""
    with EmbeddedStack(settings, kafka=False, redis=False) as stack, asyncio.Runner() as runner:
        for start in range(0, len(files), _BATCH):
            yield from runner.run(_score_batch(stack.settings, files[start : start + _BATCH]))


async def _score_batch(settings: Settings, files: Sequence[Path]) -> list[dict[str, Any]]:
    async with TritonModel(settings) as model:
        await model.check()
        return await asyncio.gather(*(_score_file(settings, model, path) for path in files))


async def _score_file(settings: Settings, model: TritonModel, path: Path) -> dict[str, Any]:
    try:
        data = read(path, settings.max_photo_bytes)
        check_header(data, settings.max_pixels)
        found = await model.predict(data)
    except PhotoRejected as rejection:
        return {"path": str(path), "error": rejection.error.model_dump(mode="json")}
    aspects = {aspect.value: value for aspect, value in found.aspects.items()}
    issues = {issue.value: probability for issue, probability in found.issues.items()}
    return {"path": str(path), "score": found.score, "aspects": aspects, "issues": issues}


def read(path: Path, limit: int) -> bytes:
    """Return a file's bytes.

    Raises:
        PhotoRejected: it cannot be read, or is larger than `limit`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise PhotoRejected(PhotoErrorType.NOT_FOUND, f"cannot read {path}: {error.strerror}") from None
    if len(data) > limit:
        raise PhotoRejected(PhotoErrorType.TOO_LARGE, f"{path} has more than {limit} bytes: use a smaller file")
    return data


def read_record(settings: Settings, listing_id: str) -> RedisRecord | None:
    """Return a listing's record from Redis; None when it has no score.

    Raises:
        DependencyError: Redis does not answer.
        MessageError: what is stored there is not a record.
    """

    async def read() -> RedisRecord | None:
        async with RecordStore(settings) as store:
            await store.check()
            return await store.get(listing_id)

    return asyncio.run(read())

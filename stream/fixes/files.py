"""`image-score fix`: the fixed versions of photo files, and a picture of before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stream.embedded import EmbeddedStack
from stream.errors import PhotoRejected
from stream.fixes.advise import Advice, advise, encoded, opened
from stream.fixes.picture import Pair, write_pairs
from stream.inference import TritonModel
from stream.photo import check_header
from stream.score_files import read
from stream.settings import Settings


def fix_files(settings: Settings, files: Sequence[Path], out: Path) -> Iterator[dict[str, Any]]:
    """Yield for each file: path, score, the fixes that raise it, and what was written to `out`; or path and error."""
    pairs: list[Pair] = []
    with EmbeddedStack(settings, kafka=False, redis=False) as stack, asyncio.Runner() as runner:
        model = TritonModel(stack.settings)
        runner.run(_open(model))
        try:
            for path in files:
                yield runner.run(_fix_file(settings, model, path, out, pairs))
        finally:
            runner.run(model.__aexit__(None, None, None))
    if pairs:
        write_pairs(pairs, out / "before-after.jpg", columns=2)


async def _open(model: TritonModel) -> None:
    await model.__aenter__()
    await model.check()


async def _fix_file(settings: Settings, model: TritonModel, path: Path, out: Path, pairs: list[Pair]) -> dict[str, Any]:
    try:
        data = read(path, settings.max_photo_bytes)
        check_header(data, settings.max_pixels)
        found = await advise(model, data)
    except PhotoRejected as rejection:
        return {"path": str(path), "error": rejection.error.model_dump(mode="json")}
    before = encoded(opened(data))
    fixes = []
    for one in found.fixes:
        file = _write(out, path, one.fix, one.jpeg)
        fixes.append({"fix": one.fix.value, "score": one.score, "gain": round(one.gain, 4), "file": file})
    pairs += [Pair(before, one.jpeg, f"{path.stem[:24]} {_step(found, one.score)} {one.fix}") for one in found.fixes]
    if found.best is not None and len(found.chain) > 1:
        _write(out, path, "all", found.best.jpeg)
        pairs.append(Pair(before, found.best.jpeg, f"{path.stem[:24]} {_step(found, found.best.score)} all"))
    return {"path": str(path), "score": found.prediction.score, "fixes": fixes}


def _step(found: Advice, after: float) -> str:
    return f"{found.prediction.score:.2f} -> {after:.2f}"


def _write(out: Path, path: Path, name: str, jpeg: bytes) -> str:
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{path.stem}-{name}.jpg"
    target.write_bytes(jpeg)
    return str(target)

"""Fixes: each mends its flaw and leaves other photos alone; what helps is proven at Triton."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from stream.cli import main
from stream.fixes.advise import LEAST_GAIN, Advice, advise, encoded, opened
from stream.fixes.edits import Fix, candidates
from stream.fixes.measures import measure
from stream.inference import TritonModel
from stream.settings import Settings


@pytest.fixture(scope="module")
def good(samples: dict[str, Path]) -> Image.Image:
    return opened(samples["t-shirt-good"].read_bytes())


def changed(photo: Image.Image, change: object) -> Image.Image:
    pixels = np.asarray(photo, np.float64) / 255
    new = change(pixels)  # type: ignore[operator]
    return Image.fromarray((np.clip(new, 0, 1) * 255).round().astype(np.uint8))


FLAWS = {
    Fix.BRIGHTEN: lambda x: (x * 0.3) ** 1.1,
    Fix.CONTRAST: lambda x: x * 0.75 + 0.15,
    Fix.WHITE_BALANCE: lambda x: x * [1.05, 1.0, 0.87],
    Fix.DENOISE: lambda x: x + np.random.default_rng(1).normal(0, 0.08, x.shape),
}


def test_a_good_photo_is_left_alone(good: Image.Image) -> None:
    assert candidates(good) == {}


@pytest.mark.parametrize("fix", FLAWS)
def test_each_fix_mends_its_flaw_and_then_has_nothing_to_do(good: Image.Image, fix: Fix) -> None:
    flawed = changed(good, FLAWS[fix])
    mended = candidates(flawed)[fix]
    distance = [float(np.abs(np.asarray(one, float) - np.asarray(good, float)).mean()) for one in (flawed, mended)]
    assert distance[1] < distance[0]
    assert fix not in candidates(mended)


def test_a_tilted_photo_is_turned_upright(samples: dict[str, Path]) -> None:
    shelf = Image.new("RGB", (600, 800), (205, 205, 205))
    for left in range(120, 480, 90):
        shelf.paste((70, 90, 120), (left, 150, left + 45, 650))
    tilted = shelf.rotate(4, Image.Resampling.BICUBIC, fillcolor=(205, 205, 205))
    assert measure(tilted).angle == pytest.approx(-4, abs=0.8)
    upright = candidates(tilted)[Fix.STRAIGHTEN]
    assert abs(measure(upright).angle) < 1
    assert Fix.STRAIGHTEN not in candidates(upright)


def test_the_crop_keeps_the_whole_item_and_the_shape() -> None:
    photo = Image.new("RGB", (800, 600), (220, 220, 215))
    photo.paste((40, 60, 160), (480, 300, 640, 460))
    cropped = candidates(photo)[Fix.CROP]
    assert cropped.width / cropped.height == pytest.approx(800 / 600, abs=0.02)
    item = np.all(np.asarray(cropped) == (40, 60, 160), axis=2)
    assert item.sum() == 160 * 160
    assert not any(edge.any() for edge in (item[0], item[-1], item[:, 0], item[:, -1]))
    assert Fix.CROP not in candidates(cropped)


def test_a_dark_item_before_a_light_wall_is_not_brightened(good: Image.Image) -> None:
    photo = Image.new("RGB", (600, 800), (200, 200, 198))
    photo.paste((20, 20, 24), (60, 60, 540, 740))
    assert Fix.BRIGHTEN not in candidates(photo)


def test_a_dark_photo_keeps_its_shadows(good: Image.Image) -> None:
    assert Fix.CONTRAST not in candidates(changed(good, FLAWS[Fix.BRIGHTEN]))


def test_fixes_are_deterministic(good: Image.Image) -> None:
    flawed = changed(good, FLAWS[Fix.WHITE_BALANCE])
    first, second = candidates(flawed), candidates(flawed)
    assert {fix: encoded(image) for fix, image in first.items()} == {f: encoded(i) for f, i in second.items()}


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (40, 40)])
def test_odd_photos_are_no_problem(size: tuple[int, int]) -> None:
    candidates(Image.new("RGB", size, (90, 80, 70)))


def advised(settings: Settings, data: bytes) -> Advice:
    async def run() -> Advice:
        async with TritonModel(settings) as model:
            await model.check()
            return await advise(model, data)

    return asyncio.run(run())


def test_only_what_raises_the_score_is_advised_the_most_first(settings: Settings, good: Image.Image) -> None:
    found = advised(settings, encoded(changed(good, lambda x: FLAWS[Fix.BRIGHTEN](x) * [1.1, 1.0, 0.85])))
    gains = [one.gain for one in found.fixes]
    assert gains == sorted(gains, reverse=True)
    assert all(gain >= LEAST_GAIN for gain in gains)
    assert found.best is not None
    assert found.best.gain >= gains[0]
    assert advised(settings, found.best.jpeg).prediction.score == pytest.approx(found.best.score, abs=0.02)


def test_a_good_photo_gets_no_advice(settings: Settings, good: Image.Image) -> None:
    found = advised(settings, encoded(good))
    assert (found.fixes, found.best, found.chain) == ((), None, ())


def test_fix_writes_what_helps_and_a_picture(settings: Settings, good: Image.Image, tmp_path: Path) -> None:
    changed(good, FLAWS[Fix.BRIGHTEN]).save(tmp_path / "dark.jpg", quality=92)
    words = ["fix", str(tmp_path / "dark.jpg"), "-o", str(tmp_path / "out"), "--json", "--triton", settings.triton]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["fixes"], "a dark photo can be helped"
    for one in found["fixes"]:
        assert Path(one["file"]).is_file()
        assert one["score"] > found["score"]
    assert (tmp_path / "out" / "before-after.jpg").is_file()


def test_fix_says_which_file_is_no_photo(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    done = CliRunner().invoke(main, ["fix", str(tmp_path / "text.jpg"), "--triton", settings.triton])
    assert done.exit_code == 1
    assert "not_an_image" in done.output

"""Scores that pass through `advise`, and the tips that come of it; real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest
from babel.messages.pofile import read_po

from schemas import ImageScore
from schemas.image_score import PhotoFix
from stream.demo.photo_store import PhotoStore
from stream.demo.process import PipelineProcess
from stream.fixes.edits import Fix
from stream.tips import LOCALE_DIR, fix_text, languages, load_policy, tips_of
from tests.examples import image_score
from tests.photo_host import PhotoHost
from tests.pipeline import Pipeline, wait_for


@pytest.fixture
def store(samples: dict[str, Path]) -> Iterator[PhotoStore]:
    store = PhotoStore(samples["hat-dark"].parent)
    store.start()
    store.wait_ready()
    yield store
    store.stop()


@pytest.fixture
def advised(real_pipeline: Pipeline, store: PhotoStore) -> Pipeline:
    changes = {
        "hints_from": "advised",
        "advise_below": 0.9,
        "fetch_allow": (store.host, real_pipeline.host.address),
        "fetch_timeout_s": 1.0,
        "fetch_attempts": 1,
    }
    real_pipeline.settings = real_pipeline.settings.model_copy(update=changes)
    process = PipelineProcess("advise", real_pipeline.settings)
    real_pipeline.processes["advise"] = process
    process.start()
    real_pipeline.start("worker", "hints")
    process.wait_ready()
    return real_pipeline


def passed_on(pipeline: Pipeline, listing: str) -> ImageScore:
    def found() -> ImageScore | None:
        values = [m.value() for m in pipeline.read(pipeline.settings.advised_topic, listing)]
        return ImageScore.from_json(values[-1]) if values and values[-1] else None

    return wait_for(found, f"advised score of {listing}")


def test_a_dark_photo_is_told_what_more_light_would_bring(
    advised: Pipeline, store: PhotoStore, samples: dict[str, Path]
) -> None:
    dark = advised.publish(store.url(samples["t-shirt-dark"]))
    (photo,) = passed_on(advised, dark).photos
    assert photo.fixes
    assert photo.fixes[0].score > photo.score
    hint = advised.wait_for_hint(dark)
    tip = next(tip for tip in hint.tips if tip.kind == photo.fixes[0].fix)
    assert f"from {round(100 * photo.score)} to {round(100 * photo.fixes[0].score)} points" in tip.text


def test_good_photos_lost_photos_and_deletions_pass_as_they_are(
    advised: Pipeline, store: PhotoStore, samples: dict[str, Path], host: PhotoHost
) -> None:
    good = advised.publish(store.url(samples["t-shirt-good"]))
    (photo,) = passed_on(advised, good).photos
    assert photo.fixes == ()
    advised.delete(good, version=2)
    wait_for(lambda: [h for h in advised.hints(good) if h.withdrawn], "withdrawn hint")
    last = advised.read(advised.settings.advised_topic, good)[-1]
    assert last.value() is None


def test_a_fix_that_was_tried_stands_for_the_issue_that_it_mends() -> None:
    score = image_score((0.4,))
    photo = score.photos[0].model_copy(update={"fixes": (PhotoFix(fix="brighten", score=0.61),)})
    tips = tips_of(score.model_copy(update={"photos": (photo,)}), load_policy(), 0.0, 0.1)
    assert [tip.kind for tip in tips] == ["brighten"]
    assert "from 40 to 61 points" in tips[0].text


@pytest.mark.parametrize("language", languages())
def test_every_fix_has_words_in_every_language(language: str) -> None:
    with (LOCALE_DIR / language / "fixes.po").open("rb") as file:
        messages = {message.id: str(message.string) for message in read_po(file) if message.id}
    assert set(messages) == {fix.value for fix in Fix}
    for words in messages.values():
        assert {name for _, name, _, _ in Formatter().parse(words) if name} == {"photo", "before", "after"}
    assert "61" in fix_text("brighten", 1, 0.4, 0.61, language)

"""Which tips a listing gets, and their words."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest
from babel.messages.pofile import read_po

from schemas import Issue
from stream.errors import SettingsError
from stream.hints import hint_of
from stream.settings import load
from stream.tips import BETTER_COVER, LOCALE_DIR, Policy, language_of, languages, load_policy, text, tips_of
from tests.examples import image_score
from triton_models.serving.versions import Repository

POLICY = Policy(dict.fromkeys(Issue, 0.5), load_policy().impacts)
KINDS = {*(issue.value for issue in Issue), BETTER_COVER}


def kinds(*args: object, **kwargs: object) -> list[str]:
    return [tip.kind for tip in tips_of(image_score(*args, **kwargs), POLICY, 0.0, 0.1)]  # type: ignore[arg-type]


def test_at_most_three_tips_the_one_that_gains_most_first() -> None:
    issues = {Issue.TILTED: 0.95, Issue.BLURRY: 0.9, Issue.DARK: 0.9, Issue.WRINKLED: 0.9}
    assert kinds((0.4,), {0: issues}) == ["blurry", "dark", "wrinkled"]


def test_issue_below_the_threshold_is_no_tip() -> None:
    assert kinds((0.4,), {0: {Issue.DARK: 0.49}}) == []


def test_issue_of_several_photos_is_one_tip_for_the_cover() -> None:
    (tip,) = tips_of(image_score((0.4, 0.4), {0: {Issue.DARK: 0.6}, 1: {Issue.DARK: 0.9}}), POLICY, 0.0, 0.1)
    assert (tip.position, tip.probability, tip.photo_id) == (0, 0.6, "p0")


def test_issue_of_a_later_photo_counts_less_than_the_same_of_the_cover() -> None:
    assert kinds((0.4, 0.4), {0: {Issue.WRINKLED: 0.8}, 1: {Issue.DARK: 0.9}}) == ["wrinkled", "dark"]


def test_cover_tip_needs_a_clear_margin() -> None:
    assert kinds((0.40, 0.49)) == []
    assert kinds((0.40, 0.51)) == ["better_cover"]


def test_photo_numbers_count_photos_that_failed() -> None:
    score = image_score((0.3, 0.9))
    shifted = score.model_copy(
        update={"photos": tuple(photo.model_copy(update={"position": photo.position * 4}) for photo in score.photos)}
    )
    (tip,) = tips_of(shifted, POLICY, 0.0, 0.1)
    assert tip.text == "Photo 2 looks better than the cover. Make photo 2 your cover."


def test_same_event_gives_the_same_hint_id() -> None:
    score = image_score()
    assert hint_of(score, load(), POLICY).hint_id == hint_of(score, load(), POLICY).hint_id


@pytest.mark.parametrize(
    ("locale", "language"),
    [("en", "en"), ("ja-JP", "ja"), ("ja_JP", "ja"), ("JA", "ja"), ("de-AT", "de"), ("es-419", "es"), ("fr", "en")],
)
def test_language_of_a_locale(locale: str, language: str) -> None:
    assert language_of(locale) == language


@pytest.mark.parametrize("language", languages())
def test_catalogue_has_a_text_for_every_tip_and_its_placeholders(language: str) -> None:
    with (LOCALE_DIR / language / "hints.po").open("rb") as file:
        messages = {message.id: message.string for message in read_po(file) if message.id}
    assert set(messages) == KINDS
    for words in messages.values():
        assert {field for _, field, _, _ in Formatter().parse(str(words)) if field is not None} == {"photo"}


def test_texts_speak_of_the_photo_never_of_the_seller() -> None:
    for kind in KINDS:
        assert not re.search(r"\byou (did|took|made|should|must|failed)\b|\byour fault\b", text(kind, 1, "en"))
        assert len(text(kind, 20, "en")) <= 140


@pytest.mark.parametrize("language", languages())
def test_texts_are_short_and_different(language: str) -> None:
    texts = [text(kind, 20, language) for kind in sorted(KINDS)]
    assert max(map(len, texts)) <= 140
    assert len(set(texts)) == len(KINDS)
    assert language == "en" or not set(texts) & {text(kind, 20, "en") for kind in KINDS}


def test_the_four_languages_are_there() -> None:
    assert languages() == ("de", "en", "es", "ja")


def test_issue_that_the_model_too_often_names_wrongly_is_no_tip() -> None:
    only_dark = Policy({Issue.DARK: 0.3}, POLICY.impacts)
    score = image_score((0.4,), {0: {Issue.DARK: 0.35, Issue.BLURRY: 0.99}})
    assert [tip.kind for tip in tips_of(score, only_dark, 0.0, 0.1)] == ["dark"]
    assert tips_of(score, only_dark, 0.4, 0.1) == ()


def test_shipped_model_tells_issues_that_are_right_seven_times_in_ten() -> None:
    repository = Repository()
    figures = repository.version(repository.served).metrics["issues"]
    told = load_policy().thresholds
    assert told
    for name, row in figures.items():
        assert (Issue(name) in told) == row["passes"]
        assert not row["passes"] or row["precision"] >= 0.7


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("{}", "issues: field required"),
        ('{"issues": {"ugly": {}}}', "ugly"),
    ],
)
def test_file_that_is_no_models_metrics_is_named(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(SettingsError, match=words):
        load_policy(str(tmp_path / "metrics.json"))

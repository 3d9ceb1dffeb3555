"""Chooses the tips of a listing, and words them in the seller's language."""

from __future__ import annotations

import gettext
import io
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from pydantic import BaseModel, Field, ValidationError

from schemas import ImageScore, Issue, ScoredPhoto, Tip
from schemas.base import describe
from schemas.seller_hint import MAX_TIPS
from stream.errors import SettingsError
from triton_models.serving.versions import Repository

LOCALE_DIR = Path(__file__).parent / "locale"
DEFAULT_LANGUAGE = "en"
BETTER_COVER = "better_cover"

_NOT_COVER = 0.5
"""An issue of a photo other than the cover counts half: buyers see the cover first."""


_MENDS = {
    "brighten": "dark",
    "recover_exposure": "overexposed",
    "contrast": "low_contrast",
    "white_balance": "color_cast",
    "straighten": "tilted",
    "crop": "item_too_small",
    "denoise": "noisy",
}
"""Which issue each fix mends."""


@dataclass(frozen=True)
class Policy:
    """What a model's issues are worth telling, as its metrics.json says.

    `thresholds`: from which probability on an issue is told; one whose tellings were too often wrong has none and is
    never told. `impacts`: how much of a score, 0..1, each issue costs.
    """

    thresholds: dict[Issue, float]
    impacts: dict[Issue, float]


class _IssueFigures(BaseModel):
    threshold: float | None = Field(ge=0, le=1)


class _Metrics(BaseModel):
    issues: dict[Issue, _IssueFigures]
    issue_impacts: dict[Issue, float]


def load_policy(path: str = "") -> Policy:
    """Return the policy of a metrics.json that `image-score export` wrote; of the shipped model's without a path.

    Raises:
        SettingsError: the file cannot be read, or is not such a file.
    """
    file = Path(path) if path else Repository().version(Repository().served).folder / "metrics.json"
    try:
        found = _Metrics.model_validate_json(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"model_metrics: cannot read {str(file)!r}: {error.strerror}") from None
    except ValidationError as error:
        problems = "; ".join(describe(fault) for fault in error.errors()[:3])
        raise SettingsError(f"model_metrics: {str(file)!r} is no metrics.json of a model: {problems}") from None
    thresholds = {issue: row.threshold for issue, row in found.issues.items() if row.threshold is not None}
    return Policy(thresholds, {issue: found.issue_impacts.get(issue, 0.0) for issue in Issue})


@cache
def languages() -> tuple[str, ...]:
    """Return the languages that have a catalogue."""
    return tuple(sorted(path.parent.name for path in LOCALE_DIR.glob("*/hints.po")))


def language_of(locale: str) -> str:
    """Return the catalogue for a BCP 47 tag: ja-JP -> ja; en where there is none."""
    language = locale.replace("_", "-").split("-")[0].lower()
    return language if language in languages() else DEFAULT_LANGUAGE


@cache
def catalogue(language: str, name: str = "hints") -> gettext.GNUTranslations:
    with (LOCALE_DIR / language / f"{name}.po").open("rb") as source:
        compiled = io.BytesIO()
        write_mo(compiled, read_po(source, locale=language))
    return gettext.GNUTranslations(io.BytesIO(compiled.getvalue()))


def fix_text(fix: str, photo_number: int, before: float, after: float, locale: str) -> str:
    """Return the sentence of a fix that was tried: `before` and `after` are scores, 0..1, shown as points of 100."""
    words = catalogue(language_of(locale), "fixes").gettext(fix)
    return words.format(photo=photo_number, before=round(100 * before), after=round(100 * after))


def text(kind: str, photo_number: int, locale: str) -> str:
    """Return a tip's sentence; photos are counted from 1 for people."""
    return catalogue(language_of(locale)).gettext(kind).format(photo=photo_number)


def digest_text(count: int, total: int, tip: str, locale: str) -> str:
    """Return what stands for the tips of `count` of a seller's `total` listings; `tip` is that of one of them."""
    words = catalogue(language_of(locale), "notices").ngettext("digest", "digests", total)
    return words.format(count=count, total=total, tip=tip)


def praise_text(locale: str) -> str:
    return catalogue(language_of(locale), "notices").gettext("praise")


def tips_of(score: ImageScore, policy: Policy, threshold: float, cover_margin: float) -> tuple[Tip, ...]:
    """Return at most three tips, most useful first: by expected gain, the probability times the impact.

    A fix that was tried counts what it gained on the photo itself. An issue becomes a tip from its threshold in the
    policy on, and at least at `threshold`; once for a listing, for the photo where it matters most. A photo that scores
    at least `cover_margin` more than the cover is proposed as the cover.
    """
    locale = score.event.locale
    positions = [photo.position for photo in score.photos] + [photo.position for photo in score.failed]
    order = {position: i + 1 for i, position in enumerate(sorted(positions))}
    cover = score.cover
    found: dict[str, tuple[float, Tip]] = {}
    for photo in score.photos:
        share = 1.0 if photo is cover else _NOT_COVER
        for issue, probability in photo.issues.items():
            gain = share * probability * policy.impacts[issue]
            least = max(policy.thresholds.get(issue, math.inf), threshold)
            if probability >= least and gain > found.get(issue, (0.0,))[0]:
                words = text(issue, order[photo.position], locale)
                found[issue] = gain, _tip(issue.value, issue, probability, photo, words)
        for fix in photo.fixes:
            gain = share * (fix.score - photo.score)
            found.pop(_MENDS.get(fix.fix, ""), None)  # proven on the photo itself, which says more
            if gain > found.get(fix.fix, (0.0,))[0]:
                words = fix_text(fix.fix, order[photo.position], photo.score, fix.score, locale)
                found[fix.fix] = gain, _tip(fix.fix, None, fix.score, photo, words)
    best = score.best
    if cover is not None and best.score >= cover.score + cover_margin:
        words = text(BETTER_COVER, order[best.position], locale)
        found[BETTER_COVER] = best.score - cover.score, _tip(BETTER_COVER, None, best.score, best, words)
    ranked = sorted(found.values(), key=lambda pair: -pair[0])
    return tuple(tip for _, tip in ranked[:MAX_TIPS])


def _tip(kind: str, issue: Issue | None, probability: float, photo: ScoredPhoto, words: str) -> Tip:
    return Tip(
        kind=kind,
        issue=issue,
        probability=probability,
        photo_id=photo.photo_id,
        position=photo.position,
        text=words,
    )

"""Chooses the tips of a listing, and words them in the seller's language."""

from __future__ import annotations

import gettext
import io
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

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


class RankedTip(NamedTuple):
    """A tip, and how much of a score, 0..1, following it is expected to bring."""

    gain: float
    tip: Tip


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
    found: dict[str, RankedTip] = {}
    for photo in score.photos:
        share = 1.0 if photo is cover else _NOT_COVER
        for tip in photo_tips(photo, order[photo.position], locale, policy, threshold):
            ranked = RankedTip(share * tip.gain, tip.tip)
            known = found.setdefault(tip.tip.kind, ranked)
            found[tip.tip.kind] = max(known, ranked, key=lambda one: one.gain)
    for fix in _MENDS.keys() & found.keys():
        found.pop(_MENDS[fix], None)  # proven on a photo itself, which says more
    best = score.best
    if cover is not None and best.score >= cover.score + cover_margin:
        words = text(BETTER_COVER, order[best.position], locale)
        found[BETTER_COVER] = RankedTip(best.score - cover.score, _tip(BETTER_COVER, None, best.score, best, words))
    ranked_tips = sorted(found.values(), key=lambda ranked: -ranked.gain)
    return tuple(ranked.tip for ranked in ranked_tips[:MAX_TIPS])


def photo_tips(photo: ScoredPhoto, number: int, locale: str, policy: Policy, threshold: float = 0.0) -> list[RankedTip]:
    """Return all tips of one photo, most useful first: its fixes, and the issues that none of them mends.

    `number` is the photo's place among the listing's, counted from 1, as the sentences name it.
    """
    tips = []
    mended = {_MENDS.get(fix.fix) for fix in photo.fixes}
    for issue, probability in photo.issues.items():
        least = max(policy.thresholds.get(issue, math.inf), threshold)
        if probability >= least and issue not in mended:
            tip = _tip(issue.value, issue, probability, photo, text(issue, number, locale))
            tips.append(RankedTip(probability * policy.impacts[issue], tip))
    for fix in photo.fixes:
        words = fix_text(fix.fix, number, photo.score, fix.score, locale)
        tips.append(RankedTip(fix.score - photo.score, _tip(fix.fix, None, fix.score, photo, words)))
    return sorted((ranked for ranked in tips if ranked.gain > 0), key=lambda ranked: -ranked.gain)


def _tip(kind: str, issue: Issue | None, probability: float, photo: ScoredPhoto, words: str) -> Tip:
    return Tip(
        kind=kind,
        issue=issue,
        probability=probability,
        photo_id=photo.photo_id,
        position=photo.position,
        text=words,
    )

"""Chooses the tips of a listing, and words them in the seller's language."""

from __future__ import annotations

import gettext
import io
from functools import cache
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from schemas import ImageScore, Issue, ScoredPhoto, Tip
from schemas.seller_hint import MAX_TIPS

LOCALE_DIR = Path(__file__).parent / "locale"
DEFAULT_LANGUAGE = "en"
BETTER_COVER = "better_cover"

IMPACT: dict[Issue, float] = {
    Issue.DARK: 0.157,
    Issue.OVEREXPOSED: 0.141,
    Issue.HARSH_SHADOW: 0.140,
    Issue.GLARE: 0.117,
    Issue.COLOR_CAST: 0.115,
    Issue.BLURRY: 0.184,
    Issue.NOISY: 0.056,
    Issue.LOW_CONTRAST: 0.137,
    Issue.CLUTTERED_BACKGROUND: 0.174,
    Issue.BUSY_BACKGROUND: 0.173,
    Issue.DISTRACTING_OBJECT: 0.098,
    Issue.ITEM_CUT_OFF: 0.124,
    Issue.ITEM_TOO_SMALL: 0.075,
    Issue.OFF_CENTER: 0.067,
    Issue.TILTED: 0.079,
    Issue.WRINKLED: 0.113,
    Issue.UNTIDY_LAYOUT: 0.137,
    Issue.PERSON_REFLECTION: 0.077,
    Issue.TEXT_OVERLAY: 0.135,
    Issue.MULTIPLE_ITEMS: 0.043,
}
"""How much of a score in 0..1 each issue costs: `issue_impacts` of the model's metrics.json, which says how they are
made from the training labels."""

_NOT_COVER = 0.5
"""An issue of a photo other than the cover counts half: buyers see the cover first."""


@cache
def languages() -> tuple[str, ...]:
    """Return the languages that have a catalogue."""
    return tuple(sorted(path.parent.name for path in LOCALE_DIR.glob("*/hints.po")))


def language_of(locale: str) -> str:
    """Return the catalogue for a BCP 47 tag: ja-JP -> ja; en where there is none."""
    language = locale.replace("_", "-").split("-")[0].lower()
    return language if language in languages() else DEFAULT_LANGUAGE


@cache
def catalogue(language: str) -> gettext.GNUTranslations:
    with (LOCALE_DIR / language / "hints.po").open("rb") as source:
        compiled = io.BytesIO()
        write_mo(compiled, read_po(source, locale=language))
    return gettext.GNUTranslations(io.BytesIO(compiled.getvalue()))


def text(kind: str, photo_number: int, locale: str) -> str:
    """Return a tip's sentence; photos are counted from 1 for people."""
    return catalogue(language_of(locale)).gettext(kind).format(photo=photo_number)


def tips_of(score: ImageScore, threshold: float, cover_margin: float) -> tuple[Tip, ...]:
    """Return at most three tips, most useful first: by expected gain, the probability times the impact.

    An issue from `threshold` on becomes a tip, once for a listing, for the photo where it matters most. A photo
    that scores at least `cover_margin` more than the cover is proposed as the cover.
    """
    locale = score.event.locale
    positions = [photo.position for photo in score.photos] + [photo.position for photo in score.failed]
    order = {position: i + 1 for i, position in enumerate(sorted(positions))}
    cover = score.cover
    found: dict[str, tuple[float, Tip]] = {}
    for photo in score.photos:
        share = 1.0 if photo is cover else _NOT_COVER
        for issue, probability in photo.issues.items():
            gain = share * probability * IMPACT[issue]
            if probability >= threshold and gain > found.get(issue, (0.0,))[0]:
                words = text(issue, order[photo.position], locale)
                found[issue] = gain, _tip(issue.value, issue, probability, photo, words)
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

"""What the page says about a photo, ready to be shown."""

from __future__ import annotations

from dataclasses import dataclass

from stream.studio.heat import Heat
from stream.studio.scoring import ALL, StudioPhoto
from stream.studio.words import Words
from stream.tips import Policy, photo_tips

_GOOD, _WEAK = 0.6, 0.4
"""Scores and aspects from the first on are called good, below the second weak."""
_TIPS = 5
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True)
class TipCard:
    """A tip in words; with `version`, it was tried on the photo, and can be seen."""

    text: str
    version: str = ""
    after: float = 0.0


@dataclass(frozen=True)
class AspectBar:
    name: str
    value: float
    level: str


@dataclass(frozen=True)
class PhotoCard:
    photo: StudioPhoto
    number: int
    """Its place among those dropped in, counted from 1."""
    level: str
    """good, fair or weak."""
    aspects: tuple[AspectBar, ...]
    reasons: tuple[str, ...]
    tips: tuple[TipCard, ...]
    heat: str
    """What the heat map shows, in words; empty: it was not made yet."""


def card(photo: StudioPhoto, number: int, words: Words, policy: Policy, threshold: float) -> PhotoCard:
    """Return a photo's card in a language."""
    found = photo.advice.prediction
    aspects = tuple(AspectBar(words(f"aspect_{a}"), value, level(value)) for a, value in found.aspects.items())
    return PhotoCard(
        photo=photo,
        number=number,
        level=level(photo.score),
        aspects=aspects,
        reasons=_reasons(photo, aspects, words, policy, threshold),
        tips=_tips(photo, number, words, policy, threshold),
        heat=heat_text(photo.heat, words) if photo.heat else "",
    )


def level(score: float) -> str:
    return "good" if score >= _GOOD else "weak" if score < _WEAK else "fair"


def _reasons(
    photo: StudioPhoto, aspects: tuple[AspectBar, ...], words: Words, policy: Policy, threshold: float
) -> tuple[str, ...]:
    """Say what is good, what is weak, and which flaws the model sees, surest first."""
    by_level = {wanted: [bar.name for bar in aspects if bar.level == wanted] for wanted in ("good", "weak")}
    reasons = [words(f"reason_{kind}", aspects=", ".join(names)) for kind, names in by_level.items() if names]
    issues = photo.advice.prediction.issues
    seen = [issue for issue, p in issues.items() if p >= max(policy.thresholds.get(issue, 2.0), threshold)]
    if seen:
        names = [words(f"issue_{issue}") for issue in sorted(seen, key=lambda issue: -issues[issue])]
        reasons.append(words("reason_issues", issues=", ".join(names)))
    return tuple(reasons) or (words("reason_fair"),)


def _tips(photo: StudioPhoto, number: int, words: Words, policy: Policy, threshold: float) -> tuple[TipCard, ...]:
    """Return the most useful tips; what all fixes together bring comes first."""
    versions = photo.versions()
    after = {fix.fix.value: fix.score for fix in photo.advice.fixes}
    tips = []
    if ALL in versions and photo.advice.best is not None:
        best = photo.advice.best.score
        text = words("tip_all", photo=number, before=round(100 * photo.score), after=round(100 * best))
        tips.append(TipCard(text, ALL, best))
    for _, tip in photo_tips(photo.scored(number - 1), number, words.language, policy, threshold)[:_TIPS]:
        version = tip.kind if tip.kind in versions else ""
        tips.append(TipCard(tip.text, version, after.get(version, 0.0)))
    return tuple(tips)


def heat_text(heat: Heat, words: Words) -> str:
    """Say where the red is."""
    places = [words(f"place_{_ROWS[row]}_{_COLUMNS[column]}") for row, column in heat.places()]
    return words("heat_found", places=", ".join(places)) if places else words("heat_none")

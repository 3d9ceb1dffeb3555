"""The page's texts in the visitor's language."""

from __future__ import annotations

from dataclasses import dataclass

from babel import Locale
from babel.core import negotiate_locale
from babel.numbers import format_decimal, format_percent

from stream.tips import DEFAULT_LANGUAGE, catalogue, languages


@dataclass(frozen=True)
class Words:
    """One language: calling it gives a text of the catalogue, its placeholders filled."""

    language: str

    def __call__(self, key: str, **values: object) -> str:
        return catalogue(self.language, "studio").gettext(key).format(**values)

    def several(self, one: str, many: str, count: int) -> str:
        """Return the text for this many."""
        return catalogue(self.language, "studio").ngettext(one, many, count).format(count=self.number(count))

    def number(self, value: float, digits: int = 0) -> str:
        return format_decimal(
            round(value, digits), "#,##0." + "0" * digits if digits else "#,##0", locale=self.language
        )

    def percent(self, share: float) -> str:
        return format_percent(share, "#,##0%", locale=self.language)

    @property
    def name(self) -> str:
        """The language's name in itself."""
        return name_of(self.language)


def name_of(language: str) -> str:
    return (Locale(language).get_display_name() or language).capitalize()


def wanted_language(chosen: str, accept: str) -> str:
    """Return the language that a visitor chose, or else the first of their browser's (Accept-Language) that we have."""
    if chosen in languages():
        return chosen
    ranges = [part.split(";")[0].strip() for part in accept.split(",")[:20]]
    preferred = [tag.replace("-", "_") for tag in ranges if tag and len(tag) <= 35]
    found = negotiate_locale(preferred, languages())
    return found.split("_")[0] if found else DEFAULT_LANGUAGE

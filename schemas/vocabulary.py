"""The words of the rubric: aspects, issues and quality classes, in the order of the model's outputs.

The order is part of the contract: `ASPECTS` and `ISSUES` of the Triton model, and the aspects of the
Redis record, are arrays in exactly this order. Append; never reorder.
"""

from __future__ import annotations

from enum import StrEnum


class Aspect(StrEnum):
    """What a photo is judged on, each 0 (very poor) .. 1 (excellent)."""

    LIGHTING = "lighting"
    SHARPNESS = "sharpness"
    BACKGROUND = "background"
    FRAMING = "framing"
    PRESENTATION = "presentation"
    COLOR = "color"


class Issue(StrEnum):
    """A named flaw of a photo (never of the item)."""

    DARK = "dark"
    OVEREXPOSED = "overexposed"
    HARSH_SHADOW = "harsh_shadow"
    GLARE = "glare"
    COLOR_CAST = "color_cast"
    BLURRY = "blurry"
    NOISY = "noisy"
    LOW_CONTRAST = "low_contrast"
    CLUTTERED_BACKGROUND = "cluttered_background"
    BUSY_BACKGROUND = "busy_background"
    DISTRACTING_OBJECT = "distracting_object"
    ITEM_CUT_OFF = "item_cut_off"
    ITEM_TOO_SMALL = "item_too_small"
    OFF_CENTER = "off_center"
    TILTED = "tilted"
    WRINKLED = "wrinkled"
    UNTIDY_LAYOUT = "untidy_layout"
    PERSON_REFLECTION = "person_reflection"
    TEXT_OVERLAY = "text_overlay"
    MULTIPLE_ITEMS = "multiple_items"


ASPECTS: tuple[Aspect, ...] = tuple(Aspect)
ISSUES: tuple[Issue, ...] = tuple(Issue)
CLASSES: tuple[int, ...] = (1, 2, 3, 4, 5)
"""Quality classes of the rubric: 1 very poor .. 5 could be a shop's catalogue photo."""

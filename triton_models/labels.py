"""Labels of photos: what judges said, how it is read from files, and what a model learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.base import describe
from schemas.vocabulary import ASPECTS, CLASSES, ISSUES, Aspect, Issue
from triton_models.errors import LabelError

Grade = Annotated[int, Field(ge=1, le=5, strict=True)]
"""1 very poor .. 5 excellent."""

TARGET = len(CLASSES) + len(ASPECTS) + len(ISSUES) + 1
"""Columns of a target: class probabilities [5], aspects [6], issues [20], fine score [1]; all 0..1."""


class Judgement(BaseModel):
    """What one judge said of one photo, by the rubric."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    # In the order in which a labeller writes them: it looks first and decides on the score last.
    observations: str = Field("", max_length=4000)
    aspects: dict[Aspect, Grade]
    issues: tuple[Issue, ...] = ()
    score: Grade

    @model_validator(mode="after")
    def _has_all_aspects(self) -> Self:
        if missing := [aspect.value for aspect in ASPECTS if aspect not in self.aspects]:
            raise ValueError(f"aspects must name all six; missing: {', '.join(missing)}")
        return self

    @property
    def fine_score(self) -> float:
        """The rubric's finer order of photos, 0..1: (score + mean(aspects) / 5 - 1.2) / 4.8."""
        return (self.score + sum(self.aspects.values()) / len(ASPECTS) / 5 - 1.2) / 4.8


class Label(Judgement):
    """A labelled photo, one JSON object a line in a labels file.

    `samples` are the single answers where a judge was asked several times; a model learns from their mean.
    """

    photo: str = Field(min_length=1, description="path below the folder of photos")
    category: str = ""
    judge: str = ""
    samples: tuple[Judgement, ...] = ()


class Pair(BaseModel):
    """A preference between two photos, one JSON object a line in a pairs file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    better: str = Field(min_length=1)
    worse: str = Field(min_length=1)
    weight: float = Field(1.0, gt=0)


class LabelledPhoto(BaseModel):
    """A photo with everything that any judge said of it."""

    photo: str
    category: str
    judgements: tuple[Judgement, ...]

    @property
    def fine_score(self) -> float:
        return fmean(judgement.fine_score for judgement in self.judgements)

    def target(self) -> list[float]:
        """Return classes [5], aspects [6], issues [20] and fine score [1], all 0..1: the mean of the judgements."""
        said = self.judgements
        classes = [fmean(j.score == c for j in said) for c in CLASSES]
        aspects = [fmean((j.aspects[a] - 1) / 4 for j in said) for a in ASPECTS]
        issues = [fmean(i in j.issues for j in said) for i in ISSUES]
        return [*classes, *aspects, *issues, self.fine_score]


def read_labels(*paths: Path) -> list[LabelledPhoto]:
    """Return the labelled photos of the files, in the order of the first file; a photo in several has all judgements.

    Raises:
        LabelError: a file cannot be read or a line is not a Label; names file, line and field.
    """
    photos: dict[str, LabelledPhoto] = {}
    for path in paths:
        for label in _read(path, Label):
            said = label.samples or (label,)
            before = photos.get(label.photo)
            judgements = (*(before.judgements if before else ()), *said)
            photos[label.photo] = LabelledPhoto(photo=label.photo, category=label.category, judgements=judgements)
    if not photos:
        raise LabelError(f"no labels in {', '.join(map(str, paths))}: make some with `image-score label`")
    return list(photos.values())


def read_pairs(path: Path) -> list[Pair]:
    """Return the preference pairs of a file.

    Raises:
        LabelError: as `read_labels`.
    """
    return _read(path, Pair)


def pair_rows(pairs: Sequence[Pair], photos: Sequence[LabelledPhoto]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows of the better and of the worse photos of each pair.

    Raises:
        LabelError: a pair names a photo without a label.
    """
    row = {photo.photo: i for i, photo in enumerate(photos)}
    for pair in pairs:
        for name in (pair.better, pair.worse):
            if name not in row:
                raise LabelError(f"pairs: {name!r} has no label: label it, or leave the pair out")
    return np.array([row[p.better] for p in pairs], np.intp), np.array([row[p.worse] for p in pairs], np.intp)


Row = TypeVar("Row", Label, Pair)


def _read(path: Path, kind: type[Row]) -> list[Row]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"cannot read {str(path)!r}: {error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(kind.model_validate_json(line))
        except ValidationError as error:
            problems = "; ".join(describe(fault) for fault in error.errors())
            raise LabelError(f"{path}, line {number}: not a valid {kind.__name__}: {problems}") from None
    return rows

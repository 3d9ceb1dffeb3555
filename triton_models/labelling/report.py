"""What a labelling run writes: the labels, what was set aside, and a report."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np

from schemas.vocabulary import ASPECTS, CLASSES, ISSUES
from triton_models.labelling.answers import Answers
from triton_models.labelling.labeller import Job, Outcome
from triton_models.labelling.limits import Budget
from triton_models.labelling.prompt import Answer
from triton_models.labels import Judgement, Label


def category_of(photo: str) -> str:
    """Return the folder of a photo, which names its category; anything that is no plain name becomes ''."""
    folder = Path(photo).parent.name
    return folder if re.fullmatch(r"[\w -]{1,64}", folder) else ""


def average(said: Sequence[Judgement]) -> dict[str, Any]:
    """Return one judgement of several: rounded means; the issues that at least half of them name."""
    return {
        "score": int(np.floor(np.mean([j.score for j in said]) + 0.5)),
        "aspects": {a: int(np.floor(np.mean([j.aspects[a] for j in said]) + 0.5)) for a in ASPECTS},
        "observations": said[0].observations,
        "issues": tuple(i for i in ISSUES if 2 * sum(i in j.issues for j in said) >= len(said)),
    }


def agreement(groups: Sequence[Sequence[Judgement]]) -> dict[str, float] | None:
    """Return how alike the answers about one photo are, over all pairs of answers; None without such pairs.

    `same_class`: share with the same score; `class_distance`: mean difference in classes; `issues_shared`: mean share
    of named issues that both name (intersection over union).
    """
    pairs = [pair for said in groups for pair in combinations(said, 2)]
    if not pairs:
        return None
    named = [(set(a.issues), set(b.issues)) for a, b in pairs]
    shared = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in named]
    distance = [abs(a.score - b.score) for a, b in pairs]
    return {
        "pairs": len(pairs),
        "same_class": round(float(np.mean([d == 0 for d in distance])), 3),
        "class_distance": round(float(np.mean(distance)), 3),
        "issues_shared": round(float(np.mean(shared)), 3),
    }


def write(
    jobs: Sequence[Job], folder: Path, out: Path, answers: Answers, judge: str, outcome: Outcome, budget: Budget
) -> dict[str, Any]:
    """Write `out` (a Label a line), `out`.set-aside.jsonl and `out`.report.json; return the report.

    A photo is labelled when all its samples are there.
    """
    lines, groups = [], []
    for path, of_photo in groupby(jobs, key=lambda job: job.path):
        said = [answers.get(job.key) for job in of_photo]
        if not all(said) or path in outcome.set_aside:
            continue
        found = [answer for answer in said if isinstance(answer, Answer)]
        groups.append(found)
        photo = path.relative_to(folder).as_posix()
        samples = tuple(found) if len(found) > 1 else ()
        lines.append(
            Label(photo=photo, category=category_of(photo), judge=judge, samples=samples, **average(found))
            .model_dump_json(exclude_defaults=True)
            .encode()
        )
    _replace(out, b"".join(line + b"\n" for line in lines))
    aside = [{"photo": p.relative_to(folder).as_posix(), "reason": why} for p, why in outcome.set_aside.items()]
    _replace(out.with_suffix(".set-aside.jsonl"), "".join(json.dumps(row) + "\n" for row in aside).encode())
    scores = Counter(average(said)["score"] for said in groups)
    report = {
        "photos": len({job.path for job in jobs}),
        "labelled": len(groups),
        "set_aside": len(aside),
        "asked": outcome.asked,
        "cached": outcome.cached,
        "retries": outcome.retries,
        "asked_again": outcome.corrections,
        "spent": round(budget.spent, 6),
        "input_tokens": budget.input_tokens,
        "output_tokens": budget.output_tokens,
        "stopped_by_budget": outcome.stopped_by_budget,
        "classes": {c: scores[c] for c in CLASSES},
        "agreement": agreement(groups),
    }
    _replace(out.with_suffix(".report.json"), (json.dumps(report, indent=2) + "\n").encode())
    return report


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)

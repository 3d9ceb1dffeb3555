"""A tiny labelled data set of drawn photos of three items: good ones get 5 or 4, flawed ones 2 or 1 and an issue."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from schemas import ASPECTS, Issue

ITEMS = ("bag", "hat", "t-shirt")
_ISSUES = {"dark": Issue.DARK, "blurred": Issue.BLURRY, "tilted": Issue.TILTED, "tiny": Issue.ITEM_TOO_SMALL}


def write_tiny_labels(samples: dict[str, Path], folder: Path) -> tuple[Path, Path, Path]:
    """Copy the drawn photos into `folder`/photos; return that, a labels file and a pairs file."""
    photos, labels, pairs = folder / "photos", folder / "labels.jsonl", folder / "pairs.jsonl"
    lines, preferences = [], []
    for name, source in sorted(samples.items()):
        item = next((item for item in ITEMS if name.startswith(f"{item}-")), "")
        if not item:
            continue
        flaw = name.removeprefix(f"{item}-")
        (photos / item).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, photos / item / source.name)
        good = flaw == "good"
        score = (4 if item in ("hat", "bag") else 5) if good else (2 if item in ("hat", "bag") else 1)
        issues = [_ISSUES[flaw]] if flaw in _ISSUES else []
        photo = f"{item}/{source.name}"
        label = {"photo": photo, "category": item, "score": score, "aspects": dict.fromkeys(ASPECTS, score)}
        lines.append(json.dumps(label | {"issues": issues, "judge": "drawn"}))
        if not good:
            preferences.append(json.dumps({"better": f"{item}/{samples[f'{item}-good'].name}", "worse": photo}))
    labels.write_text("\n".join(lines))
    pairs.write_text("\n".join(preferences))
    return photos, labels, pairs

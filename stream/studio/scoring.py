"""What is found out about a photo that a visitor dropped in."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from schemas import ScoredPhoto
from schemas.image_score import PhotoFix, listing_score
from stream.fixes.advise import Advice, advise, encoded, fixed_in_full, opened
from stream.fixes.edits import Fix
from stream.inference import TritonModel
from stream.photo import check_header
from stream.settings import Settings
from stream.studio.heat import Heat

ALL = "all"
"""Name of the version that has every fix on top of each other."""
_AT_ONCE = 4
"""Photos that are worked on at once; the others wait."""


@dataclass
class StudioPhoto:
    """One photo, upright; nothing of the file's metadata is kept but in `data`."""

    photo_id: str
    name: str
    data: bytes
    """As it came."""
    view: bytes
    """JPEG of at most 1,024 pixels."""
    size: tuple[int, int]
    """Of `view`: width, height."""
    advice: Advice
    heat: Heat | None = None

    @property
    def held(self) -> int:
        fixed = sum(len(fix.jpeg) for fix in self.advice.fixes) + len(
            self.advice.best.jpeg if self.advice.best else b""
        )
        return len(self.data) + len(self.view) + fixed

    @property
    def score(self) -> float:
        return self.advice.prediction.score

    def versions(self) -> dict[str, bytes]:
        """Return the fixed versions as JPEG of at most 1,024 pixels, by name."""
        made = {fix.fix.value: fix.jpeg for fix in self.advice.fixes}
        if self.advice.best is not None and len(self.advice.chain) > 1:
            made[ALL] = self.advice.best.jpeg
        return made

    def in_full(self, version: str) -> bytes:
        """Return a fixed version as JPEG, as large as the photo came; CPU work, for a thread."""
        return fixed_in_full(self.data, self.advice.chain if version == ALL else (Fix(version),))

    def scored(self, position: int) -> ScoredPhoto:
        """Return it as the scorer and `advise` would describe it."""
        found = self.advice.prediction
        return ScoredPhoto(
            photo_id=self.photo_id,
            position=position,
            score=found.score,
            class_probs=found.class_probs,
            aspects=found.aspects,
            issues=found.issues,
            fixes=tuple(PhotoFix(fix=fix.fix.value, score=fix.score) for fix in self.advice.fixes),
        )


class Studio:
    """Scores photos at Triton, a few at once."""

    def __init__(self, settings: Settings, model: TritonModel) -> None:
        self.model = model
        self._settings = settings
        self.busy = asyncio.Semaphore(_AT_ONCE)

    async def photo(self, name: str, data: bytes) -> StudioPhoto:
        """Score a photo and try its fixes.

        Raises:
            PhotoRejected: it is no photo, or too large, or does not decode.
        """
        check_header(data, self._settings.max_pixels)
        async with self.busy:
            found = await advise(self.model, data)
            view = await asyncio.to_thread(opened, data)
            jpeg = await asyncio.to_thread(encoded, view)
            if self._settings.studio_keep:
                await asyncio.to_thread(_keep, Path(self._settings.studio_keep), data)
        return StudioPhoto(secrets.token_urlsafe(12), name, data, jpeg, view.size, found)


def _keep(folder: Path, data: bytes) -> None:
    """Keep an upload under the hash of its bytes: its name is the visitor's, and no path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)


def order(photos: list[StudioPhoto]) -> list[StudioPhoto]:
    """Return the photos in the order to show them in: the best as the cover; of equals, as they came."""
    return sorted(photos, key=lambda photo: -photo.score)


def total(photos: list[StudioPhoto]) -> float:
    """Return the score of a listing with these photos in this order."""
    return listing_score(photos[0].score, [photo.score for photo in photos])

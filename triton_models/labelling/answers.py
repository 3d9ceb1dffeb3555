"""The answers so far, in one SQLite file, keyed by photo, rubric, model and sample."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from triton_models.errors import LabelError
from triton_models.labelling.prompt import Answer

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
  photo TEXT, rubric TEXT, model TEXT, sample INTEGER, answer TEXT, cost REAL,
  PRIMARY KEY (photo, rubric, model, sample)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (id TEXT PRIMARY KEY, rubric TEXT, model TEXT, requests TEXT);
"""


@dataclass(frozen=True)
class Key:
    """`photo` is the SHA-256 of the file, so a renamed or copied photo is not asked about again."""

    photo: str
    rubric: str
    model: str
    sample: int


class Answers:
    """Use as a context manager. Each answer is on disk when `put` returns.

    Raises (on entry):
        LabelError: the file is not a cache of answers.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None)
            self._db.executescript("PRAGMA journal_mode = WAL;" + _TABLES)
        except sqlite3.Error as error:
            raise LabelError(f"cache {str(self._path)!r}: {error}: name another file with --cache") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def get(self, key: Key) -> Answer | None:
        where = (key.photo, key.rubric, key.model, key.sample)
        row = self._db.execute(
            "SELECT answer FROM answers WHERE photo = ? AND rubric = ? AND model = ? AND sample = ?", where
        ).fetchone()
        return Answer.model_validate_json(row[0]) if row else None

    def put(self, key: Key, answer: Answer, cost: float) -> None:
        """Keep an answer and what it cost, in the endpoint's money."""
        row = (key.photo, key.rubric, key.model, key.sample, answer.model_dump_json(), cost)
        self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)

    def open_batches(self, rubric: str, model: str) -> dict[str, str]:
        """Return the batches that were sent and not yet read: id -> what they asked, as it was given."""
        return dict(
            self._db.execute("SELECT id, requests FROM batches WHERE rubric = ? AND model = ?", (rubric, model))
        )

    def sent(self, batch: str, rubric: str, model: str, requests: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", (batch, rubric, model, requests))

    def read(self, batch: str) -> None:
        self._db.execute("DELETE FROM batches WHERE id = ?", (batch,))


def photo_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

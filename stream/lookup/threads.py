"""The same for programs without asyncio: one thread of its own speaks to Redis for all others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from stream.lookup.answer import Answer, Score
from stream.lookup.reader import AsyncScoreReader, Stats


class ScoreReader:
    """Reads scores; any number of threads may share one. Make it after a process has forked.

    Takes the arguments of `AsyncScoreReader`; `close` it, or use it as a context manager.
    """

    def __init__(self, url: str = "redis://localhost:6379/0", **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="image-score-lookup", daemon=True)
        self._thread.start()
        try:
            self._reader: AsyncScoreReader = self._call(_open(url, options))
        except BaseException:
            self._end()
            raise

    def _call(self, task: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, listing_id: str, budget_s: float | None = None) -> Score:
        """Return one listing's score."""
        return self.get_many([listing_id], budget_s)[listing_id]

    def get_many(self, ids: Sequence[str], budget_s: float | None = None) -> Answer:
        """Return the scores of these listings; see `AsyncScoreReader.get_many`."""
        answer: Answer = self._call(self._reader.get_many(ids, budget_s))
        return answer

    def stats(self) -> Stats:
        return self._reader.stats()

    def close(self) -> None:
        self._call(self._reader.__aexit__(None, None, None))
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _open(url: str, options: dict[str, Any]) -> AsyncScoreReader:
    return await AsyncScoreReader(url, **options).__aenter__()

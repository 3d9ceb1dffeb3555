"""A broken scorer, for the checker's test: it calls a record finished before it has handled it."""

from __future__ import annotations

from collections.abc import Sequence

from stream.cli import main
from stream.consumer import Output, ParallelConsumer
from stream.consumer.group import Work

_handle = ParallelConsumer._handle


async def _finish_first(self: ParallelConsumer, work: Work) -> float | None:
    self._group.finish(work)
    return await _handle(self, work)


async def _only_deliver(self: ParallelConsumer, work: Work, outputs: Sequence[Output]) -> bool:
    assert self._outbox is not None
    await self._outbox.deliver(outputs)
    return True


if __name__ == "__main__":
    ParallelConsumer._handle = _finish_first  # type: ignore[method-assign]
    ParallelConsumer._finish = _only_deliver  # type: ignore[method-assign]
    main()

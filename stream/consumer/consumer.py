"""Consumes a topic for an event loop: in order per key, keys in parallel, bounded, retried, committed when finished."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stream.consumer import waiting as waits
from stream.consumer.config import ConsumerConfig
from stream.consumer.errors import DrainTimedOut, TooManyDeadLetters
from stream.consumer.group import Group, Work
from stream.consumer.outbox import NotDelivered, Outbox
from stream.consumer.parking import Parking
from stream.consumer.record import DeadLetterMaker, Failed, Handler, Output, attempt
from stream.consumer.scheduler import KeyScheduler
from stream.consumer.waiting import waiting

log = logging.getLogger("image_score.consumer")
_HOLD_S = 0.05
_WATCH_S = 5.0


class Health(NamedTuple):
    """What a probe or a dashboard wants to know."""

    silent_s: float
    """Seconds since the polling thread last went round."""
    joined: bool
    """Whether the group has given us partitions, or none, at least once."""
    partitions: list[int]
    running: int
    held: int
    """Records that run or wait."""
    parked: int
    """Records that wait in the retry topic."""
    oldest_s: float
    """How long the oldest running record has been running."""
    holding: str
    """Why nothing is started at present; empty: it is."""


class ParallelConsumer:
    """Runs `handler` for each record of a topic: different keys at once, the same key in order of offset.

    A thread polls the broker, so that a busy event loop never costs the group membership. A record is finished when
    `handler` has returned and its outputs are held by the brokers, or committed in a transaction with its offset.
    If `handler` raises `Failed`, the record is tried again if that may help, and else becomes the dead letter that
    `dead_letter` makes. If it raises anything else the consumer stops and `run` raises: nothing is lost.

    While `hold` returns a reason, nothing new is started.
    """

    def __init__(
        self,
        config: ConsumerConfig,
        handler: Handler,
        dead_letter: DeadLetterMaker,
        hold: Callable[[], str] = lambda: "",
    ) -> None:
        self._config = config
        self._handler = handler
        self._dead_letter = dead_letter
        self._hold = hold
        self._scheduler: KeyScheduler[Work] = KeyScheduler()
        self._parking = Parking(config)
        self._running: dict[Work, asyncio.Task[None]] = {}
        self._lanes: set[asyncio.Task[None]] = set()
        self._dead: deque[bool] = deque(maxlen=config.dead_letter_window)
        self._wake: asyncio.TimerHandle | None = None
        self._allowance = self._refilled = 0.0
        self._draining = False
        self._loop: asyncio.AbstractEventLoop
        self._failure: asyncio.Future[None]
        self._outbox = Outbox(config) if config.delivery == "at_least_once" else None
        self._group = Group(config, self._accept_soon, self._release_and_wait)
        self.finished = 0

    async def run(self) -> None:
        """Consume until `stop`; then finish what is in flight (up to `drain_s`), commit, leave the group.

        Raises:
            DrainTimedOut: the deadline passed first.
            TooManyDeadLetters: more than `dead_letter_share` of the last records.
            Fenced: another member took over.
            Exception: what else `handler` or the broker connection raised, after the same orderly end.
        """
        self._loop = asyncio.get_running_loop()
        self._failure = self._loop.create_future()
        poller = asyncio.create_task(asyncio.to_thread(self._group.run))
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([poller, self._failure], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._group.stop()
        self._draining = True
        await asyncio.wait([poller])
        left = await self._drain(set(self._running), self._config.drain_s)
        watch.cancel()
        try:
            await asyncio.to_thread(self._group.close)
        finally:
            if self._outbox:
                await self._outbox.close()
        poller.result()
        if self._failure.done():
            self._failure.result()
        if left:
            raise DrainTimedOut(
                f"{left} records did not finish within {self._config.drain_s:.0f} s; they are handled again after the "
                "next start"
            )

    def stop(self) -> None:
        """Ask `run` to end; callable from any thread and from signal handlers."""
        self._group.stop()

    def health(self) -> Health:
        now = time.monotonic()
        return Health(
            silent_s=now - self._group.ticked,
            joined=self._group.joined,
            partitions=self._group.partitions,
            running=len(self._running),
            held=self._group.held,
            parked=self._parking.count,
            oldest_s=max((now - work.since for work in self._running), default=0.0),
            holding="stopping" if self._group.stopping else self._hold(),
        )

    # --- called by the polling thread ----------------------------------------------------------------------

    def _accept_soon(self, works: list[Work]) -> None:
        self._loop.call_soon_threadsafe(self._accept, works)

    def _release_and_wait(self, partitions: list[int], within_s: float) -> None:
        asyncio.run_coroutine_threadsafe(self._release(partitions, within_s), self._loop).result()

    # --- in the event loop ---------------------------------------------------------------------------------

    def _accept(self, works: list[Work]) -> None:
        now = time.monotonic()
        for work in works:
            if work.source.lost:
                continue
            source, due = work.source, 0.0
            if source.is_retry:
                due = self._parking.arrived(work, now)
            # A record without a key has no order to keep.
            key = (source.is_retry, work.offset if work.record.key is None else work.record.key)
            self._scheduler.add(source.partition, key, work, due)
        self._pump()

    def _pump(self) -> None:
        """Start what may run."""
        while len(self._lanes) < self._config.in_flight and (entry := self._next()):
            lane = self._loop.create_task(self._lane(*entry))
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)

    def _next(self) -> tuple[object, object, Work] | None:
        """Return what to run now; if it is nothing yet, see to it that somebody asks again."""
        if self._draining:
            return None
        now = time.monotonic()
        if self._hold():
            self._ask_again(_HOLD_S)
            return None
        if self._config.rate and not self._may_start(now):
            return None
        entry = self._scheduler.next(now)
        if entry is None:
            due = self._scheduler.next_due
            if due is not None:
                self._ask_again(max(due - now, 0.001))
            return None
        self._allowance -= 1
        return entry

    def _may_start(self, now: float) -> bool:
        """A token bucket that holds a tenth of a second's worth."""
        rate = self._config.rate
        self._allowance = min(max(1.0, rate / 10), self._allowance + (now - self._refilled) * rate)
        self._refilled = now
        if self._allowance >= 1:
            return True
        self._ask_again((1 - self._allowance) / rate)
        return False

    def _ask_again(self, after_s: float) -> None:
        if self._wake is None or self._wake.when() > self._loop.time() + after_s or self._wake.cancelled():
            if self._wake:
                self._wake.cancel()
            self._wake = self._loop.call_later(after_s, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self._pump()

    async def _lane(self, partition: object, key: object, work: Work) -> None:
        """Handle a record, and then whatever is next, one after the other."""
        entry: tuple[object, object, Work] | None = (partition, key, work)
        while entry:
            partition, key, work = entry
            work.since, work.waits = time.monotonic(), waits.begin()
            self._running[work] = asyncio.current_task()  # type: ignore[assignment]
            try:
                again_at = await self._handle(work)
                self._scheduler.done(partition, key, again_at)
            except asyncio.CancelledError:
                self._loop.call_soon(self._pump)
                raise
            except Exception as error:
                if not self._failure.done():
                    self._failure.set_exception(error)
                return
            finally:
                del self._running[work]
            entry = self._next()

    async def _handle(self, work: Work) -> float | None:
        """Bring a record to its end, or return when to try it again."""
        while True:
            is_dead = False
            if self._parking.is_behind_others(work):
                outputs: Sequence[Output] = [self._parking.park(work)]
            else:
                try:
                    outputs = await self._try(work)
                except Failed as failure:
                    if again_at := self._parking.next_try(work, failure, time.monotonic()):
                        return again_at
                    if self._parking.takes(work, failure):
                        log.warning("%s: %s; trying again later", work.record, failure)
                        outputs = [self._parking.park(work)]
                    else:
                        outputs, is_dead = [self._bury(work, failure)], True
            if await self._finish(work, outputs):
                self._dead.append(is_dead)
                return None
            self._parking.not_parked(work)

    async def _try(self, work: Work) -> Sequence[Output]:
        """Run the handler; a failure that may pass is tried again in place, while others of the key wait."""
        record = work.record
        tries = 1 if work.source.is_retry else self._config.attempts_in_place
        for number in range(tries):
            if number:
                with waiting("the next try"):
                    await asyncio.sleep(self._config.backoff_s * 2 ** (number - 1))
            try:
                return await self._handler(record)
            except Failed as failure:
                record.attempts = (*record.attempts, attempt(failure))
                if not failure.passing or number == tries - 1:
                    raise
        raise AssertionError("unreachable")

    async def _finish(self, work: Work, outputs: Sequence[Output]) -> bool:
        """Produce the outputs and mark the record as finished; return False when it must be handled again."""
        if self._outbox and outputs:
            try:
                with waiting("Kafka to take the outputs"):
                    await self._outbox.deliver(outputs)
            except NotDelivered as error:
                log.warning("%s: outputs not delivered (%s); handling it again", work.record, error)
                await asyncio.sleep(self._config.backoff_s)
                return False
            outputs = ()
        self._parking.finished(work)
        self._group.finish(work, outputs)
        self.finished += 1
        return True

    def _bury(self, work: Work, failure: Failed) -> Output:
        """Return the dead letter, unless there are too many."""
        limit, window = self._config.dead_letter_share, self._dead.maxlen or 0
        dead = sum(self._dead) + 1
        if len(self._dead) == window and dead > limit * window:
            raise TooManyDeadLetters(
                f"{dead} of the last {window} records became dead letters, the limit is {limit:.0%}; the last: "
                f"{failure}. Nothing more is consumed: find the cause, or raise the limit, and start again"
            )
        return self._dead_letter(work.record, failure)

    async def _release(self, partitions: list[int], within_s: float) -> None:
        """Forget what waits of these partitions; give what runs `within_s`, then cancel it."""
        for partition in partitions:
            self._scheduler.drop(partition)
            self._parking.drop(partition)
        await self._drain({work for work in self._running if work.source.partition in partitions}, within_s)

    async def _drain(self, works: set[Work], within_s: float) -> int:
        """Return when none of these runs any more; how many had to be cancelled."""
        deadline = time.monotonic() + within_s
        while (works := works & self._running.keys()) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # a record has no future of its own: that would cost each of them
        for work in works:
            self._running[work].cancel()
        cancelled = len(works)
        while works & self._running.keys():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return cancelled

    async def _watch(self) -> None:
        """Log what records that are stuck wait for."""
        told: dict[Work, float] = {}
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(min(_WATCH_S, self._config.stuck_s / 2))
                now = time.monotonic()
                told = {work: at for work, at in told.items() if work in self._running}
                for work in list(self._running):
                    if now - max(work.since, told.get(work, 0.0)) > self._config.stuck_s:
                        told[work] = now
                        what = ", ".join(work.waits) or "its handler"
                        age = now - work.since
                        log.warning(
                            "stuck: %s (key %r) for %.0f s, waiting for %s", work.record, work.record.key, age, what
                        )

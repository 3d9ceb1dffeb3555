"""Consumes a topic for an event loop: bounded in flight, in order per key, offsets committed after the effects."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream.kafka import client_config, log_error
from stream.log import log
from stream.offsets import PartitionOffsets
from stream.settings import Settings

_POLL_S = 0.05
_PATIENCE_S = 0.5
_BATCH = 100


class Record(NamedTuple):
    """One Kafka record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


Handler = Callable[[Record], Awaitable[None]]
Place = tuple[str, int]


class RecordConsumer:
    """Runs `handler` for each record: different keys at once, the same key in order of offset.

    A thread polls the broker, so that a busy event loop never costs the group membership. At the bound
    (`listings_in_flight` records, or `is_full`) it takes no more, and soon pauses its partitions.

    A record is finished when `handler` returns. If `handler` raises, the consumer stops and `run` raises: the
    offset is not committed, so nothing is lost.
    """

    def __init__(self, settings: Settings, handler: Handler, is_full: Callable[[], bool] = lambda: False) -> None:
        self._settings = settings
        self._handler = handler
        self._is_full = is_full
        config = {
            "group.id": settings.scorer_group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            # A thread of its own heartbeats: a scorer that is silent for this long is gone.
            "session.timeout.ms": 10_000,
            "queued.max.messages.kbytes": 16384,
            "fetch.wait.max.ms": 20,
            "error_cb": log_error,
        }
        self._consumer = Consumer(client_config(settings) | config)
        self._offsets: dict[Place, PartitionOffsets] = {}
        self._tails: dict[bytes, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: queue.SimpleQueue[tuple[PartitionOffsets, int]] = queue.SimpleQueue()
        self._in_flight = 0
        self._paused = False
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._failure: asyncio.Future[None]

    async def run(self) -> None:
        """Consume until `stop`; then finish what is in flight (up to `drain_timeout_s`), commit, leave the group.

        Raises:
            Exception: whatever `handler` or the broker connection raised, after the same orderly end.
        """
        self._loop = asyncio.get_running_loop()
        self._failure = self._loop.create_future()
        poller = asyncio.create_task(asyncio.to_thread(self._poll_until_stopped))
        await asyncio.wait([poller, self._failure], return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        await asyncio.wait([poller])
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.drain_timeout_s)
        await asyncio.to_thread(self._close)
        for task in self._tasks:
            task.cancel()
        poller.result()
        if self._failure.done():
            self._failure.result()

    def stop(self) -> None:
        """Ask `run` to end; callable from any thread and from signal handlers."""
        self._stopping.set()

    # --- in the polling thread -----------------------------------------------------------------------------

    def _poll_until_stopped(self) -> None:
        self._consumer.subscribe([self._settings.events_topic], on_revoke=self._on_revoke, on_lost=self._on_lost)
        next_commit = time.monotonic()
        while not self._stopping.is_set():
            self._match_demand()
            records = [self._track(message) for message in self._take() if self._is_record(message)]
            if records:
                self._in_flight += len(records)
                self._loop.call_soon_threadsafe(self._start, records)
            if time.monotonic() >= next_commit:
                self._commit(asynchronous=True)
                next_commit = time.monotonic() + self._settings.commit_interval_s

    def _take(self) -> list[Message]:
        """Return up to as many messages as there is room for: wait for the first, then take what is here already."""
        first = self._consumer.poll(_POLL_S)
        if first is None:
            return []
        more = min(_BATCH, self._settings.listings_in_flight - self._in_flight - 1)
        return [first, *self._consumer.consume(more, 0)] if more > 0 else [first]

    def _match_demand(self) -> None:
        """Wait for room; pause the partitions if there is none for long, resume them when there is again.

        Pausing throws away what was fetched ahead, so a full house that moves on is only waited for.
        """
        has_room = self._wait_for_room(0 if self._paused else _PATIENCE_S)
        if not has_room:  # again each time: a rebalance may have brought partitions that are not paused
            self._consumer.pause(self._consumer.assignment())
        elif self._paused:
            self._consumer.resume(self._consumer.assignment())
        self._paused = not has_room

    def _wait_for_room(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        self._collect_finished()
        while self._in_flight >= self._settings.listings_in_flight or self._is_full():
            if time.monotonic() >= deadline or self._stopping.is_set():
                return False
            self._collect_finished(wait_s=_POLL_S)
        return True

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.fatal() or error.code() in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        ):
            raise KafkaException(error)
        log.warning("kafka: %s", error.str())
        return False

    def _track(self, message: Message) -> tuple[Record, PartitionOffsets]:
        record = to_record(message)
        offsets = self._offsets.setdefault((record.topic, record.partition), PartitionOffsets())
        offsets.start(record.offset)
        return record, offsets

    def _collect_finished(self, wait_s: float = 0) -> None:
        """Note what the event loop has finished; wait up to `wait_s` for the first of it."""
        try:
            offsets, offset = self._finished.get(block=wait_s > 0, timeout=wait_s or None)
            while True:
                offsets.finish(offset)
                self._in_flight -= 1
                offsets, offset = self._finished.get_nowait()
        except queue.Empty:
            return

    def _commit(self, asynchronous: bool, places: list[Place] | None = None) -> None:
        self._collect_finished()
        commits = []
        for topic, partition in self._offsets if places is None else places:
            offsets = self._offsets.get((topic, partition))
            offset = offsets.take_committable() if offsets else None
            if offset is not None:
                commits.append(TopicPartition(topic, partition, offset))
        if not commits:
            return
        try:
            if asynchronous:
                self._consumer.commit(offsets=commits, asynchronous=True)
            else:
                self._consumer.commit(offsets=commits, asynchronous=False)
        except KafkaException as error:
            # What is not committed is handled again, which changes nothing.
            log.warning("offsets not committed: %s", error.args[0].str())

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        places = [(p.topic, p.partition) for p in partitions]
        self._commit(asynchronous=False, places=places)
        self._forget(places)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget([(p.topic, p.partition) for p in partitions])

    def _forget(self, places: list[Place]) -> None:
        """Work in flight of these partitions goes on (its writes are versioned), but commits nothing any more."""
        for place in places:
            self._offsets.pop(place, None)

    def _close(self) -> None:
        self._commit(asynchronous=False)
        self._consumer.close()

    # --- in the event loop ---------------------------------------------------------------------------------

    def _start(self, records: list[tuple[Record, PartitionOffsets]]) -> None:
        for record, offsets in records:
            key = record.key or b""
            task = self._loop.create_task(self._handle(record, offsets, self._tails.get(key)))
            self._tails[key] = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _handle(self, record: Record, offsets: PartitionOffsets, before: asyncio.Task[None] | None) -> None:
        """Handle one record after the one `before` it with the same key."""
        if before is not None and not before.done():
            await asyncio.wait([before])
        key = record.key or b""
        try:
            await self._handler(record)
            self._finished.put((offsets, record.offset))
        except Exception as error:
            if not self._failure.done():
                self._failure.set_exception(error)
        finally:
            if self._tails.get(key) is asyncio.current_task():
                del self._tails[key]


def to_record(message: Message) -> Record:
    """Return what a polled message holds, with the types it really has."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    headers: Any = message.headers() or ()
    return Record(topic, partition, offset, message.key(), message.value(), tuple(headers))

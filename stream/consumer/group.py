"""The thread that talks to Kafka: polls on demand, follows rebalances, commits what is finished."""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream.consumer.config import ConsumerConfig
from stream.consumer.errors import ConsumerStopped, Fenced
from stream.consumer.offsets import PartitionOffsets
from stream.consumer.outbox import Transactions
from stream.consumer.record import Output, Record, to_record

log = logging.getLogger("image_score.consumer")

_POLL_S = 0.05
_BATCH = 500
_FULL_S = 0.003
_PATIENCE_S = 0.5
"""librdkafka throws away what it fetched ahead of a paused partition: a short wait is cheaper."""
_REQUEST_S = 15.0
_RETRY_BUFFERS = 10
_FATAL = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.INCONSISTENT_GROUP_PROTOCOL,
    KafkaError.UNSUPPORTED_ASSIGNOR,
)


@dataclass(slots=True, eq=False)
class Source:
    """One assigned partition, of the topic or of its retry topic."""

    topic: str
    partition: int
    is_retry: bool
    offsets: PartitionOffsets
    start: int
    held: int = 0
    """Records that are waiting or running."""
    held_bytes: int = 0
    paused: bool = False
    lost: bool = False


@dataclass(slots=True, eq=False)
class Work:
    """A record on its way through the consumer; `offset` is its place in `source`."""

    record: Record
    source: Source
    offset: int
    since: float = 0.0
    waits: list[str] = field(default_factory=list)


class _Finished(NamedTuple):
    work: Work
    outputs: Sequence[Output]


class Group:
    """A member of the consumer group. `run` is the thread's whole life; `finish` and `stop` may be called from others.

    `accept` gets what was polled, in order; `release` (partitions, seconds) returns when nothing of these partitions
    runs any more. A partition of the topic is read only when what its retry partition held has been accepted, so that
    the keys that wait there are known. Both are always assigned to the same member.
    """

    def __init__(
        self,
        config: ConsumerConfig,
        accept: Callable[[list[Work]], None],
        release: Callable[[list[int], float], None],
    ) -> None:
        self._config = config
        self._accept = accept
        self._release = release
        self._consumer = Consumer({**_librdkafka(config), "on_commit": self._on_commit})
        self._sources: dict[tuple[str, int], Source] = {}
        self._catching_up: dict[int, Source] = {}
        self._finished: queue.SimpleQueue[_Finished] = queue.SimpleQueue()
        self._pending: list[_Finished] = []
        self._transactions: Transactions | None = None
        if config.delivery == "exactly_once":
            self._transactions = Transactions(config, f"{config.group}-{config.instance or uuid.uuid4().hex}")
        self._full_since: float | None = None
        self._stopping = threading.Event()
        self.ticked = time.monotonic()
        """When the thread last went round."""
        self.joined = False

    @property
    def partitions(self) -> list[int]:
        """The assigned partitions of the topic."""
        read = {p for topic, p in list(self._sources) if topic == self._config.topic}
        return sorted(read | set(self._catching_up))

    @property
    def held(self) -> int:
        """Records that are waiting or running."""
        return sum(source.held for source in list(self._sources.values()))

    def finish(self, work: Work, outputs: Sequence[Output] = ()) -> None:
        """Note that all effects of a record are done, but for `outputs`, which go with its offset."""
        self._finished.put(_Finished(work, outputs))

    def stop(self) -> None:
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    # --- the thread ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Poll until `stop`. The member stays in its group until `close`.

        Raises:
            ConsumerStopped: the retry topic has fewer partitions than the topic.
        """
        if self._config.retry_topic:
            self._check_retry_topic()
        if self._transactions:
            self._transactions.start()
        self._consumer.subscribe(
            [self._config.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        next_commit = time.monotonic()
        while not self._stopping.is_set():
            self.ticked = time.monotonic()
            self._collect()
            if self._has_room():
                works = [work for message in self._take() if (work := self._track(message)) is not None]
                if works:
                    self._accept(works)
            if time.monotonic() >= next_commit:
                self._commit()
                next_commit = time.monotonic() + self._config.commit_s

    def _check_retry_topic(self) -> None:
        names = (self._config.topic, self._config.retry_topic)
        needed, found = (len(self._consumer.list_topics(name, _REQUEST_S).topics[name].partitions) for name in names)
        if found < needed:
            raise ConsumerStopped(
                f"topic {names[1]} has {found} partitions and {names[0]} has {needed}: make it as large"
            )

    def close(self) -> None:
        """Commit and leave the group; nothing may run any more."""
        try:
            self._commit(wait=True)
        finally:
            self._consumer.close()

    def _take(self) -> list[Message]:
        """Wait for a message, and return it with those that are here already."""
        first = self._consumer.poll(_POLL_S)
        if first is None:
            return []
        return [first, *self._consumer.consume(_BATCH, 0)]

    def _track(self, message: Message) -> Work | None:
        error = message.error()
        if error is not None:
            self._on_error(error, message)
            return None
        record = to_record(message)
        source = self._sources.get((record.topic, record.partition))
        if source is None or not source.offsets.start(record.offset):
            return None
        source.held += 1
        source.held_bytes += record.size
        return Work(record, source, record.offset)

    def _on_error(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            if message.topic() == self._config.retry_topic and (
                source := self._catching_up.pop(_number(message), None)
            ):
                self._assign([source])
        elif error.code() == KafkaError.FENCED_INSTANCE_ID or "fenced by other consumer" in error.str():
            raise Fenced(f"another member with instance {self._config.instance!r} joined: give each its own")
        elif error.fatal() or error.code() in (KafkaError._FATAL, *_FATAL):
            raise KafkaException(error)
        else:
            log.warning("kafka: %s", error.str())

    # --- demand --------------------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Pause what is full and resume what is not; return whether to poll.

        While nothing has room we wait a little; then all is paused, and polling serves the rebalances alone.
        """
        sources = self._sources.values()
        limit, held_bytes = self._config.in_flight_bytes, sum(source.held_bytes for source in sources)
        full = [s for s in sources if not s.paused and (held_bytes >= limit or self._is_full(s))]
        back = [s for s in sources if s.paused and held_bytes <= limit // 2 and self._is_half_empty(s)]
        if back:
            self._consumer.resume([TopicPartition(source.topic, source.partition) for source in back])
            for source in back:
                source.paused = False
        if not full:
            self._full_since = None
            return True
        open_ones = [s for s in sources if not s.paused and s not in full]
        if all(source.is_retry and not source.held for source in open_ones):
            now = time.monotonic()
            self._full_since = self._full_since or now
            if now - self._full_since < _PATIENCE_S:
                self._stopping.wait(_FULL_S)
                return False
        self._consumer.pause([TopicPartition(source.topic, source.partition) for source in full])
        for source in full:
            source.paused = True
        return True

    def _limit(self, source: Source) -> int:
        return self._config.buffer * (_RETRY_BUFFERS if source.is_retry else 1)

    def _is_full(self, source: Source) -> bool:
        return source.held >= self._limit(source) or not source.offsets.has_room

    def _is_half_empty(self, source: Source) -> bool:
        return source.held <= self._limit(source) // 2 and source.offsets.has_room

    # --- commits -------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Take note of what the handlers have finished."""
        try:
            while True:
                finished = self._finished.get_nowait()
                work, source = finished.work, finished.work.source
                if source.lost:
                    continue
                source.held -= 1
                source.held_bytes -= work.record.size
                source.offsets.finish(work.offset)
                if finished.outputs:
                    self._pending.append(finished)
        except queue.Empty:
            return

    def _commit(self, wait: bool = False) -> None:
        self._collect()
        dirty = [source for source in self._sources.values() if source.offsets.dirty]
        if not dirty:
            return
        offsets = [TopicPartition(s.topic, s.partition, s.offsets.committable, s.offsets.metadata()) for s in dirty]
        if self._transactions:
            outputs = [output for finished in self._pending for output in finished.outputs]
            done = self._transactions.commit(outputs, offsets, self._consumer)
            if done:
                self._pending.clear()
        else:
            done = self._commit_offsets(offsets, wait)
        for source in dirty:
            source.offsets.dirty = not done

    def _commit_offsets(self, offsets: list[TopicPartition], wait: bool) -> bool:
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            # What is not committed is handled again, which changes nothing.
            log.warning("offsets not committed: %s", error.args[0].str())
            return False
        return True

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        for place in places:
            failed = error or place.error
            if failed is None:
                continue
            log.warning("%s[%d]: offset not committed: %s", place.topic, place.partition, failed.str())
            if source := self._sources.get((place.topic, place.partition)):
                source.offsets.dirty = True

    # --- rebalances (called within poll) -------------------------------------------------------------------

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        topic, retry = self._config.topic, self._config.retry_topic
        numbers = [p.partition for p in partitions]
        places = [TopicPartition(name, n) for n in numbers for name in ((topic, retry) if retry else (topic,))]
        sources = [self._source(place) for place in self._committed(places)] if places else []
        self._catching_up |= {s.partition: s for s in sources if retry and not s.is_retry}
        self._assign([source for source in sources if source.is_retry or not retry])
        self.joined = True

    def _assign(self, sources: list[Source]) -> None:
        self._sources |= {(source.topic, source.partition): source for source in sources}
        places = [TopicPartition(s.topic, s.partition, s.start) for s in sources]
        self._consumer.incremental_assign(places)
        # A partition that was paused when it was lost is still paused when it comes back.
        self._consumer.resume(places)

    def _committed(self, places: list[TopicPartition]) -> list[TopicPartition]:
        while True:
            try:
                return self._consumer.committed(places, timeout=_REQUEST_S)
            except KafkaException as error:
                if self._stopping.is_set() or not error.args[0].retriable():
                    raise
                log.warning("committed offsets cannot be read: %s; trying again", error.args[0].str())

    def _source(self, place: TopicPartition) -> Source:
        committed = None if place.offset == OFFSET_INVALID else place.offset
        try:
            offsets = PartitionOffsets(committed, place.metadata)
        except ValueError as error:
            log.warning("%s[%d]: metadata %r is damaged: %s", place.topic, place.partition, place.metadata, error)
            offsets = PartitionOffsets(committed)
        is_retry = place.topic == self._config.retry_topic
        return Source(place.topic, place.partition, is_retry, offsets, place.offset)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [p.partition for p in partitions]
        self._release(numbers, self._config.revoke_s)
        self._commit(wait=True)
        self._forget(numbers)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [p.partition for p in partitions]
        log.warning("lost partitions %s: this member was silent for too long", numbers)
        self._release(numbers, 0.0)
        self._collect()
        self._forget(numbers)

    def _forget(self, numbers: list[int]) -> None:
        """What still finishes of these partitions is not committed: their new owner does it again."""
        for number in numbers:
            self._catching_up.pop(number, None)
        gone = [source for source in self._sources.values() if source.partition in numbers]
        for source in gone:
            source.lost = True
            del self._sources[source.topic, source.partition]
        self._pending = [finished for finished in self._pending if not finished.work.source.lost]
        self._consumer.incremental_unassign([TopicPartition(s.topic, s.partition) for s in gone])


def _number(message: Message) -> int:
    number: Any = message.partition()
    return int(number)


def _librdkafka(config: ConsumerConfig) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "group.id": config.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": bool(config.retry_topic),
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "queued.max.messages.kbytes": 16384,
        "fetch.wait.max.ms": 20,
        "group.protocol": config.protocol,
    }
    if config.protocol == "classic":
        # A thread of its own heartbeats.
        heartbeat_ms = max(300, int(config.session_s * 100))
        ours |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": int(config.session_s * 1000),
            "heartbeat.interval.ms": heartbeat_ms,
        }
    if config.instance:
        ours["group.instance.id"] = config.instance
    return {**ours, **config.client}

"""The pipeline's processes on topics of their own, and what a test asks of them."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from schemas import DeadLetter, ImageScore, ListingEvent, ListingEventType, RedisRecord, SellerHint, record_key
from stream.demo.process import PipelineProcess
from stream.kafka import client_config, create_topics, topics
from stream.publish import event_of
from stream.settings import Settings
from tests.photo_host import PhotoHost

Answer = TypeVar("Answer")
TIMEOUT_S = 45.0


def isolated(settings: Settings, embedded: bool = True) -> Settings:
    """Return settings with topics and groups that nobody else uses, on the same servers; makes the topics."""
    suffix = uuid.uuid4().hex[:8]
    names = [name for name in Settings.model_fields if name.endswith(("_topic", "_group"))]
    own = settings.model_copy(update={name: f"{getattr(settings, name)}.{suffix}" for name in names})
    if not embedded:
        create_topics(own)
        return own
    producer = Producer(client_config(own))
    for topic in topics(own):
        producer.list_topics(topic.topic, timeout=10)
    return own


def listing_id(name: str = "listing") -> str:
    return f"{name}-{uuid.uuid4().hex[:10]}"


class Pipeline:
    """Starts and stops the processes; publishes events; waits for answers."""

    def __init__(self, settings: Settings, host: PhotoHost, embedded: bool = True) -> None:
        self.settings = isolated(settings, embedded)
        self.host = host
        self.redis = redis.Redis.from_url(settings.redis)
        self.processes: dict[str, PipelineProcess] = {}
        self._producer = Producer(client_config(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            if kind is not None:
                print(f"--- log of {process.name}\n{process.log.read_text()[-5000:]}")
            process.stop()

    def start(self, *names: str) -> None:
        """Start `worker` or `hints`, and wait until they are ready."""
        for name in names:
            self.processes[name] = PipelineProcess(name, self.settings)
            self.processes[name].start()
        for name in names:
            self.processes[name].wait_ready()

    def publish(self, *urls: str, listing: str | None = None, version: int = 1, **changes: Any) -> str:
        """Publish an event with these photos; return its listing id."""
        event = event_of(listing or listing_id(), list(urls) or [self.host.good], version=version)
        return self.produce(event.model_copy(update=changes))

    def delete(self, listing: str, version: int) -> None:
        event = event_of(listing, [self.host.good], version=version)
        self.produce(event.model_copy(update={"type": ListingEventType.DELETED, "photos": ()}))

    def produce(self, event: ListingEvent) -> str:
        self.produce_bytes(event.listing_id.encode(), event.to_json())
        return event.listing_id

    def produce_bytes(self, key: bytes | None, value: bytes | None) -> None:
        self._producer.produce(self.settings.events_topic, key=key, value=value)
        assert self._producer.flush(10) == 0

    def record(self, listing: str) -> RedisRecord | None:
        data = self.redis.get(record_key(listing))
        assert data is None or isinstance(data, bytes)
        return None if data is None else RedisRecord.from_bytes(data)

    def wait_for_record(self, listing: str, version: int = 1) -> RedisRecord:
        def newest() -> RedisRecord | None:
            record = self.record(listing)
            return record if record and record.event_version >= version else None

        return wait_for(newest, f"record of {listing} at version {version}")

    def read(self, topic: str, key: str | None = None) -> list[Message]:
        """Return all messages of a topic (with this key), from its beginning to its end now."""
        found = read_topic(self.settings, topic)
        return found if key is None else [message for message in found if message.key() == key.encode()]

    def scores(self, listing: str) -> list[ImageScore | None]:
        """Return the listing's scores in order; None is a tombstone."""
        values = [message.value() for message in self.read(self.settings.scores_topic, listing)]
        return [None if value is None else ImageScore.from_json(value) for value in values]

    def wait_for_score(self, listing: str, version: int = 1) -> ImageScore:
        def newest() -> ImageScore | None:
            found = [score for score in self.scores(listing) if score and score.event.version == version]
            return found[-1] if found else None

        return wait_for(newest, f"score of {listing} at version {version}")

    def hints(self, listing: str) -> list[SellerHint]:
        values = [message.value() or b"" for message in self.read(self.settings.hints_topic)]
        return [hint for hint in map(SellerHint.from_json, values) if hint.listing_id == listing]

    def wait_for_hint(self, listing: str, version: int = 1) -> SellerHint:
        def newest() -> SellerHint | None:
            found = [hint for hint in self.hints(listing) if hint.listing_version == version]
            return found[-1] if found else None

        return wait_for(newest, f"hint for {listing} at version {version}")

    def dead_letters(self, key: str | None) -> list[DeadLetter]:
        return [DeadLetter.from_json(m.value() or b"") for m in self.read(self.settings.dlq_topic, key)]

    def wait_for_dead_letter(self, key: str | None) -> DeadLetter:
        return wait_for(lambda: next(iter(self.dead_letters(key)), None), f"dead letter of {key}")


def read_topic(settings: Settings, topic: str, **config: Any) -> list[Message]:
    """Return all messages of a topic, from its beginning to its end now."""
    ours = {"group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer(client_config(settings) | ours | config)
    try:
        parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        left = set(parts)
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in parts])
        found = []
        while left and (message := consumer.poll(10)) is not None:
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                left.discard(message.partition() or 0)
        assert not left, f"{topic} could not be read to its end"
        return found
    finally:
        consumer.close()


def committed(settings: Settings) -> int:
    """Return how many events of the topic are committed by the scorer's group, over all partitions."""
    consumer = Consumer(client_config(settings) | {"group.id": settings.scorer_group})
    try:
        parts = consumer.list_topics(settings.events_topic, timeout=10).topics[settings.events_topic].partitions
        offsets = consumer.committed([TopicPartition(settings.events_topic, p) for p in parts], timeout=10)
        return sum(max(place.offset, 0) for place in offsets)
    finally:
        consumer.close()


def wait_for(probe: Callable[[], Answer | None], what: str, timeout_s: float = TIMEOUT_S) -> Answer:
    """Return the first answer of `probe` that is not None or False; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := probe():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {timeout_s:.0f} s")


def cmdline(path: Path) -> str:
    """Return a process's command line from its /proc file; nothing when it has ended, reaped or not."""
    try:
        return path.read_text()
    except OSError:
        return ""


def interruptible() -> None:
    """For a child's preexec_fn: where the tests run in the background, SIGINT is ignored and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

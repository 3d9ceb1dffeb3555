"""Scores events again: copies them to a topic of their own, and scores that one without delaying new listings.

Both halves go on where they were after an interruption. The copy's place is the committed offset of a group of its own
(of a file: the number of lines), with the end in the metadata; the scoring is a consumer group like the scorer's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream.consumer import Output, produce
from stream.errors import DependencyError, ImageScoreError
from stream.kafka import client_config, partitions
from stream.publish import events_of_lines
from stream.scorer import Outcome
from stream.settings import Settings
from stream.worker import consumer_config, run_in_loop, score_events

_TIMEOUT_S = 30.0
_LOOK_S = 0.5
_CHUNK = 1000


class Backfill:
    """One backfill: of the events topic since a time (None: its beginning), or of a `file` of events.

    Called again with the same source it goes on, or, when all was scored, starts anew.
    """

    def __init__(self, settings: Settings, since: datetime | None = None, file: Path | None = None) -> None:
        self._settings = settings
        self._since = since
        self._file = file
        name = hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file else (since or "beginning")
        self.group = f"{settings.scorer_group}-backfill"
        self._copy_group = f"{self.group}-copy-{name}"

    def copy(self) -> int:
        """Produce what is to be scored again to the backfill topic; return how many events are left to score.

        Raises:
            DependencyError: Kafka does not answer.
            ImageScoreError: a line of the file is not an event.
        """
        try:
            if self.left() == 0 or not self._is_copied():
                self._copy_file() if self._file else self._copy_topic()
            return self.left()
        except KafkaException as error:
            raise DependencyError(f"Kafka at {self._settings.kafka}: {error.args[0].str()}") from None

    def left(self) -> int:
        """Return how many events of the backfill topic are not scored yet."""
        consumer = self._consumer(self.group)
        try:
            places = consumer.committed(_places(consumer, self._settings.backfill_topic), timeout=_TIMEOUT_S)
            left = 0
            for place in places:
                low, high = consumer.get_watermark_offsets(place, _TIMEOUT_S)
                left += high - max(low, place.offset)
            return left
        finally:
            consumer.close()

    def score(self, on_progress: Callable[[int], None]) -> Counter[Outcome]:
        """Score until nothing is left; calls `on_progress` with how many are left. Stops early on SIGTERM or SIGINT."""
        settings = self._settings.model_copy(update={"infer_priority": 2, "health_port": 0})
        config = consumer_config(
            settings,
            topic=settings.backfill_topic,
            group=self.group,
            instance="",
            retry_topic="",
            attempts_in_place=2,
        )

        async def until() -> None:
            while (left := await asyncio.to_thread(self.left)) > 0:
                on_progress(left)
                await asyncio.sleep(_LOOK_S)
            on_progress(0)

        return run_in_loop(score_events(settings, config, skip_old=True, until=until))

    def _is_copied(self) -> bool:
        consumer = self._consumer(self._copy_group)
        try:
            topic = self._settings.backfill_topic if self._file else self._settings.events_topic
            places = [p for p in consumer.committed(_places(consumer, topic), timeout=_TIMEOUT_S) if p.metadata]
            return bool(places) and all(place.offset >= int(place.metadata or 0) for place in places)
        finally:
            consumer.close()

    def _copy_topic(self) -> None:
        settings = self._settings
        consumer, copier = self._consumer(self._copy_group), _Copier(settings)
        try:
            for place in self._starts(consumer):
                consumer.assign([place])
                position, end = place.offset, int(place.metadata or 0)
                while position < end:
                    for message in consumer.consume(_CHUNK, timeout=1.0):
                        offset, error = message.offset() or 0, message.error()
                        if error is not None:
                            # Transaction markers may be all that is left before the end.
                            position = end if error.code() == KafkaError._PARTITION_EOF else position
                        elif offset < end:
                            copier.produce(message.key(), message.value())
                            position = offset + 1
                        else:
                            position = end
                    copier.flush()
                    done = TopicPartition(place.topic, place.partition, position, str(end))
                    consumer.commit(offsets=[done], asynchronous=False)
        finally:
            consumer.close()

    def _starts(self, consumer: Consumer) -> list[TopicPartition]:
        """Return for each partition where to go on, with the end in the metadata."""
        places = consumer.committed(_places(consumer, self._settings.events_topic), timeout=_TIMEOUT_S)
        if any(place.metadata and place.offset < int(place.metadata) for place in places):
            return [place for place in places if place.metadata]
        ends = {p.partition: consumer.get_watermark_offsets(p, _TIMEOUT_S) for p in places}
        since = self._since
        if since is not None:
            at = round(since.timestamp() * 1000)
            asked = [TopicPartition(p.topic, p.partition, at) for p in places]
            starts = {p.partition: p.offset for p in consumer.offsets_for_times(asked, timeout=_TIMEOUT_S)}
        else:
            starts = {partition: low for partition, (low, _) in ends.items()}
        return [
            TopicPartition(p.topic, p.partition, starts[p.partition], str(ends[p.partition][1]))
            for p in places
            if 0 <= starts[p.partition] < ends[p.partition][1]
        ]

    def _copy_file(self) -> None:
        assert self._file is not None
        with self._file.open("rb") as lines:
            events = list(events_of_lines(lines))
        if not events:
            raise ImageScoreError(f"{self._file} holds no event: give one JSON object a line")
        consumer, copier = self._consumer(self._copy_group), _Copier(self._settings)
        try:
            place = consumer.committed([TopicPartition(self._settings.backfill_topic, 0)], timeout=_TIMEOUT_S)[0]
            start = 0 if place.offset in (OFFSET_INVALID, len(events)) else place.offset
            for begin in range(start, len(events), _CHUNK):
                chunk = events[begin : begin + _CHUNK]
                for event in chunk:
                    copier.produce(event.listing_id.encode(), event.to_json())
                copier.flush()
                done = TopicPartition(place.topic, 0, begin + len(chunk), str(len(events)))
                consumer.commit(offsets=[done], asynchronous=False)
        finally:
            consumer.close()

    def _consumer(self, group: str) -> Consumer:
        ours = {"group.id": group, "enable.auto.commit": False, "enable.partition.eof": True}
        return Consumer(client_config(self._settings) | ours)


class _Copier:
    """Produces to the backfill topic."""

    def __init__(self, settings: Settings) -> None:
        config = {"enable.idempotence": True, "linger.ms": 20, "compression.type": "lz4"}
        self._producer = Producer(client_config(settings) | config)
        self._topic = settings.backfill_topic

    def produce(self, key: bytes | None, value: bytes | None) -> None:
        produce(self._producer, Output(self._topic, key, value))

    def flush(self) -> None:
        if self._producer.flush(_TIMEOUT_S):
            raise DependencyError(f"the brokers did not take events for {self._topic} within {_TIMEOUT_S:.0f} s")


def _places(consumer: Consumer, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in partitions(consumer, topic)]

"""Decides from Kafka and Redis alone whether anything was lost, doubled, or put out of order."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from schemas import RedisRecord, record_key, tombstone_key
from stream.consumer.offsets import decode
from stream.consumer.parking import FROM
from stream.kafka import client_config
from stream.settings import Settings

Place = tuple[int, int]
"""(partition, offset) in the events topic."""


@dataclass
class Verdict:
    """What the checker found; every list names examples."""

    events: int = 0
    lost: list[str] = field(default_factory=list)
    older_won: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    """Outputs that are there twice; allowed when delivery is at least once."""
    handled_again: list[str] = field(default_factory=list)
    """Outputs that came after a commit had said that their event was done."""
    dead_letters: int = 0
    hints_lost: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, int]:
        return {name: value if isinstance(value, int) else len(value) for name, value in vars(self).items()}


class Checker:
    """Reads on where it stopped; `snapshot` notes what the scorers' group has committed, with its metadata."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = redis.Redis.from_url(settings.redis)
        self._readers = {
            topic: _Reader(settings, topic)
            for topic in (
                settings.events_topic,
                settings.retry_topic,
                settings.scores_topic,
                settings.dlq_topic,
                settings.hints_topic,
            )
        }
        self._group = Consumer(client_config(settings) | {"group.id": settings.scorer_group, "log_level": 0})
        self._inputs: dict[Place, tuple[str, int, str] | None] = {}
        self._versions: dict[str, dict[int, Place]] = defaultdict(dict)
        self._scores: dict[str, list[tuple[int | None, int]]] = defaultdict(list)
        self._parked: set[Place] = set()
        self._dead: Counter[Place] = Counter()
        self._hints: set[tuple[str, int]] = set()
        self._base: dict[int, int] = {}
        self._done_at: dict[Place, int] = {}

    def close(self) -> None:
        self._group.close()
        for reader in self._readers.values():
            reader.close()

    def snapshot(self) -> None:
        """Note which events the committed offsets and their metadata call done by now."""
        partitions = range(self._settings.partitions)
        places = [TopicPartition(self._settings.events_topic, partition) for partition in partitions]
        found = self._group.committed(places, timeout=10)
        now_ms = round(time.time() * 1000)
        for place in found:
            if place.offset < 0:
                continue
            unfinished, end = decode(place.offset, place.metadata)
            done = set(range(self._base.get(place.partition, 0), place.offset))
            done |= set(range(place.offset, end)) - set(unfinished)
            for offset in done:
                self._done_at.setdefault((place.partition, offset), now_ms)
            self._base[place.partition] = max(place.offset, self._base.get(place.partition, 0))

    def verdict(self) -> Verdict:
        """Read what is new and judge all."""
        self._read()
        found = Verdict(events=len(self._inputs), dead_letters=sum(self._dead.values()))
        for place, event in self._inputs.items():
            if event is None and not self._dead[place]:
                found.lost.append(f"invalid event at {place} has no dead letter")
        records = self._records()
        for listing, versions in self._versions.items():
            self._judge_newest(found, listing, versions, *records[listing])
            self._judge_scores(found, listing, versions)
        found.duplicated += [f"{count} dead letters of {place}" for place, count in self._dead.items() if count > 1]
        return found

    def _judge_newest(
        self, found: Verdict, listing: str, versions: dict[int, Place], record: bytes | None, tombstone: bytes | None
    ) -> None:
        newest = max(versions)
        place = versions[newest]
        deleted = (self._inputs[place] or ("", 0, ""))[2] == "deleted"
        last = self._scores[listing][-1][0] if self._scores[listing] else -1
        version = RedisRecord.from_bytes(record).event_version if record else -1
        if self._dead[place]:
            return
        if deleted:
            if record is None and int(tombstone or -1) == newest:
                if last is not None:
                    found.older_won.append(f"{listing}: deleted at {newest}, but its last score is {last}")
            else:
                found.lost.append(f"{listing}: deletion {newest} at {place}, Redis has {version}")
            return
        if version == newest and last != newest:
            kind = found.lost if newest not in {v for v, _ in self._scores[listing]} else found.older_won
            kind.append(f"{listing}: {newest} at {place} is in Redis, but the last score is {last}")
        elif version != newest:
            scored = newest in {v for v, _ in self._scores[listing]}
            (found.older_won if scored else found.lost).append(f"{listing}: {newest} at {place}, Redis has {version}")
        elif (listing, newest) not in self._hints:
            found.hints_lost.append(f"{listing}: no hint for {newest}")

    def _judge_scores(self, found: Verdict, listing: str, versions: dict[int, Place]) -> None:
        highest = -1
        counts: Counter[int] = Counter()
        for version, at in self._scores[listing]:
            if version is None:
                continue
            if version < highest:
                found.out_of_order.append(f"{listing}: score of {version} after {highest}")
            highest = max(highest, version)
            counts[version] += 1
            place = versions.get(version, (-1, -1))
            done_at = self._done_at.get(place)
            # A parked event is done where it was, and has its output later.
            if done_at is not None and at > done_at and place not in self._parked:
                found.handled_again.append(f"{listing} {version}: output {at - done_at} ms after its commit")
        found.duplicated += [f"{listing}: {count} scores of {v}" for v, count in counts.items() if count > 1]

    def _records(self) -> dict[str, tuple[Any, Any]]:
        listings = list(self._versions)
        if not listings:
            return {}
        records: Any = self._redis.mget([record_key(listing) for listing in listings])
        tombstones: Any = self._redis.mget([tombstone_key(listing) for listing in listings])
        return dict(zip(listings, zip(records, tombstones, strict=True), strict=True))

    def _read(self) -> None:
        settings = self._settings
        for message in self._readers[settings.events_topic].read():
            self._note_input(message)
        for message in self._readers[settings.retry_topic].read():
            headers: Any = dict(message.headers() or ())
            _, partition, offset = headers[FROM].decode().rsplit("/", 2)
            self._parked.add((int(partition), int(offset)))
        for message in self._readers[settings.scores_topic].read():
            value = message.value()
            version = None if value is None else orjson.loads(value)["event"]["version"]
            self._scores[(message.key() or b"").decode()].append((version, message.timestamp()[1]))
        for message in self._readers[settings.dlq_topic].read():
            letter = orjson.loads(message.value() or b"{}")
            if letter["topic"] == settings.events_topic:
                self._dead[letter["partition"], letter["offset"]] += 1
        for message in self._readers[settings.hints_topic].read():
            hint = orjson.loads(message.value() or b"{}")
            self._hints.add((hint["listing_id"], hint["listing_version"]))

    def _note_input(self, message: Message) -> None:
        place = (message.partition() or 0, message.offset() or 0)
        try:
            event = orjson.loads(message.value() or b"")
            listing, version, kind = event["listing_id"], event["version"], event["type"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self._inputs[place] = None
            return
        self._inputs[place] = (listing, version, kind)
        self._versions[listing][version] = place


class _Reader:
    """Reads a topic on from where it stopped to its end, committed transactions alone."""

    def __init__(self, settings: Settings, topic: str) -> None:
        ours = {"group.id": "checker", "log_level": 0, "enable.auto.commit": False, "enable.partition.eof": True}
        self._consumer = Consumer(client_config(settings) | ours | {"isolation.level": "read_committed"})
        self._partitions = set(self._consumer.list_topics(topic, timeout=30).topics[topic].partitions)
        self._next = dict.fromkeys(self._partitions, OFFSET_BEGINNING)
        self._topic = topic

    def read(self) -> list[Message]:
        self._consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in self._next.items()])
        left, found = set(self._partitions), []
        while left:
            for message in self._consumer.consume(1000, timeout=0.2):
                partition, error = message.partition() or 0, message.error()
                if error is None:
                    found.append(message)
                    self._next[partition] = (message.offset() or 0) + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(partition)
        self._consumer.unassign()
        return found

    def close(self) -> None:
        self._consumer.close()

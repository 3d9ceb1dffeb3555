"""The dead letters: list, replay once, purge.

What became of a letter is a record without a value behind it in the same partition, with the headers `dlq-mark`
(replayed, purged) and `dlq-place` (partition:offset of the letter). A replay and its marks are one Kafka transaction,
and all replays share a transactional.id: of two at once, the older one is fenced, so nothing is replayed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas import DeadLetter, DeadLetterType, MessageError
from stream.errors import DependencyError, FencedError
from stream.kafka import MAX_LETTER_BYTES, client_config, partitions, read_topic
from stream.settings import Settings

MARK, PLACE, REPLAY_OF = "dlq-mark", "dlq-place", "replay-of"
REPLAYED, PURGED, OPEN = "replayed", "purged", "open"
_CHUNK = 500
_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Entry:
    """A dead letter where it lies; `state` is open, replayed or purged."""

    partition: int
    offset: int
    letter: DeadLetter
    state: str = OPEN

    @property
    def place(self) -> str:
        return f"{self.partition}:{self.offset}"

    @property
    def listing(self) -> str:
        return (self.letter.key or b"").decode(errors="backslashreplace")


class Filter(NamedTuple):
    """Which letters are meant; None: whatever it is."""

    type: DeadLetterType | None = None
    since: datetime | None = None
    until: datetime | None = None
    listing: str | None = None
    states: tuple[str, ...] = (OPEN,)
    places: tuple[str, ...] = ()

    def takes(self, entry: Entry) -> bool:
        letter = entry.letter
        return (
            entry.state in self.states
            and self.type in (None, letter.type)
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at < self.until)
            and self.listing in (None, entry.listing)
            and (not self.places or entry.place in self.places)
        )


class Replayed(NamedTuple):
    replayed: int
    without_bytes: int
    """Letters that were too large to keep their record: publish its event again."""


class Ledger:
    """The letters of a topic, each with its state, as its records are read in order."""

    def __init__(self) -> None:
        self._found: dict[str, Entry] = {}
        self._marks: dict[str, str] = {}

    def add(self, message: Message) -> None:
        """Take a record: a letter, or what became of one."""
        partition, offset = _where(message)
        headers: Any = dict(message.headers() or ())
        if MARK in headers:
            self._marks[(headers.get(PLACE) or b"").decode(errors="replace")] = headers[MARK].decode(errors="replace")
            return
        try:
            entry = Entry(partition, offset, DeadLetter.from_json(message.value() or b""))
        except MessageError:
            return  # somebody else's record
        self._found[entry.place] = entry

    def entries(self) -> list[Entry]:
        """Return the letters, oldest first."""
        for place in self._marks.keys() & self._found.keys():
            self._found[place].state = self._marks[place]
        return sorted(self._found.values(), key=lambda entry: entry.letter.failed_at)


def entries(settings: Settings) -> list[Entry]:
    """Return all dead letters, oldest first, each with its state.

    Raises:
        DependencyError: the topic cannot be read.
    """
    ledger = Ledger()
    for message in read_topic(settings, settings.dlq_topic):
        ledger.add(message)
    return ledger.entries()


def replay(settings: Settings, chosen: Filter) -> Replayed:
    """Produce the records of the chosen letters to their topic again, marked by a header `replay-of`.

    Raises:
        DependencyError: Kafka does not answer.
        FencedError: another replay began meanwhile; what this one did not do is left open.
    """
    with _Marker(settings) as marker:
        meant = [entry for entry in entries(settings) if chosen.takes(entry)]
        usable = [entry for entry in meant if entry.letter.value is not None or entry.letter.key is not None]
        for chunk in _chunks(usable):
            marker.commit(chunk, REPLAYED, replay=True)
    return Replayed(len(usable), len(meant) - len(usable))


def purge(settings: Settings, chosen: Filter) -> tuple[int, int]:
    """Close the chosen letters, and delete what lies before the first open letter of each partition.

    Return how many were closed, and how many records were deleted.
    """
    with _Marker(settings) as marker:
        meant = [entry for entry in entries(settings) if chosen.takes(entry)]
        for chunk in _chunks([entry for entry in meant if entry.state == OPEN]):
            marker.commit(chunk, PURGED, replay=False)
    return len(meant), _delete_closed(settings)


def _delete_closed(settings: Settings) -> int:
    # The ends come first: a letter that arrives after the entries were read lies beyond them, and stays.
    bounds = _bounds(settings)
    first_open: dict[int, int] = {}
    for entry in entries(settings):
        if entry.state == OPEN:
            first_open[entry.partition] = min(entry.offset, first_open.get(entry.partition, entry.offset))
    stops = {partition: min(high, first_open.get(partition, high)) for partition, (_, high) in bounds.items()}
    ends = [TopicPartition(settings.dlq_topic, p, stop) for p, stop in stops.items() if stop > bounds[p][0]]
    deleted = sum(stop - bounds[p][0] for p, stop in stops.items())
    if not ends:
        return 0
    admin = AdminClient(client_config(settings))
    try:
        for future in admin.delete_records(ends, request_timeout=_TIMEOUT_S).values():
            future.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError._UNSUPPORTED_FEATURE:
            return 0  # the embedded Kafka; closed letters stay closed
        raise DependencyError(f"Kafka did not delete records: {error.args[0].str()}") from None
    return deleted


def _bounds(settings: Settings) -> dict[int, tuple[int, int]]:
    """Return the first and the next offset of each partition of the dead letters."""
    topic = settings.dlq_topic
    consumer = Consumer(client_config(settings) | {"group.id": "unused", "enable.auto.commit": False})
    try:
        found = partitions(consumer, topic)
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), _TIMEOUT_S) for p in found}
    finally:
        consumer.close()


class _Marker:
    """The one transactional producer that replays and marks letters."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        name = {"transactional.id": f"{settings.dlq_topic}-tool", "message.max.bytes": MAX_LETTER_BYTES}
        self._producer = Producer(client_config(settings) | name)

    def __enter__(self) -> _Marker:
        # Before the letters are read: whoever worked on them is fenced, and what it did is visible.
        self._run(lambda: self._producer.init_transactions(_TIMEOUT_S))
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.flush(0)

    def commit(self, chunk: list[Entry], mark: str, replay: bool) -> None:
        """Mark these letters, and produce their records again if it is a `replay`: all of it, or nothing."""
        self._run(self._producer.begin_transaction)
        for entry in chunk:
            letter = entry.letter
            if replay:
                headers: list[Any] = [*letter.headers, (REPLAY_OF, entry.place.encode())]
                self._producer.produce(letter.topic, key=letter.key, value=letter.value, headers=headers)
            marks: list[Any] = [(MARK, mark.encode()), (PLACE, entry.place.encode())]
            self._producer.produce(
                self._settings.dlq_topic, key=letter.key, value=None, headers=marks, partition=entry.partition
            )
        self._run(lambda: self._producer.commit_transaction(_TIMEOUT_S))

    def _run(self, step: Callable[[], Any]) -> None:
        try:
            step()
        except KafkaException as failure:
            error = failure.args[0]
            if error.fatal() or error.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED):
                raise FencedError(f"another replay or purge took over ({error.str()}): run this one again") from None
            raise DependencyError(f"Kafka at {self._settings.kafka}: {error.str()}; nothing was changed") from None


def _chunks(items: list[Entry]) -> Iterator[list[Entry]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _where(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset

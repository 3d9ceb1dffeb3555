"""What goes in and out of a handler: records, outputs, and failures."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import Message

Headers = tuple[tuple[str, bytes | None], ...]


class Attempt(NamedTuple):
    """One failed try."""

    at: float
    """Seconds since the epoch."""
    error: str


@dataclass(slots=True, eq=False)
class Record:
    """One Kafka record. `topic`, `partition` and `offset` are where it was produced first, also after a retry."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    attempts: tuple[Attempt, ...] = ()
    """The tries so far, oldest first."""

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Output(NamedTuple):
    """A record that a handler wants produced. With `partition` -1 the key chooses."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int = -1


class Failed(Exception):
    """Raised by a handler: this record cannot be handled. It becomes a dead letter.

    With `passing`, it is tried again first: in place, then through the retry topic.
    """

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


Handler = Callable[[Record], Awaitable[Sequence[Output]]]
"""Handles a record and returns what to produce; the record is finished when the brokers hold all of it.

It may be called again for the same record, after a crash or a delivery that failed: its effects are idempotent.
"""

DeadLetterMaker = Callable[[Record, Failed], Output]
"""Makes the dead letter of a record from the last failure; `record.attempts` holds all of them."""


def to_record(message: Message) -> Record:
    """Return what a polled message holds, with the types it really has."""
    headers: Any = message.headers() or ()
    topic: Any = message.topic()
    partition: Any = message.partition()
    offset: Any = message.offset()
    return Record(topic, partition, offset, message.key(), message.value(), tuple(headers))


def attempt(failure: Failed) -> Attempt:
    return Attempt(round(time.time(), 3), str(failure)[:500])

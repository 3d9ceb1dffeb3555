"""Records that wait for another try: the retry topic, and which keys have records there.

A record whose failure may pass is produced to the retry topic, to the partition of the number that it came from, with
these headers. Later records of its key follow it there, so that the key's order holds. A record from the retry topic
is tried until its tries are used up, in memory: one of the same key behind it waits.

    retry-from      topic/partition/offset of the record at first
    retry-due       when the next try may be, ms since the epoch
    retry-attempts  JSON: [[seconds since the epoch, error], ...], oldest first
"""

from __future__ import annotations

import json
import time
from collections import defaultdict

from stream.consumer.config import ConsumerConfig
from stream.consumer.group import Work
from stream.consumer.record import Attempt, Failed, Headers, Output, Record

FROM, DUE, ATTEMPTS = "retry-from", "retry-due", "retry-attempts"
_OURS = (FROM, DUE, ATTEMPTS)
_MOST_ATTEMPTS = 20
"""In the header; more would not help anybody."""
_LATEST_S = 2**33
"""Seconds since the epoch; what is later was damaged."""


class Parking:
    """Knows the parked records of each (partition, key); for the event loop alone."""

    def __init__(self, config: ConsumerConfig) -> None:
        self._topic = config.retry_topic
        self._delays = config.retry_delays_s if config.retry_topic else ()
        self._in_place = config.attempts_in_place
        self._parked: dict[int, dict[bytes, set[str]]] = defaultdict(dict)

    @property
    def count(self) -> int:
        """How many records wait now."""
        return sum(len(origins) for keys in self._parked.values() for origins in keys.values())

    def is_behind_others(self, work: Work) -> bool:
        """Whether an earlier record of the same key is parked."""
        if work.source.is_retry or work.record.key is None:
            return False
        keys = self._parked.get(work.source.partition)
        return bool(keys) and work.record.key in keys  # type: ignore[operator]

    def takes(self, work: Work, failure: Failed) -> bool:
        """Whether a record that failed goes to the retry topic."""
        return failure.passing and not work.source.is_retry and bool(self._delays)

    def next_try(self, work: Work, failure: Failed, now: float) -> float | None:
        """Return when a record from the retry topic is tried again; None: it is not."""
        used = len(work.record.attempts) - self._in_place
        if not work.source.is_retry or not failure.passing or used >= len(self._delays):
            return None
        return now + self._delays[max(used, 0)]

    def park(self, work: Work) -> Output:
        """Return what to produce to park a record; it counts as parked from now on."""
        record = work.record
        if record.key is not None:
            self._parked[work.source.partition].setdefault(record.key, set()).add(_origin(record))
        delay = self._delays[0] if record.attempts else 0.0
        headers = (
            (FROM, _origin(record).encode()),
            (DUE, str(round((time.time() + delay) * 1000)).encode()),
            (ATTEMPTS, json.dumps(record.attempts[-_MOST_ATTEMPTS:]).encode()),
        )
        return Output(self._topic, record.key, record.value, (*record.headers, *headers), work.source.partition)

    def not_parked(self, work: Work) -> None:
        """Take back `park`: the record was not delivered."""
        if not work.source.is_retry:
            self._forget(work)

    def arrived(self, work: Work, now: float) -> float:
        """Take note of a record polled from the retry topic; return when it is due.

        The record gets its first place and its attempts back. Headers that are damaged count as absent.
        """
        record = work.record
        given = dict(record.headers)
        record.headers = _without_ours(record.headers)
        _restore(record, given.get(FROM), given.get(ATTEMPTS))
        if record.key is not None:
            self._parked[work.source.partition].setdefault(record.key, set()).add(_origin(record))
        try:
            left = int(given.get(DUE) or 0) / 1000 - time.time()
        except (ValueError, OverflowError):
            left = 0.0
        # A clock that jumped must not keep a record for longer than its wait.
        return now + min(max(left, 0.0), max(self._delays, default=0.0))

    def finished(self, work: Work) -> None:
        """Take note that a record from the retry topic has come to its end."""
        if work.source.is_retry:
            self._forget(work)

    def drop(self, partition: int) -> None:
        self._parked.pop(partition, None)

    def _forget(self, work: Work) -> None:
        keys = self._parked.get(work.source.partition)
        if keys is None or work.record.key is None:
            return
        origins = keys.get(work.record.key)
        if origins is not None:
            origins.discard(_origin(work.record))
            if not origins:
                del keys[work.record.key]


def _origin(record: Record) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"


def _without_ours(headers: Headers) -> Headers:
    return tuple(header for header in headers if header[0] not in _OURS)


def _restore(record: Record, origin: bytes | None, attempts: bytes | None) -> None:
    try:
        topic, partition, offset = (origin or b"").decode().rsplit("/", 2)
        place = int(partition), int(offset)
        found = tuple(Attempt(float(at), str(error)[:500]) for at, error in json.loads(attempts or b"[]"))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return
    if topic and min(place) >= 0 and all(0 <= attempt.at < _LATEST_S for attempt in found):
        record.topic, (record.partition, record.offset) = topic, place
        record.attempts = found[-_MOST_ATTEMPTS:]

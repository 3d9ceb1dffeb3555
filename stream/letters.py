"""Failures of records, and the dead letters that they become."""

from __future__ import annotations

from datetime import UTC, datetime

from schemas import DeadLetter, DeadLetterType, FailedAttempt, FailedPhoto, PhotoErrorType, Stage
from stream.consumer import Failed, Output, Record
from stream.kafka import MAX_LETTER_BYTES
from stream.log import log

_OVERHEAD = 1024
"""Bytes that Kafka adds to a record, at most."""


class EventFailed(Failed):
    """The event becomes a dead letter; if a photo may be there later, it is tried again first."""

    def __init__(self, type: DeadLetterType, stage: Stage, message: str, photos: tuple[FailedPhoto, ...] = ()) -> None:
        super().__init__(message, passing=any(miss.error.type is PhotoErrorType.UNAVAILABLE for miss in photos))
        self.type, self.stage, self.photos = type, stage, photos


def dead_letter(topic: str, record: Record, failure: Failed) -> Output:
    """Return the dead letter, for `topic`, of a record that cannot be handled; a huge one goes without its bytes."""
    assert isinstance(failure, EventFailed)
    tries = max([miss.error.attempts for miss in failure.photos], default=1)
    letter = DeadLetter(
        type=failure.type,
        message=str(failure)[:8000],
        stage=failure.stage,
        attempts=max(tries, len(record.attempts)),
        history=tuple(
            FailedAttempt(at=datetime.fromtimestamp(at, UTC), message=error) for at, error in record.attempts
        ),
        photos=failure.photos,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        headers=record.headers,
        value=record.value,
        failed_at=datetime.now(UTC),
    )
    log.warning("dead letter: %s at %s: %s", failure.type, record, failure)
    data = letter.to_json()
    if len(data) + len(record.key or b"") > MAX_LETTER_BYTES - _OVERHEAD:
        data = letter.model_copy(update={"value": None, "headers": ()}).to_json()
    return Output(topic, record.key, data)

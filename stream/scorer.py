"""What becomes of one listing event: a record and a score, a deletion, an explicit skip, or a dead letter."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from confluent_kafka import KafkaError, KafkaException

from schemas import (
    DeadLetter,
    DeadLetterType,
    FailedPhoto,
    ImageScore,
    ListingEvent,
    ListingEventType,
    ListingPhoto,
    MessageError,
    PhotoErrorType,
    RedisRecord,
    ScoredPhoto,
    Stage,
)
from schemas.image_score import AnsweredEvent, ModelInfo, Timings, listing_score
from stream.consumer import Record
from stream.errors import PhotoRejected
from stream.fetch import PhotoFetcher
from stream.inference import TritonModel
from stream.kafka import EventProducer
from stream.log import log
from stream.photo import check_header
from stream.settings import Settings
from stream.store import RecordStore


class Outcome(StrEnum):
    """How an event ended; the scorer counts each."""

    SCORED = "scored"
    DELETED = "deleted"
    STALE = "stale"
    DEAD_LETTER = "dead_letter"


class EventFailed(Exception):
    """The event becomes a dead letter."""

    def __init__(self, type: DeadLetterType, stage: Stage, message: str, photos: tuple[FailedPhoto, ...] = ()) -> None:
        super().__init__(message)
        self.type, self.stage, self.photos = type, stage, photos


@dataclass(slots=True)
class _PhotoResult:
    outcome: ScoredPhoto | FailedPhoto
    fetch_ms: float
    infer_ms: float
    model_version: int


class Scorer:
    """Handles listing events; all effects of an event are done when `handle` returns."""

    def __init__(
        self,
        settings: Settings,
        fetcher: PhotoFetcher,
        model: TritonModel,
        store: RecordStore,
        producer: EventProducer,
    ) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._model = model
        self._store = store
        self._producer = producer
        self.outcomes: Counter[Outcome] = Counter()

    async def handle(self, record: Record) -> None:
        """Bring one record of `listing.events` to its end, and count it."""
        try:
            outcome = await self._answer(record)
        except EventFailed as failure:
            await self._bury(record, failure)
            outcome = Outcome.DEAD_LETTER
        except KafkaException:
            raise  # nowhere to put a dead letter either
        except Exception as error:
            # A fault of ours that one record brings out must not stop all the others.
            log.exception("unexpected error at %s[%d]@%d", record.topic, record.partition, record.offset)
            text = f"{type(error).__name__}: {error}: see the scorer's log, then replay"
            await self._bury(record, EventFailed(DeadLetterType.UNEXPECTED, Stage.UNKNOWN, text))
            outcome = Outcome.DEAD_LETTER
        self.outcomes[outcome] += 1

    async def _answer(self, record: Record) -> Outcome:
        started = time.perf_counter()
        event = validate(record)
        if event.type is ListingEventType.DELETED:
            return await self._delete(event)
        results = await asyncio.gather(*(self._score_photo(photo) for photo in event.photos))
        score = self._combine(event, results, started)
        if not await self._store.put(event.listing_id, RedisRecord.of(score)):
            return Outcome.STALE
        await self._producer.send(self._settings.scores_topic, event.listing_id.encode(), score.to_json())
        return Outcome.SCORED

    async def _delete(self, event: ListingEvent) -> Outcome:
        if not await self._store.delete(event.listing_id, event.version):
            return Outcome.STALE
        await self._producer.send(self._settings.scores_topic, event.listing_id.encode(), None)
        return Outcome.DELETED

    async def _score_photo(self, photo: ListingPhoto) -> _PhotoResult:
        started = fetched = time.perf_counter()
        try:
            async with self._fetcher.photo(photo) as data:
                fetched = time.perf_counter()
                check_header(data, self._settings.max_pixels)
                found = await self._model.predict(data)
        except PhotoRejected as rejection:
            failed = FailedPhoto(photo_id=photo.photo_id, position=photo.position, error=rejection.error)
            return _PhotoResult(failed, (time.perf_counter() - started) * 1e3, 0.0, 0)
        scored = ScoredPhoto.model_construct(  # _parse put every number in its range
            photo_id=photo.photo_id,
            position=photo.position,
            score=found.score,
            class_probs=found.class_probs,
            aspects=found.aspects,
            issues=found.issues,
        )
        done = time.perf_counter()
        return _PhotoResult(scored, (fetched - started) * 1e3, (done - fetched) * 1e3, found.model_version)

    def _combine(self, event: ListingEvent, results: list[_PhotoResult], started: float) -> ImageScore:
        photos = tuple(r.outcome for r in results if isinstance(r.outcome, ScoredPhoto))
        failed = tuple(r.outcome for r in results if isinstance(r.outcome, FailedPhoto))
        if not photos:
            first = failed[0].error
            text = f"none of {len(failed)} photos could be scored; {first.type}: {first.message}"
            undecodable = all(miss.error.type is PhotoErrorType.UNREADABLE for miss in failed)
            stage = Stage.INFER if undecodable else Stage.FETCH
            raise EventFailed(DeadLetterType.NO_SCORABLE_PHOTO, stage, text, failed)
        position = min(photo.position for photo in event.photos)
        cover = next((photo.score for photo in photos if photo.position == position), None)
        return ImageScore.model_construct(
            listing_id=event.listing_id,
            score=round(listing_score(cover, [photo.score for photo in photos]), 4),
            photos=photos,
            failed=failed,
            model=ModelInfo(name=self._settings.model, version=max(r.model_version for r in results)),
            timings_ms=Timings(
                fetch=round(max(r.fetch_ms for r in results), 1),
                infer=round(max(r.infer_ms for r in results), 1),
                total=round((time.perf_counter() - started) * 1e3, 1),
            ),
            event=AnsweredEvent.model_construct(
                event_id=event.event_id,
                type=event.type,
                version=event.version,
                seller_id=event.seller_id,
                locale=event.locale,
                occurred_at=event.occurred_at,
            ),
            scored_at=datetime.now(UTC),
        )

    async def _bury(self, record: Record, failure: EventFailed) -> None:
        """Produce the dead letter; one too large for the brokers goes without the record's bytes."""
        letter = DeadLetter(
            type=failure.type,
            message=str(failure)[:8000],
            stage=failure.stage,
            attempts=max([miss.error.attempts for miss in failure.photos], default=1),
            photos=failure.photos,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            headers=record.headers,
            value=record.value,
            failed_at=datetime.now(UTC),
        )
        log.warning(
            "dead letter: %s at %s[%d]@%d: %s", failure.type, letter.topic, letter.partition, letter.offset, failure
        )
        try:
            await self._producer.send(self._settings.dlq_topic, record.key, letter.to_json())
        except KafkaException as error:
            if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise
            slim = letter.model_copy(update={"value": None, "headers": ()})
            await self._producer.send(self._settings.dlq_topic, record.key, slim.to_json())


def validate(record: Record) -> ListingEvent:
    """Return the event of a record.

    Raises:
        EventFailed: not a ListingEvent, or its key is not its listing_id.
    """
    try:
        event = ListingEvent.from_json(record.value or b"")
    except MessageError as error:
        raise EventFailed(DeadLetterType.INVALID_EVENT, Stage.VALIDATE, str(error)) from None
    key = record.key
    if key != event.listing_id.encode():
        text = f"key {key!r} is not listing_id {event.listing_id!r}: produce the event with its listing_id as the key"
        raise EventFailed(DeadLetterType.KEY_MISMATCH, Stage.VALIDATE, text)
    return event

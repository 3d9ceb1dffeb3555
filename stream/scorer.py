"""What becomes of one listing event: a record and a score, a deletion, an explicit skip, or a dead letter."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from schemas import (
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
from schemas.image_score import EVENT_HEADER, VERSION_HEADER, AnsweredEvent, ModelInfo, Timings, listing_score
from stream.consumer import Failed, Output, Record
from stream.errors import PhotoRejected
from stream.fetch import PhotoFetcher
from stream.inference import TritonModel
from stream.letters import EventFailed, dead_letter
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


@dataclass(slots=True)
class _PhotoResult:
    outcome: ScoredPhoto | FailedPhoto
    fetch_ms: float
    infer_ms: float
    model_version: int


class Scorer:
    """Handles listing events.

    With `skip_old`, an event older than the listing's record is skipped before its photos are fetched, which costs
    every event a round trip: worth it when many are old.
    """

    def __init__(
        self, settings: Settings, fetcher: PhotoFetcher, model: TritonModel, store: RecordStore, skip_old: bool = False
    ) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._model = model
        self._store = store
        self._skip_old = skip_old
        # An answer of Redis is as good as new for this long. What is produced later than that, by a scorer that was
        # suspended, say, might hide the score that another one has produced since.
        self._fresh_s = settings.session_timeout_s / 4
        self.outcomes: Counter[Outcome] = Counter()

    def hold(self) -> str:
        """Return why no event is to be started just now; empty: nothing speaks against it."""
        for breaker in (self._store.breaker, self._model.breaker):
            if breaker.is_open:
                return f"{breaker.name} is away"
        return "photos hold all the memory they may" if self._fetcher.budget.exhausted else ""

    async def handle(self, record: Record) -> Sequence[Output]:
        """Write what the record says to Redis, count it, and return what to produce.

        Raises:
            EventFailed: it becomes a dead letter.
        """
        try:
            outcome, outputs = await self._answer(record)
        except EventFailed:
            raise
        except Exception as error:
            # A fault of ours that one record brings out must not stop all the others.
            log.exception("unexpected error at %s", record)
            text = f"{type(error).__name__}: {error}: see the scorer's log, then replay"
            raise EventFailed(DeadLetterType.UNEXPECTED, Stage.UNKNOWN, text) from None
        self.outcomes[outcome] += 1
        return outputs

    async def _answer(self, record: Record) -> tuple[Outcome, Sequence[Output]]:
        started = time.perf_counter()
        event = validate(record)
        key = event.listing_id.encode()
        if event.type is ListingEventType.DELETED:
            if await self._write(event, None):
                marks = ((VERSION_HEADER, str(event.version).encode()), (EVENT_HEADER, answered(event).to_json()))
                return Outcome.DELETED, [Output(self._settings.scores_topic, key, None, marks)]
            return Outcome.STALE, ()
        if self._skip_old and await self._store.is_newer(event.listing_id, event.version):
            return Outcome.STALE, ()
        results = await asyncio.gather(*(self._score_photo(photo) for photo in event.photos))
        score = self._combine(event, results, started)
        if await self._write(event, RedisRecord.of(score)):
            return Outcome.SCORED, [Output(self._settings.scores_topic, key, score.to_json())]
        return Outcome.STALE, ()

    async def _write(self, event: ListingEvent, value: RedisRecord | None) -> bool:
        """Put or delete the record; return False when Redis holds a newer version of the listing."""
        while True:
            asked = time.monotonic()
            if value is None:
                applied = await self._store.delete(event.listing_id, event.version)
            else:
                applied = await self._store.put(event.listing_id, value)
            if time.monotonic() - asked < self._fresh_s:
                return applied

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
            url=str(photo.url),
            fixes=(),
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
            event=answered(event),
            scored_at=datetime.now(UTC),
        )

    def dead_letter(self, record: Record, failure: Failed) -> Output:
        """Count a record that cannot be scored and return its dead letter."""
        self.outcomes[Outcome.DEAD_LETTER] += 1
        return dead_letter(self._settings.dlq_topic, record, failure)


def answered(event: ListingEvent) -> AnsweredEvent:
    """Return what a score tells of the event that it answers."""
    return AnsweredEvent.model_construct(
        event_id=event.event_id,
        type=event.type,
        version=event.version,
        seller_id=event.seller_id,
        locale=event.locale,
        occurred_at=event.occurred_at,
        time_zone=event.time_zone,
    )


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

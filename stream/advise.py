"""`image-score advise`: passes scores on, and tells of weak photos what would raise them, tried at Triton.

It stands between `image.scores` and the hints app, so that the scorer, which search waits for, does not wait for it. A
photo that cannot be had any more, or that nothing helps, passes as it is; so does a tombstone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from enum import StrEnum

from schemas import DeadLetterType, ImageScore, ListingPhoto, MessageError, ScoredPhoto, Stage
from schemas.image_score import PhotoFix
from stream import kafka
from stream.consumer import Failed, Output, ParallelConsumer, Record
from stream.errors import PhotoRejected
from stream.fetch import PhotoFetcher
from stream.fixes.advise import helpful
from stream.inference import TritonModel
from stream.letters import EventFailed, dead_letter
from stream.photo import check_header
from stream.settings import Settings
from stream.worker import consume, consumer_config, run_in_loop

_LOW_PRIORITY = 2


class Outcome(StrEnum):
    """How a score ended; each is counted."""

    ADVISED = "advised"
    PASSED = "passed"
    DEAD_LETTER = "dead_letter"


class Adviser:
    """Handles records of `image.scores`."""

    def __init__(self, settings: Settings, fetcher: PhotoFetcher, model: TritonModel) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._model = model
        self._slots = asyncio.Semaphore(settings.advise_photos)
        self.outcomes: Counter[Outcome] = Counter()

    def hold(self) -> str:
        """Return why nothing is to be started just now; empty: nothing speaks against it."""
        breaker = self._model.breaker
        return f"{breaker.name} is away" if breaker.is_open else ""

    async def handle(self, record: Record) -> Sequence[Output]:
        """Return the record for the topic of advised scores.

        Raises:
            EventFailed: it is no ImageScore.
        """
        value = record.value
        if value is not None:
            try:
                score = ImageScore.from_json(value)
            except MessageError as error:
                raise EventFailed(DeadLetterType.INVALID_EVENT, Stage.VALIDATE, str(error)) from None
            photos = await asyncio.gather(*map(self._advised, score.photos))
            value = score.model_copy(update={"photos": tuple(photos)}).to_json()
            advised = any(photo.fixes for photo in photos)
            self.outcomes[Outcome.ADVISED if advised else Outcome.PASSED] += 1
        else:
            self.outcomes[Outcome.PASSED] += 1
        return [Output(self._settings.advised_topic, record.key, value, record.headers)]

    async def _advised(self, photo: ScoredPhoto) -> ScoredPhoto:
        if photo.url is None or photo.score >= self._settings.advise_below:
            return photo
        place = {"photo_id": photo.photo_id, "url": photo.url, "position": photo.position}
        try:
            where = ListingPhoto.model_validate(place)
            async with self._slots, self._fetcher.photo(where) as data:
                check_header(data, self._settings.max_pixels)
                _, found = await helpful(self._model, data)
        except (PhotoRejected, ValueError):
            return photo
        fixes = tuple(PhotoFix(fix=one.fix.value, score=one.score) for one in found if one.score > photo.score)
        return photo.model_copy(update={"fixes": fixes})

    def dead_letter(self, record: Record, failure: Failed) -> Output:
        """Count a record that is no score and return its dead letter."""
        self.outcomes[Outcome.DEAD_LETTER] += 1
        return dead_letter(self._settings.dlq_topic, record, failure)


async def advise_scores(settings: Settings) -> Counter[Outcome]:
    """Pass scores on until SIGTERM or SIGINT; return how many ended in which way.

    Raises:
        DependencyError: Kafka or Triton does not answer at the start, or Kafka refuses to go on.
        TooManyDeadLettersError, DrainError: as their names say.
    """
    quiet = settings.model_copy(update={"infer_priority": _LOW_PRIORITY})
    async with AsyncExitStack() as stack:
        fetcher = await stack.enter_async_context(PhotoFetcher(quiet))
        model = await stack.enter_async_context(TritonModel(quiet))
        await asyncio.gather(model.check(), asyncio.to_thread(kafka.check, quiet))
        adviser = Adviser(quiet, fetcher, model)
        config = consumer_config(quiet, topic=quiet.scores_topic, group=quiet.advise_group, retry_topic="", instance="")
        consumer = ParallelConsumer(config, adviser.handle, adviser.dead_letter, adviser.hold)
        await consume(quiet, config, consumer, adviser.outcomes, Outcome)
        return adviser.outcomes


def run(settings: Settings) -> None:
    """Run `advise_scores` in an event loop of its own."""
    run_in_loop(advise_scores(settings))

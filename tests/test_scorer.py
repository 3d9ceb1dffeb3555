"""What the scorer does when its own code fails."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

import pytest

from schemas import DeadLetter, DeadLetterType, ListingPhoto
from stream.consumer import Failed, Output, Record
from stream.fetch import PhotoFetcher
from stream.inference import TritonModel
from stream.publish import event_of
from stream.scorer import Outcome, Scorer
from stream.settings import Settings
from stream.store import RecordStore
from tests.photo_host import PhotoHost
from tests.pipeline import Pipeline, listing_id


class BrokenFetcher(PhotoFetcher):
    def photo(self, photo: ListingPhoto) -> AbstractAsyncContextManager[bytes]:  # type: ignore[override]
        return self._fail()

    def _fail(self) -> NoReturn:
        raise ZeroDivisionError("a bug")


def test_bug_that_one_record_brings_out_costs_one_dead_letter(settings: Settings, host: PhotoHost) -> None:
    pipeline = Pipeline(settings, host)
    event = event_of(listing_id(), [host.good])
    record = Record(pipeline.settings.events_topic, 0, 7, event.listing_id.encode(), event.to_json(), ())

    async def run() -> tuple[Scorer, Output]:
        own = pipeline.settings
        async with RecordStore(own) as store, TritonModel(own) as model:
            scorer = Scorer(own, BrokenFetcher(own), model, store)
            with pytest.raises(Failed) as failure:
                await scorer.handle(record)
            return scorer, scorer.dead_letter(record, failure.value)

    scorer, output = asyncio.run(run())
    assert scorer.outcomes == {Outcome.DEAD_LETTER: 1}
    letter = DeadLetter.from_json(output.value or b"")
    assert letter.type is DeadLetterType.UNEXPECTED
    assert letter.message.startswith("ZeroDivisionError: a bug")
    assert letter.value == event.to_json()

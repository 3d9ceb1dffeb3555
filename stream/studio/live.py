"""Follows the running pipeline for the operators' page: its topics, its group's lag, its scorers' health."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import BaseModel, Field, ValidationError

from schemas import ImageScore, ListingPhoto, MessageError
from stream.dlq import OPEN, Entry, Ledger
from stream.kafka import client_config, partitions
from stream.log import log
from stream.settings import Settings
from stream.studio.drift import Drift, drift

SPAN_S = 60
"""Throughput and latency are those of this many last seconds."""
_REMEMBERED = 20_000
"""Listings whose photos can be opened; that many scores are read at the start."""
_COMPARED = 5_000
"""Scores of each side that drift is told from, at most."""
_DAY_MS = 86_400_000
_LAG_EVERY_S, _WEEK_EVERY_S = 2.0, 600.0
_MISSING_EVERY_S = 5.0
"""How often topics that are not there yet are looked for."""
_TIMEOUT_S = 10.0


class ScorerHealth(BaseModel):
    """What a scorer's /readyz tells, as far as it is shown."""

    running: int = Field(ge=0)
    held: int = Field(ge=0)
    parked: int = Field(ge=0)
    holding: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The pipeline at one moment."""

    per_s: float
    """Listings scored a second, over the last ten seconds."""
    history: tuple[int, ...]
    """Listings scored in each of the last `SPAN_S` seconds, oldest first."""
    lag: int | None
    """Events that the scorers have not committed yet; None: not known yet."""
    latency_ms: tuple[float, float, float] | None
    """p50, p95 and p99 from a scorer's poll to the score; None: nothing was scored lately."""
    scorers: tuple[ScorerHealth | None, ...]
    """Of each scorer of `studio_scorers`; None: it does not answer."""
    letters: tuple[Entry, ...]
    """Open dead letters, newest first."""
    drift: Drift
    """Scores of the last day, and of the week before it."""
    problem: str
    """Why the figures stand still; empty: they do not."""

    @property
    def in_flight(self) -> int | None:
        """Records that the scorers work on; None where no scorer's health is known."""
        known = [scorer.running for scorer in self.scorers if scorer]
        return sum(known) if known else None


class LiveFeed:
    """Reads in a thread of its own, without a group of its own; use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live feed", daemon=True)
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque()
        self._today: deque[float] = deque(maxlen=_COMPARED)
        self._week: list[float] = []
        self._photos: OrderedDict[str, tuple[ListingPhoto, ...]] = OrderedDict()
        self._ledger = Ledger()
        self._lag: int | None = None
        self._problem = ""
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1))
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        await asyncio.to_thread(self._thread.join)
        await self._http.close()

    def photos_of(self, listing_id: str) -> tuple[ListingPhoto, ...]:
        """Return a listing's photos; none when it is not among those scored last."""
        with self._lock:
            return self._photos.get(listing_id, ())

    async def snapshot(self) -> Snapshot:
        scorers = await asyncio.gather(*map(self._health, self._settings.studio_scorers))
        now = time.time()
        with self._lock:
            recent = [(now - at, latency) for at, latency in self._recent if now - at < SPAN_S]
            letters = [entry for entry in self._ledger.entries() if entry.state == OPEN]
            compared = drift(self._today, self._week)
        counts = [0] * SPAN_S
        for age, _ in recent:
            counts[SPAN_S - 1 - max(0, int(age))] += 1
        # The second that is not over yet would make every figure dip.
        last = counts[-11:-1]
        percentiles = np.percentile([latency for _, latency in recent], (50, 95, 99)).tolist() if recent else None
        return Snapshot(
            per_s=sum(last) / len(last),
            history=tuple(counts[:-1]),
            lag=self._lag,
            latency_ms=tuple(percentiles) if percentiles else None,
            scorers=tuple(scorers),
            letters=tuple(reversed(letters)),
            drift=compared,
            problem=self._problem,
        )

    async def _health(self, address: str) -> ScorerHealth | None:
        with suppress(aiohttp.ClientError, TimeoutError, ValidationError):
            async with self._http.get(f"http://{address}/readyz") as answer:
                return ScorerHealth.model_validate_json(await answer.read())
        return None

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self._follow()
            except KafkaException as error:
                self._problem = f"Kafka at {self._settings.kafka}: {error.args[0].str()}"
                log.warning("live page: %s", self._problem)
                self._end.wait(2)

    def _follow(self) -> None:
        """Read scores and dead letters until the end."""
        settings = self._settings
        # The group is asked about, and never joined.
        ours = {"group.id": settings.scorer_group, "enable.auto.commit": False, "error_cb": self._hear}
        consumer = Consumer(client_config(settings) | ours)
        try:
            self._week = self._last_week(consumer)
            complete = self._begin(consumer)
            next_lag, again_at = 0.0, time.monotonic() + (_WEEK_EVERY_S if complete else _MISSING_EVERY_S)
            while not self._end.is_set():
                for message in consumer.consume(500, 0.25):
                    self._take(message)
                if time.monotonic() >= next_lag:
                    self._lag = self._read_lag(consumer)
                    self._problem = ""
                    next_lag = time.monotonic() + _LAG_EVERY_S
                if time.monotonic() >= again_at:
                    return  # and begin again, with another week
        finally:
            consumer.close()

    def _hear(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._problem = f"Kafka at {self._settings.kafka}: {error.str()}"

    def _begin(self, consumer: Consumer) -> bool:
        """Go to all dead letters, and to the last scores; return whether both topics are there."""
        with self._lock:
            self._ledger = Ledger()
            self._recent.clear()
            self._today.clear()
        letters = self._settings.dlq_topic
        places = [TopicPartition(letters, p, OFFSET_BEGINNING) for p in partitions(consumer, letters)]
        complete = bool(places)
        topic = self._settings.scores_topic
        numbers = partitions(consumer, topic)
        for number in numbers:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), _TIMEOUT_S)
            places.append(TopicPartition(topic, number, max(low, high - _REMEMBERED // len(numbers))))
        consumer.assign(places)
        return complete and bool(numbers)

    def _take(self, message: Message) -> None:
        if message.error() is not None:
            raise KafkaException(message.error())
        if message.topic() == self._settings.dlq_topic:
            with self._lock:
                self._ledger.add(message)
            return
        listing, score = (message.key() or b"").decode(errors="replace"), _score(message)
        with self._lock:
            self._photos.pop(listing, None)
            if score is None:
                return
            at = message.timestamp()[1] / 1000
            self._photos[listing] = _photos(score)
            if len(self._photos) > _REMEMBERED:
                self._photos.popitem(last=False)
            if time.time() - at < _DAY_MS / 1000:
                self._today.append(score.score)
            self._recent.append((at, score.timings_ms.total))
            while self._recent and time.time() - self._recent[0][0] > SPAN_S:
                self._recent.popleft()

    def _read_lag(self, consumer: Consumer) -> int:
        topic = self._settings.events_topic
        places = [TopicPartition(topic, number) for number in partitions(consumer, topic)]
        lag = 0
        for place in consumer.committed(places, timeout=_TIMEOUT_S):
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, place.partition), _TIMEOUT_S)
            lag += high - max(low, place.offset)
        return lag

    def _last_week(self, consumer: Consumer) -> list[float]:
        """Return scores of the seven days before the last one, from evenly spread places of each partition."""
        topic, now = self._settings.scores_topic, int(time.time() * 1000)
        numbers = partitions(consumer, topic)
        if not numbers:
            return []
        starts, ends = (
            consumer.offsets_for_times([TopicPartition(topic, n, now - days * _DAY_MS) for n in numbers], _TIMEOUT_S)
            for days in (8, 1)
        )
        found: list[float] = []
        for start, end in zip(starts, ends, strict=True):
            high = consumer.get_watermark_offsets(TopicPartition(topic, start.partition), _TIMEOUT_S)[1]
            stop = end.offset if end.offset >= 0 else high  # negative: none is that young
            if 0 <= start.offset < stop:
                found += self._sample(consumer, start.partition, start.offset, stop, _COMPARED // len(numbers))
        return found

    def _sample(self, consumer: Consumer, partition: int, start: int, stop: int, wanted: int) -> Iterable[float]:
        """Return about `wanted` scores between two offsets, from ten stretches."""
        stretch = max(1, wanted // 10)
        firsts = range(start, stop, max(stretch, (stop - start) // 10))
        for first in firsts:
            consumer.assign([TopicPartition(self._settings.scores_topic, partition, first)])
            left = min(stretch, stop - first)
            # Compaction leaves gaps, and the end of a topic answers nothing: both end a stretch.
            for message in consumer.consume(left, 1.0):
                score = _score(message) if message.error() is None and (message.offset() or 0) < stop else None
                if score is not None:
                    yield score.score


def _photos(score: ImageScore) -> tuple[ListingPhoto, ...]:
    """Return a listing's photos with what the fetcher takes for URLs."""
    found = []
    for photo in score.photos:
        with suppress(ValidationError):
            named = {"photo_id": photo.photo_id, "url": photo.url, "position": photo.position}
            found.append(ListingPhoto.model_validate(named))
    return tuple(found)


def _score(message: Message) -> ImageScore | None:
    """Return a record's score; None for a tombstone, and for what is none."""
    try:
        value = message.value()
        return None if value is None else ImageScore.from_json(value)
    except MessageError:
        return None

"""`image-score index`: writes scores from `image.scores` into the documents of OpenSearch or Elasticsearch.

The field holds {score, rank, cover_score, version, deleted, model_version, scored_at}; that of a deleted listing keeps
its version, so that a score that comes late does not bring it back. A score is written only when its (version, deleted,
scored_at) is greater than the document's. Partial updates take no external versions there: a batch is read, compared,
and written on the condition that nobody has changed the document since. So duplicates and any order of arrival lead to
the same document, without scripts, which many clusters forbid.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from schemas import DeadLetterType, ImageScore, MessageError, Stage
from schemas.image_score import VERSION_HEADER
from stream import kafka
from stream.batching import Batcher
from stream.consumer import CircuitBreaker, Failed, Output, ParallelConsumer, Record, waiting
from stream.errors import DependencyError, ServiceUnavailable, SettingsError
from stream.letters import EventFailed, dead_letter
from stream.search.queries import RANK_FEATURE
from stream.settings import Settings, shown
from stream.worker import consume, consumer_config, run_in_loop

_BUSY = frozenset((429, 502, 503, 504))
_BUSY_S = 0.2
_CHANGED = frozenset((404, 409))
"""Somebody else changed or removed the document, or made it, since it was read."""
_TIMEOUT_S = 30.0
_LEAST_RANK = 1e-6
"""A rank_feature must be above 0."""
_NOTHING = {"score": None, "rank": None, "cover_score": None, "model_version": None, "scored_at": 0}


class Outcome(StrEnum):
    """How a score ended; the sink counts each."""

    INDEXED = "indexed"
    STALE = "stale"
    MISSING = "missing"
    """The listing has no document, and `index_missing` is `skip`."""
    DEAD_LETTER = "dead_letter"


class Update(NamedTuple):
    """What to write into the document of a listing."""

    listing_id: str
    field: dict[str, Any]

    @property
    def order(self) -> tuple[int, bool, int]:
        """Of two updates of a listing, the greater one holds."""
        return self.field["version"], self.field["deleted"], self.field["scored_at"]


class _Document(NamedTuple):
    """What the index says of a listing, and what a write must find unchanged."""

    order: tuple[int, bool, int] | None
    condition: dict[str, int] | None
    """None: there is no document."""


class Refused(Exception):
    """The index will not take an update, for good."""


class SearchIndex:
    """The index that search asks; use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        parts = urlsplit(settings.search)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            text = f"search: no http or https URL (got {shown(settings.search)!r}); set IMAGE_SCORE_SEARCH"
            raise SettingsError(text)
        host = parts.netloc.rpartition("@")[2]
        self._url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        user = aiohttp.BasicAuth(parts.username, parts.password or "") if parts.username else None
        key = settings.search_api_key.get_secret_value()
        tls = ssl.create_default_context(cafile=settings.search_ssl_ca or None)
        self._http = aiohttp.ClientSession(
            auth=user,
            headers={"Authorization": f"ApiKey {key}"} if key else {},
            connector=aiohttp.TCPConnector(ssl=tls),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        )
        self.breaker = CircuitBreaker(f"search at {self._url}", (aiohttp.ClientError, OSError, ServiceUnavailable))
        self._updates: Batcher[Update, Outcome | Refused | None] = Batcher(self._deliver, settings.index_bulk)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._updates.close()
        await self._http.close()

    async def check(self) -> None:
        """Add the field to the index's mapping.

        Raises:
            DependencyError: the index is not there, or refuses; names the address.
        """
        name, field = self._settings.search_index, self._settings.search_field
        try:
            await self._ask("PUT", f"/{name}/_mapping", orjson.dumps({"properties": {field: MAPPING}}))
        except (aiohttp.ClientError, OSError, ServiceUnavailable) as error:
            text = f"search at {self._url} does not answer ({error}): start it, or set IMAGE_SCORE_SEARCH"
            raise DependencyError(text) from None

    async def update(self, update: Update) -> Outcome:
        """Write into a document, together with what others want written; waits through an outage.

        Raises:
            Refused: the index will not take it.
            DependencyError: the index refuses all requests.
        """
        with waiting("the search index"):
            while (done := await self._updates.submit(update)) is None:
                pass  # somebody else changed the document, or the index was busy
        if isinstance(done, Refused):
            raise done
        return done

    async def _deliver(self, batch: list[Update]) -> list[Outcome | Refused | None]:
        return await self.breaker.call(lambda: self._write(batch))

    async def _write(self, batch: list[Update]) -> list[Outcome | Refused | None]:
        """Read the documents of a batch, and write what is newer; None: to be done again."""
        documents = await self._read([update.listing_id for update in batch])
        done: list[Outcome | Refused | None] = [None] * len(batch)
        lines: list[bytes] = []
        sent: list[int] = []
        for i, (update, document) in enumerate(zip(batch, documents, strict=True)):
            if document.order is not None and document.order >= update.order:
                done[i] = Outcome.STALE
            elif document.condition is None and self._settings.index_missing == "skip":
                done[i] = Outcome.MISSING
            else:
                lines += self._lines(update, document)
                sent.append(i)
        if sent:
            for i, result in zip(sent, await self._bulk(lines), strict=True):
                done[i] = result
        return done

    async def _read(self, listings: list[str]) -> list[_Document]:
        name, field = self._settings.search_index, self._settings.search_field
        found = await self._ask("POST", f"/{name}/_mget?_source={field}", orjson.dumps({"ids": listings}))
        return [_document(document, field) for document in found["docs"]]

    def _lines(self, update: Update, document: _Document) -> list[bytes]:
        """Return the action and the body of one update."""
        name, field = self._settings.search_index, self._settings.search_field
        where: dict[str, Any] = {"_index": name, "_id": update.listing_id}
        if document.condition is None:
            return [orjson.dumps({"create": where}), orjson.dumps({field: update.field})]
        return [orjson.dumps({"update": where | document.condition}), orjson.dumps({"doc": {field: update.field}})]

    async def _bulk(self, lines: list[bytes]) -> list[Outcome | Refused | None]:
        found = await self._ask("POST", "/_bulk", b"\n".join([*lines, b""]))
        items = [item for named in found["items"] for item in named.values()]
        if any(item["status"] in _BUSY for item in items):
            await asyncio.sleep(_BUSY_S)
        return [_result(item) for item in items]

    async def _ask(self, method: str, path: str, body: bytes) -> Any:
        """Return the JSON of an answer.

        Raises:
            ServiceUnavailable: to be asked again.
            DependencyError: it refuses; says what.
        """
        kind = "application/x-ndjson" if path == "/_bulk" else "application/json"
        headers = {"Content-Type": kind}
        async with self._http.request(method, self._url + path, data=body, headers=headers) as answer:
            found = await answer.read()
            if answer.status in _BUSY:
                raise ServiceUnavailable(f"HTTP {answer.status}")
            if answer.status >= 400:
                text = found[:500].decode(errors="replace")
                raise DependencyError(f"search at {self._url}{path}: HTTP {answer.status}: {text}")
        return orjson.loads(found)


MAPPING = {
    "properties": {
        "score": {"type": "float"},
        "rank": RANK_FEATURE,
        "cover_score": {"type": "float"},
        "version": {"type": "long"},
        "deleted": {"type": "boolean"},
        "model_version": {"type": "long"},
        "scored_at": {"type": "date", "format": "epoch_millis"},
    }
}


def _document(found: dict[str, Any], field: str) -> _Document:
    """Read one item of a multi-get.

    Raises:
        ServiceUnavailable: its shard could not answer.
    """
    if "error" in found:
        raise ServiceUnavailable(f"_mget: {found['error'].get('reason', found['error'])}")
    if not found["found"]:
        return _Document(None, None)
    condition = {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}
    old = found["_source"].get(field) or {}
    try:
        return _Document((int(old["version"]), bool(old["deleted"]), int(old["scored_at"])), condition)
    except (KeyError, TypeError, ValueError):  # no score yet, or not one of ours
        return _Document(None, condition)


def _result(item: dict[str, Any]) -> Outcome | Refused | None:
    status, error = item["status"], item.get("error", {})
    if status < 300:
        return Outcome.INDEXED
    if status in _BUSY or status in _CHANGED:
        return None
    return Refused(f"HTTP {status}, {error.get('type', '')}: {error.get('reason', '')}")


def update_of(record: Record) -> Update:
    """Return what a record of `image.scores` says of a document.

    Raises:
        EventFailed: it is no ImageScore, or no tombstone that names its version.
    """
    key = (record.key or b"").decode(errors="replace")
    if record.value is None:
        version = dict(record.headers).get(VERSION_HEADER)
        if not key or version is None or not version.isdigit():
            text = f"tombstone of {key!r} has header {VERSION_HEADER}={version!r}: it must be the deleted version"
            raise EventFailed(DeadLetterType.INVALID_EVENT, Stage.VALIDATE, text)
        return Update(key, _NOTHING | {"version": int(version), "deleted": True})
    try:
        score = ImageScore.from_json(record.value)
    except MessageError as error:
        raise EventFailed(DeadLetterType.INVALID_EVENT, Stage.VALIDATE, str(error)) from None
    field = {
        "score": score.score,
        "rank": max(score.score, _LEAST_RANK),
        "cover_score": None if score.cover is None else score.cover.score,
        "version": score.event.version,
        "deleted": False,
        "model_version": score.model.version,
        "scored_at": round(score.scored_at.timestamp() * 1000),
    }
    return Update(score.listing_id, field)


class Indexer:
    """Handles records of `image.scores`."""

    def __init__(self, settings: Settings, index: SearchIndex) -> None:
        self._settings = settings
        self._index = index
        self.outcomes: Counter[str] = Counter()

    def hold(self) -> str:
        """Return why nothing is to be started just now; empty: nothing speaks against it."""
        breaker = self._index.breaker
        return f"{breaker.name} is away" if breaker.is_open else ""

    async def handle(self, record: Record) -> Sequence[Output]:
        """Write one score and count it.

        Raises:
            EventFailed: it becomes a dead letter.
        """
        update = update_of(record)
        try:
            self.outcomes[await self._index.update(update)] += 1
        except Refused as refusal:
            text = f"the index refused {update.listing_id}: {refusal}: mend it, then replay"
            raise EventFailed(DeadLetterType.UNEXPECTED, Stage.UNKNOWN, text) from None
        return ()

    def dead_letter(self, record: Record, failure: Failed) -> Output:
        """Count a record that cannot be indexed and return its dead letter."""
        self.outcomes[Outcome.DEAD_LETTER] += 1
        return dead_letter(self._settings.dlq_topic, record, failure)


async def index_scores(settings: Settings) -> Counter[str]:
    """Write scores into the index until SIGTERM or SIGINT; return how many ended in which way.

    Raises:
        DependencyError: Kafka or the index does not answer at the start, or refuses.
        TooManyDeadLettersError, DrainError: as their names say.
    """
    async with SearchIndex(settings) as index:
        await asyncio.gather(index.check(), asyncio.to_thread(kafka.check, settings))
        indexer = Indexer(settings, index)
        config = consumer_config(
            settings,
            topic=settings.scores_topic,
            group=settings.index_group,
            delivery="at_least_once",
            in_flight=4 * settings.index_bulk,
            buffer=4 * settings.index_bulk,
            retry_topic="",
        )
        consumer = ParallelConsumer(config, indexer.handle, indexer.dead_letter, indexer.hold)
        await consume(settings, config, consumer, indexer.outcomes, Outcome)
        return indexer.outcomes


def run(settings: Settings) -> None:
    """Run `index_scores` in an event loop of its own."""
    run_in_loop(index_scores(settings))

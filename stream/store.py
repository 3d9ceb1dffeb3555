"""Writes records to Redis: many in one round trip, and never an older event over a newer one."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Self

from redis.exceptions import RedisError

from schemas import RedisRecord, record_key, tombstone_key
from schemas.redis_record import VERSION_OFFSET
from stream import redis_client
from stream.batching import Batcher
from stream.consumer import CircuitBreaker, waiting
from stream.errors import DependencyError, SettingsError
from stream.redis_client import AnyRedis
from stream.settings import Settings, shown

# KEYS: record, tombstone. ARGV: version, record ('' deletes), tombstone's life in ms. Returns 1 if applied, 0 if older.
# At equal versions a deletion wins, so that the outcome does not depend on the order of arrival.
_PUT = f"""
local version = tonumber(ARGV[1])
local deleting = ARGV[2] == ''
local gone = tonumber(redis.call('GET', KEYS[2]) or '-1')
if version < gone or (version == gone and not deleting) then return 0 end
local record = redis.call('GETRANGE', KEYS[1], {VERSION_OFFSET}, {VERSION_OFFSET + 7})
if #record == 8 and struct.unpack('<I8', record) > version then return 0 end
if deleting then
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2])
  if gone >= 0 then redis.call('DEL', KEYS[2]) end
end
return 1
"""

_BATCH = 1000
_Write = tuple[str, int, bytes]


def connect(settings: Settings) -> AnyRedis:
    """Return a client for `settings.redis`.

    Raises:
        SettingsError: the URL is not one of those that `stream.redis_client` reads.
    """
    try:
        return redis_client.connect(settings.redis, settings.redis_ssl_ca, socket_timeout=10, socket_connect_timeout=5)
    except ValueError as error:
        text = f"redis: {error} (got {shown(settings.redis)!r}); set IMAGE_SCORE_REDIS to redis://host:port/0"
        raise SettingsError(text) from None


class RecordStore:
    """The records that search reads; use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._redis = connect(settings)
        self._address = shown(settings.redis)
        self.breaker = CircuitBreaker(f"Redis at {self._address}", (RedisError, OSError))
        self._tombstone_ms = round(settings.tombstone_days * 86_400_000)
        self._writes: Batcher[_Write, bool] = Batcher(self._deliver, _BATCH)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writes.close()
        await self._redis.aclose()

    async def check(self) -> None:
        """Return when Redis answers.

        Raises:
            DependencyError: it does not; names the address.
        """
        try:
            await self._redis.ping()
        except RedisError as error:
            message = f"Redis at {self._address} does not answer ({error}): start it, or set IMAGE_SCORE_REDIS"
            raise DependencyError(message) from None

    async def get(self, listing_id: str) -> RedisRecord | None:
        """Return a listing's record; None when it has no score or was deleted."""
        data = await self._redis.get(record_key(listing_id))
        return RedisRecord.from_bytes(data) if isinstance(data, bytes) else None

    async def is_newer(self, listing_id: str, version: int) -> bool:
        """Whether the listing's record, or its deletion, is of a newer version than this. Waits through an outage."""
        keys = record_key(listing_id), tombstone_key(listing_id)
        with waiting("Redis"):
            data, gone = await self.breaker.call(lambda: self._redis.mget(keys))
        found = RedisRecord.from_bytes(data).event_version if isinstance(data, bytes) else -1
        return max(found, int(gone or -1)) > version

    async def put(self, listing_id: str, record: RedisRecord) -> bool:
        """Write a record; return False when Redis holds a newer version of the listing. Waits through an outage."""
        return await self._write(listing_id, record.event_version, record.to_bytes())

    async def delete(self, listing_id: str, version: int) -> bool:
        """Delete a listing as of `version`; return False when Redis holds a newer version of it."""
        return await self._write(listing_id, version, b"")

    async def _write(self, listing_id: str, version: int, value: bytes) -> bool:
        with waiting("Redis"):
            return await self._writes.submit((listing_id, version, value))

    async def _deliver(self, batch: list[_Write]) -> list[bool]:
        return await self.breaker.call(partial(self._send, batch))

    async def _send(self, batch: list[_Write]) -> list[bool]:
        """Send one batch; sending it again after a broken connection changes nothing."""
        pipeline = self._redis.pipeline(transaction=False)
        for listing_id, version, value in batch:
            keys = record_key(listing_id), tombstone_key(listing_id)
            pipeline.eval(_PUT, 2, *keys, str(version), value, str(self._tombstone_ms))
        return [bool(applied) for applied in await pipeline.execute()]

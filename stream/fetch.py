"""Fetches photos over one HTTP connection pool: bounded, and safe against hostile URLs and servers."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

import aiohttp
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from yarl import URL

from schemas import ListingPhoto, PhotoErrorType
from stream.address import CheckedResolver, HostPolicy, RefusedAddress
from stream.budget import ByteBudget
from stream.consumer import waiting
from stream.errors import PhotoRejected, PhotoUnavailable
from stream.settings import Settings

_PASSING_STATUS = frozenset((408, 425, 429, 500, 502, 503, 504))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


class PhotoFetcher:
    """Fetches photos; use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._policy = HostPolicy(settings.fetch_allow)
        self.budget = ByteBudget(max(settings.photo_bytes_in_flight, settings.max_photo_bytes))
        self._fetches = asyncio.Semaphore(settings.fetches)
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        # Our semaphores bound the connections: aiohttp's own limits would let the wait eat the timeout.
        connector = aiohttp.TCPConnector(
            limit=0, resolver=CheckedResolver(self._policy), ttl_dns_cache=10, keepalive_timeout=30
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),  # ours leave out the wait for the byte budget
            # No content encoding is asked for nor undone: a compressed answer cannot be a bomb.
            headers={"Accept-Encoding": "identity", "User-Agent": "image-score"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**18,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @asynccontextmanager
    async def photo(self, photo: ListingPhoto) -> AsyncIterator[bytes]:
        """Yield the photo's bytes; they count against the byte budget until the block ends.

        Raises:
            PhotoRejected: for good, or still not to be had after `fetch_attempts` tries.
        """
        with waiting(f"photo {photo.photo_id} from {photo.url.host}"):
            data, held = await self._with_retries(photo)
        try:
            yield data
        finally:
            self.budget.release(held)

    async def _with_retries(self, photo: ListingPhoto) -> tuple[bytes, int]:
        url = URL(str(photo.url), encoded=True)  # pydantic has encoded it
        host = self._hosts.setdefault(url.host or "", asyncio.Semaphore(self._settings.fetches_per_host))
        # A host's own queue comes first, so that a slow host holds none of the common places.
        tries = self._settings.fetch_attempts
        try:
            return await self._attempt(url, photo, host)  # most photos come at once, without the machinery below
        except PhotoUnavailable as error:
            if tries == 1:
                raise _given_up(error, tries) from None
        retrying = AsyncRetrying(
            stop=stop_after_attempt(tries - 1),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_exception_type(PhotoUnavailable),
            reraise=True,
        )
        await asyncio.sleep(random.uniform(0.05, 0.2))
        try:
            return await retrying(self._attempt, url, photo, host)
        except PhotoUnavailable as error:
            raise _given_up(error, tries) from None

    async def _attempt(self, url: URL, photo: ListingPhoto, host: asyncio.Semaphore) -> tuple[bytes, int]:
        async with host, self._fetches:
            # Nothing is asked for while others wait for bytes: in an outage of Triton no host sees us hang.
            await self.budget.acquire(0)
            try:
                response = await self._follow(url)
                try:
                    data, held = await self._read(response)
                finally:
                    response.release()
            except TimeoutError:
                raise PhotoUnavailable(f"{url.host} took longer than {self._settings.fetch_timeout_s} s") from None
            except aiohttp.ClientError as error:
                cause = error.__cause__ or (error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None)
                if isinstance(cause, RefusedAddress):
                    raise cause.rejection from None
                if isinstance(error, aiohttp.InvalidURL):
                    raise PhotoRejected(PhotoErrorType.URL_REFUSED, f"url {str(url)[:200]!r} is not valid") from None
                raise PhotoUnavailable(f"{url.host}: {error}") from None
        if photo.sha256 and hashlib.sha256(data).hexdigest() != photo.sha256:
            self.budget.release(held)
            message = f"the photo at {url} does not have sha256 {photo.sha256}: send the event again with the right one"
            raise PhotoRejected(PhotoErrorType.CHECKSUM_MISMATCH, message)
        return data, held

    async def _follow(self, url: URL) -> aiohttp.ClientResponse:
        """Return the first answer that is not a redirect; each hop is checked as the first URL was."""
        async with asyncio.timeout(self._settings.fetch_timeout_s):
            for _ in range(self._settings.fetch_redirects + 1):
                self._policy.check_url(url)
                response = await self._session.get(url, allow_redirects=False)
                if response.status not in _REDIRECTS or "Location" not in response.headers:
                    return response
                response.release()
                try:
                    url = url.join(URL(response.headers["Location"]))
                except ValueError as error:
                    raise PhotoRejected(PhotoErrorType.HTTP_ERROR, f"redirect from {url}: {error}") from None
        limit = self._settings.fetch_redirects
        raise PhotoRejected(PhotoErrorType.TOO_MANY_REDIRECTS, f"more than {limit} redirects, the last to {url}")

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[bytes, int]:
        """Return the body, and the bytes of the budget that it holds."""
        self._check_status(response)
        limit, size = self._settings.max_photo_bytes, response.content_length
        if size is not None and size > limit:
            raise self._too_large(response.url, size)
        held = await self.budget.acquire(limit if size is None else size)
        try:
            async with asyncio.timeout(self._settings.fetch_timeout_s):
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise self._too_large(response.url, len(body))
        except BaseException:
            self.budget.release(held)
            raise
        return bytes(body), held

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        status, url = response.status, response.url
        if status in _PASSING_STATUS:
            raise PhotoUnavailable(f"{url} answered {status}")
        if status in (404, 410):
            raise PhotoRejected(PhotoErrorType.NOT_FOUND, f"{url} answered {status}: upload the photo again")
        if status != 200:
            raise PhotoRejected(PhotoErrorType.HTTP_ERROR, f"{url} answered {status}, not 200")
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            message = f"{url} answered with Content-Encoding {encoding[:40]!r} though identity was asked for"
            raise PhotoRejected(PhotoErrorType.HTTP_ERROR, message)

    def _too_large(self, url: URL, size: int) -> PhotoRejected:
        limit = self._settings.max_photo_bytes
        message = f"{url} has {size} bytes or more, the limit is {limit}: upload a smaller file"
        return PhotoRejected(PhotoErrorType.TOO_LARGE, message)


def _given_up(error: PhotoUnavailable, tries: int) -> PhotoRejected:
    message = f"{error} (tried {tries} times): make the photo available again"
    return PhotoRejected(PhotoErrorType.UNAVAILABLE, message, attempts=tries)

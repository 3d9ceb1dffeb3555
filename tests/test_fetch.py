"""Fetching photos: hostile URLs and hostile servers, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import threading
from collections.abc import Iterator

import pytest

from schemas import ListingPhoto, PhotoErrorType
from stream.address import is_public
from stream.errors import PhotoRejected
from stream.fetch import PhotoFetcher
from stream.settings import Settings, load
from tests.photo_host import PhotoHost


def fetch(url: str, allow: str = "", sha256: str | None = None, **changes: object) -> bytes:
    """Fetch one photo as the scorer does; return its bytes."""
    given = {"fetch_allow": allow, "fetch_timeout_s": 0.5, "fetch_attempts": 2, "max_photo_bytes": 200_000, **changes}
    settings: Settings = load(**given)
    photo = ListingPhoto.model_validate({"photo_id": "p", "url": url, "position": 0, "sha256": sha256})

    async def run() -> bytes:
        async with PhotoFetcher(settings) as fetcher, fetcher.photo(photo) as data:
            return data

    return asyncio.run(run())


def refusal(url: str, allow: str = "", **changes: object) -> tuple[PhotoErrorType, str]:
    with pytest.raises(PhotoRejected) as refused:
        fetch(url, allow, **changes)  # type: ignore[arg-type]
    return refused.value.error.type, refused.value.error.message


def test_photo_of_an_allowed_host_is_fetched(host: PhotoHost) -> None:
    assert fetch(host.good, host.address) == host.files["good.jpg"]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1"),
    ],
)
def test_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"])
def test_address_that_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host_part",
    [
        *("127.0.0.1", "localhost", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
        *("2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "169.254.169.254", "user:pass@127.0.0.1"),
    ],
)
def test_private_host_is_refused_in_every_spelling(host: PhotoHost, host_part: str) -> None:
    before = host.requests.total()
    kind, message = refusal(f"http://{host_part}:{host.port}/files/good.jpg")
    assert kind is PhotoErrorType.URL_REFUSED
    assert "IMAGE_SCORE_FETCH_ALLOW" in message
    assert host.requests.total() == before


def test_trailing_dot_does_not_help(host: PhotoHost) -> None:
    """Whether `localhost.` resolves at all depends on the machine."""
    before = host.requests.total()
    kind, _ = refusal(f"http://localhost.:{host.port}/files/good.jpg")
    assert kind in (PhotoErrorType.URL_REFUSED, PhotoErrorType.UNAVAILABLE)
    assert host.requests.total() == before


def test_name_that_resolves_to_a_private_address_is_refused(host: PhotoHost) -> None:
    kind, message = refusal(f"http://localhost:{host.port}/files/good.jpg")
    assert kind is PhotoErrorType.URL_REFUSED
    assert "localhost (which is" in message


def test_allowing_one_port_does_not_allow_another(host: PhotoHost) -> None:
    assert refusal(host.good, "127.0.0.1:1")[0] is PhotoErrorType.URL_REFUSED


def test_allowing_a_host_allows_its_every_port(host: PhotoHost) -> None:
    assert fetch(host.good, "127.0.0.1")


@pytest.mark.parametrize("target", ["http://localhost:{port}/files/good.jpg", "http://[::1]:{port}/files/good.jpg"])
def test_redirect_to_a_private_address_is_refused(host: PhotoHost, target: str) -> None:
    url = host.url(f"redirect?to={target.format(port=host.port)}")
    assert refusal(url, host.address)[0] is PhotoErrorType.URL_REFUSED


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/p", "gopher://127.0.0.1/"])
def test_redirect_to_another_scheme_is_refused(host: PhotoHost, target: str) -> None:
    assert refusal(host.url(f"redirect?to={target}"), host.address)[0] is PhotoErrorType.URL_REFUSED


def test_redirect_is_followed(host: PhotoHost) -> None:
    assert fetch(host.url("redirect?to=/files/good.jpg"), host.address) == host.files["good.jpg"]


def test_endless_redirects_are_given_up(host: PhotoHost) -> None:
    assert refusal(host.url("loop"), host.address)[0] is PhotoErrorType.TOO_MANY_REDIRECTS


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("files/none.jpg", PhotoErrorType.NOT_FOUND),
        ("status/410", PhotoErrorType.NOT_FOUND),
        ("status/403", PhotoErrorType.HTTP_ERROR),
        ("status/204", PhotoErrorType.HTTP_ERROR),
        ("status/500", PhotoErrorType.UNAVAILABLE),
        ("status/429", PhotoErrorType.UNAVAILABLE),
        ("endless", PhotoErrorType.TOO_LARGE),
        ("gzip", PhotoErrorType.HTTP_ERROR),
        ("hang", PhotoErrorType.UNAVAILABLE),
        ("drip", PhotoErrorType.UNAVAILABLE),
    ],
)
def test_bad_answer_has_its_own_error(host: PhotoHost, path: str, kind: PhotoErrorType) -> None:
    assert refusal(host.url(path), host.address)[0] is kind


def test_declared_length_over_the_limit_is_refused_unread(host: PhotoHost) -> None:
    kind, message = refusal(host.put("large.jpg", b"x" * 200_001), host.address)
    assert kind is PhotoErrorType.TOO_LARGE
    assert "200001 bytes" in message


def test_passing_error_is_tried_again(host: PhotoHost) -> None:
    assert fetch(host.url("flaky/good.jpg"), host.address) == host.files["good.jpg"]


def test_error_that_stays_is_not_tried_again(host: PhotoHost) -> None:
    refusal(host.url("files/tried-once.jpg"), host.address)
    assert host.requests["/files/tried-once.jpg"] == 1


def test_attempts_are_as_many_as_configured(host: PhotoHost) -> None:
    kind, message = refusal(host.url("status/502"), host.address, fetch_attempts=3)
    assert kind is PhotoErrorType.UNAVAILABLE
    assert "tried 3 times" in message
    assert host.requests["/status/502"] == 3


def test_single_attempt_is_one_request(host: PhotoHost) -> None:
    assert refusal(host.url("status/503"), host.address, fetch_attempts=1)[0] is PhotoErrorType.UNAVAILABLE
    assert host.requests["/status/503"] == 1


def test_closed_port_is_unavailable() -> None:
    assert refusal("http://127.0.0.1:9/p.jpg", "127.0.0.1:9")[0] is PhotoErrorType.UNAVAILABLE


def test_checksum_is_checked(host: PhotoHost) -> None:
    right = hashlib.sha256(host.files["good.jpg"]).hexdigest()
    assert fetch(host.good, host.address, sha256=right)
    assert refusal(host.good, host.address, sha256="0" * 64)[0] is PhotoErrorType.CHECKSUM_MISMATCH


@pytest.fixture
def broken_server() -> Iterator[str]:
    """A server that promises more bytes than it sends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_body_cut_short_is_unavailable(broken_server: str) -> None:
    assert refusal(f"http://{broken_server}/p.jpg", broken_server)[0] is PhotoErrorType.UNAVAILABLE


def test_bytes_held_stay_within_the_budget(host: PhotoHost) -> None:
    """Ten photos of 1 MB at once, a budget of 3: never more than three are held."""
    url = host.put("megabyte.jpg", b"x" * 2**20)
    settings = load(fetch_allow=host.address, max_photo_bytes=2**20, photo_bytes_in_flight=3 * 2**20)
    photo = ListingPhoto.model_validate({"photo_id": "p", "url": url, "position": 0})
    held, most = 0, 0

    async def hold(fetcher: PhotoFetcher) -> None:
        nonlocal held, most
        async with fetcher.photo(photo):
            held += 1
            most = max(most, held)
            await asyncio.sleep(0.02)
            held -= 1

    async def run() -> None:
        async with PhotoFetcher(settings) as fetcher:
            await asyncio.gather(*(hold(fetcher) for _ in range(10)))

    asyncio.run(run())
    assert most == 3

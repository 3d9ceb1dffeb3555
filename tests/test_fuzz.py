"""100,000 damaged inputs to everything that parses bytes from outside: a typed error or a result, no crash, no hang."""

from __future__ import annotations

import contextlib
import io
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from PIL import Image

from schemas import MESSAGES, ListingEvent, MessageError, RedisRecord
from stream.consumer import ConsumerConfig, Record
from stream.consumer.group import Source, Work
from stream.consumer.offsets import MAX_METADATA, PartitionOffsets, decode, encode
from stream.consumer.parking import ATTEMPTS, DUE, FROM, Parking
from stream.errors import PhotoRejected
from stream.hints import hint_of
from stream.photo import check_header
from stream.settings import load
from stream.tips import load_policy
from tests.examples import event_json, image_score

INPUTS = 100_000
SLOWEST_S = 2.0
"""For one input, on a machine that is busy."""
_TOKENS = [
    b"null",
    b"-1",
    b"1e999",
    b'""',
    b"[]",
    b"{}",
    b"\x00",
    b"\xff\xd8",
    b"9" * 400,
    b"[" * 2000,
    b"\\ud800",
    b'"',
]


def damaged(seed: bytes, chance: random.Random) -> bytes:
    """Flip, cut, repeat or insert something, up to four times."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randrange(1, 40)]
        elif kind == 2:
            data[at:at] = data[at : at + chance.randrange(1, 60)]
        elif kind == 3:
            data[at:at] = chance.choice(_TOKENS)
        else:
            data = data[:at]
    return bytes(data)


def photos() -> list[bytes]:
    found = []
    for kind in ("JPEG", "PNG", "WEBP", "HEIF", "AVIF"):
        file = io.BytesIO()
        Image.effect_noise((24, 16), 40).convert("RGB").save(file, kind)
        found.append(file.getvalue())
    return found


def parse_header(data: bytes) -> None:
    check_header(data, 1_000_000)


def parse_metadata(data: bytes) -> None:
    text = data.decode("latin-1")
    unfinished, _ = decode(5, text)
    assert len(unfinished) <= 8 * MAX_METADATA
    PartitionOffsets(5, text)


def parse_retry_headers(data: bytes) -> None:
    """Headers of the retry topic never fail: damaged ones count as absent."""
    parts = [*data.split(b"|", 2), b"", b""]
    headers = ((FROM, parts[0]), (DUE, parts[1]), (ATTEMPTS, parts[2]))
    record = Record("retry", 0, 7, b"key", b"value", headers)
    parking = Parking(ConsumerConfig({}, "topic", "group", retry_topic="retry"))
    due = parking.arrived(Work(record, Source("retry", 0, True, PartitionOffsets(), 0), 7), now=100.0)
    assert 100.0 <= due <= 100.0 + 120.0


def seeds() -> dict[str, tuple[list[bytes], Callable[[bytes], Any], tuple[type[Exception], ...], float]]:
    """Return for each parser: valid inputs, how to call it, its errors, its share of the inputs."""
    score = image_score((0.5, 0.7))
    others = [score.to_json(), hint_of(score, load(), load_policy()).to_json()]
    metadata = [encode(5, [5, 9, 12], 40).encode(), encode(5, list(range(5, 400, 3)), 400).encode()]
    retry = [b'listing.events/3/77|1790000000000|[[1790000000.5, "an error"]]']

    def parse_others(data: bytes) -> None:
        for message in MESSAGES[1:]:
            with contextlib.suppress(MessageError):
                message.from_json(data)

    return {
        "events": ([event_json()], ListingEvent.from_json, (MessageError,), 0.4),
        "messages": (others, parse_others, (), 0.1),
        "records": ([bytes(36), bytes(range(36))], RedisRecord.from_bytes, (MessageError,), 0.15),
        "photo headers": (photos(), parse_header, (PhotoRejected,), 0.2),
        "commit metadata": (metadata, parse_metadata, (ValueError,), 0.1),
        "retry headers": (retry, parse_retry_headers, (), 0.05),
    }


def test_no_damaged_input_crashes_or_hangs() -> None:
    chance = random.Random(20240811)
    counts: Counter[str] = Counter()
    for name, (valid, parse, errors, share) in seeds().items():
        for _ in range(round(share * INPUTS)):
            data = damaged(chance.choice(valid), chance)
            started = time.monotonic()
            try:
                parse(data)
                counts[f"{name} taken"] += 1
            except errors:
                counts[f"{name} refused"] += 1
            assert time.monotonic() - started < SLOWEST_S, f"{name}: {data[:200]!r} took too long"
    assert counts.total() == INPUTS
    assert all(counts[f"{name} refused"] for name in ("events", "records", "photo headers", "commit metadata"))
    assert counts["events taken"] > 0

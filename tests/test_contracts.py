"""The messages: what is accepted, what is refused and how, and the bytes on the wire."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import DeadLetter, DeadLetterType, ImageScore, ListingEvent, MessageError, RedisRecord, Stage, record_key
from schemas.image_score import listing_score
from tests.examples import EVENT, event_json, image_score


def change(**fields: Any) -> bytes:
    return orjson.dumps({**EVENT, **fields})


def test_event_survives_the_wire() -> None:
    event = ListingEvent.from_json(event_json())
    assert ListingEvent.from_json(event.to_json()) == event


def test_unknown_fields_are_ignored() -> None:
    assert ListingEvent.from_json(change(added_in_2030=[1])) == ListingEvent.from_json(event_json())


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"type": "sold"}, "type: input should be 'created', 'photos_updated' or 'deleted' (got 'sold')"),
        ({"occurred_at": "2026-01-31T09:30:00"}, "occurred_at: input should have timezone info"),
        ({"occurred_at": 1769851800}, "occurred_at: must be an RFC 3339 time with a zone"),
        ({"event_id": "7"}, "event_id: "),
        ({"listing_id": "a b"}, "listing_id: string should match pattern"),
        ({"listing_id": "x" * 65}, "listing_id: string should have at most 64 characters"),
        ({"version": -1}, "version: "),
        ({"version": 2**53}, "version: "),
        ({"version": "3"}, "version: input should be a valid integer (got '3')"),
        ({"title": "x" * 513}, "title: string should have at most 512 characters"),
        ({"currency": "yen"}, "currency: "),
        ({"price": -1}, "price: "),
        ({"locale": "not a locale"}, "locale: "),
        ({"photos": []}, "photos: a created event needs 1..20 photos"),
        ({"photos": EVENT["photos"] * 21}, "photos: "),
        ({"photos": EVENT["photos"] * 2}, "each photo needs its own position"),
        ({"photos": [{**EVENT["photos"][0], "url": "ftp://h/p.jpg"}]}, "photos.0.url: URL scheme should be"),
        ({"photos": [{**EVENT["photos"][0], "url": "https://h/" + "p" * 2048}]}, "photos.0.url: "),
        ({"photos": [{**EVENT["photos"][0], "position": 20}]}, "photos.0.position: "),
        ({"photos": [{**EVENT["photos"][0], "sha256": "12"}]}, "photos.0.sha256: "),
    ],
)
def test_wrong_field_is_named_with_its_value(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(MessageError) as refused:
        ListingEvent.from_json(change(**fields))
    assert complaint in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"[]", b"null", b"{", b"[" * 1_000_000, b'{"a":' * 900 + b"1" + b"}" * 900]
)
def test_bytes_that_are_no_event_are_a_message_error(data: bytes) -> None:
    with pytest.raises(MessageError):
        ListingEvent.from_json(data)


def test_deeply_nested_field_is_a_message_error() -> None:
    nested = b"[" * 990 + b"]" * 990
    with pytest.raises(MessageError, match="photos"):
        ListingEvent.from_json(event_json().replace(b'"photos":', b'"photos":' + nested + b',"was":'))


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_event_parser(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        ListingEvent.from_json(data)


def test_deletion_needs_no_photos() -> None:
    assert ListingEvent.from_json(change(type="deleted", photos=[])).photos == ()


def test_score_survives_the_wire() -> None:
    score = image_score()
    assert ImageScore.from_json(score.to_json()) == score


def test_dead_letter_keeps_the_records_bytes() -> None:
    raw = bytes(range(256))
    letter = DeadLetter(
        type=DeadLetterType.INVALID_EVENT,
        message="m",
        stage=Stage.VALIDATE,
        attempts=1,
        topic="t",
        partition=0,
        offset=7,
        key=raw,
        headers=(("h", raw), ("none", None)),
        value=raw,
        failed_at=datetime.now(UTC),
    )
    assert DeadLetter.from_json(letter.to_json()) == letter


def test_listing_score_leans_on_the_cover() -> None:
    assert listing_score(0.8, [0.8, 0.2]) == pytest.approx(0.7 * 0.8 + 0.3 * 0.5)
    assert listing_score(None, [0.4, 0.2]) == pytest.approx(0.3)


RECORD = RedisRecord(
    score=0.5,
    cover_score=0.25,
    best_position=3,
    scored_photos=4,
    partial=True,
    aspects=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    event_version=0x0102030405060708 % 2**53,
    scored_at=datetime(2026, 1, 31, 9, 30, 0, 250_000, tzinfo=UTC),
    model_version=9,
)


def test_record_has_the_documented_bytes() -> None:
    """The vector that a reader in another language can be checked with."""
    assert RECORD.to_bytes().hex() == (
        "01" "02" "03" "04" "0080" "0040" "00336699ccff" "0000" "0807060504030200" "ba4a63139c010000" "09000000"
    )  # fmt: skip
    assert len(RECORD.to_bytes()) == 36


def test_record_survives_the_wire_within_its_precision() -> None:
    read = RedisRecord.from_bytes(RECORD.to_bytes())
    assert read.score == pytest.approx(RECORD.score, abs=1e-5)
    assert read.aspects == pytest.approx(RECORD.aspects, abs=2e-3)
    assert (
        read.model_copy(update={"score": RECORD.score, "cover_score": RECORD.cover_score, "aspects": RECORD.aspects})
        == RECORD
    )


def test_record_without_cover_score_reads_as_none() -> None:
    bare = RECORD.model_copy(update={"cover_score": None})
    assert RedisRecord.from_bytes(bare.to_bytes()).cover_score is None


def test_record_of_a_later_format_is_read_as_far_as_known() -> None:
    later = b"\x07" + RECORD.to_bytes()[1:] + b"appended"
    assert RedisRecord.from_bytes(later) == RedisRecord.from_bytes(RECORD.to_bytes())


@given(st.binary(max_size=64))
def test_no_bytes_crash_the_record_reader(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        RedisRecord.from_bytes(data)


def test_record_of_a_score_takes_cover_and_best_photo() -> None:
    record = RedisRecord.of(image_score(scores=(0.3, 0.9)))
    assert (record.cover_score, record.best_position, record.scored_photos, record.partial) == (0.3, 1, 2, False)


def test_redis_key_is_a_cluster_hash_tag() -> None:
    assert record_key("m123") == "image_score:{m123}"

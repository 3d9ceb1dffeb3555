"""The pipeline over real processes: an event in, a record, a score and a hint out; and every other end."""

from __future__ import annotations

import base64
import io

import orjson
import pytest
from PIL import Image

from schemas import DeadLetterType, PhotoErrorType, Stage
from stream.publish import event_of
from tests.conftest import jpeg
from tests.examples import EVENT
from tests.pipeline import Pipeline, committed, listing_id, wait_for
from triton_models.serving.versions import Repository


def test_event_becomes_record_score_and_hint(pipeline: Pipeline) -> None:
    listing = pipeline.publish(pipeline.host.good, seller_id="s42")
    record = pipeline.wait_for_record(listing)
    score = pipeline.wait_for_score(listing)
    hint = pipeline.wait_for_hint(listing)
    assert record.score == pytest.approx(score.score, abs=1e-4)
    assert record.cover_score == pytest.approx(score.photos[0].score, abs=1e-4)
    assert (record.event_version, record.model_version, record.partial) == (1, Repository().served, False)
    assert score.event.seller_id == hint.seller_id == "s42"
    assert sum(score.photos[0].class_probs) == pytest.approx(1, abs=1e-3)
    assert score.timings_ms.total >= score.timings_ms.infer > 0


def test_cluttered_photo_earns_a_tip_in_the_sellers_language(pipeline: Pipeline, samples: dict[str, bytes]) -> None:
    url = pipeline.host.put("cluttered.jpg", samples["t-shirt-cluttered"].read_bytes())  # type: ignore[attr-defined]
    hints = {locale: pipeline.wait_for_hint(pipeline.publish(url, locale=locale)) for locale in ("en", "ja-JP", "fr")}
    assert {locale: hint.tips[0].kind for locale, hint in hints.items()} == dict.fromkeys(hints, "busy_background")
    assert hints["en"].tips[0].text.startswith("The background of photo 1 is busy.")
    assert hints["ja-JP"].tips[0].text.startswith("1枚目の写真の背景がにぎやか")
    assert hints["fr"].tips[0].text == hints["en"].tips[0].text


def test_better_photo_is_proposed_as_cover(pipeline: Pipeline, samples: dict[str, bytes]) -> None:
    url = pipeline.host.put("cluttered.jpg", samples["t-shirt-cluttered"].read_bytes())  # type: ignore[attr-defined]
    hint = pipeline.wait_for_hint(pipeline.publish(url, pipeline.host.good))
    assert hint.tips[0].kind == "better_cover"
    assert hint.tips[0].position == 1
    assert "Make photo 2 your cover" in hint.tips[0].text


def test_deleted_listing_leaves_search_and_the_topic(pipeline: Pipeline) -> None:
    listing = pipeline.publish(version=1)
    pipeline.wait_for_record(listing)
    pipeline.delete(listing, version=2)
    wait_for(lambda: pipeline.record(listing) is None, "deletion")
    wait_for(lambda: pipeline.scores(listing)[-1:] == [None], "tombstone")


def test_late_older_event_never_brings_a_deleted_listing_back(pipeline: Pipeline) -> None:
    listing = listing_id()
    pipeline.delete(listing, version=5)
    pipeline.publish(listing=listing, version=4)
    marker = pipeline.publish(listing=listing, version=6)
    pipeline.wait_for_score(marker, version=6)
    pipeline.delete(listing, version=7)
    wait_for(lambda: pipeline.scores(listing)[-1:] == [None], "tombstone")
    versions = [score.event.version for score in pipeline.scores(listing) if score]
    assert versions == [6]
    assert pipeline.record(listing) is None


def test_older_event_after_a_newer_one_changes_nothing(pipeline: Pipeline) -> None:
    listing = pipeline.publish(version=9)
    pipeline.wait_for_score(listing, version=9)
    pipeline.publish(listing=listing, version=8)
    pipeline.publish(listing=listing, version=10)
    pipeline.wait_for_score(listing, version=10)
    assert [score.event.version for score in pipeline.scores(listing) if score] == [9, 10]
    assert pipeline.wait_for_record(listing, 10).event_version == 10


def test_bad_photos_are_reported_beside_good_ones(pipeline: Pipeline, photo: bytes) -> None:
    corrupt = pipeline.host.put("corrupt.jpg", photo[: len(photo) // 3])
    urls = [corrupt, pipeline.host.good, pipeline.host.url("files/missing.jpg"), pipeline.host.put("x.txt", b"text")]
    score = pipeline.wait_for_score(pipeline.publish(*urls))
    assert [photo.position for photo in score.photos] == [1]
    assert {photo.position: photo.error.type for photo in score.failed} == {
        0: PhotoErrorType.UNREADABLE,
        2: PhotoErrorType.NOT_FOUND,
        3: PhotoErrorType.NOT_AN_IMAGE,
    }
    record = pipeline.wait_for_record(score.listing_id)
    assert (record.partial, record.cover_score, record.best_position) == (True, None, 1)


def test_listing_without_a_good_photo_is_a_dead_letter(pipeline: Pipeline) -> None:
    event = event_of(listing_id(), [pipeline.host.url("files/missing.jpg"), pipeline.host.url("status/503")])
    letter = pipeline.wait_for_dead_letter(pipeline.produce(event))
    assert (letter.type, letter.stage) == (DeadLetterType.NO_SCORABLE_PHOTO, Stage.FETCH)
    assert [photo.error.type for photo in letter.photos] == [PhotoErrorType.NOT_FOUND, PhotoErrorType.UNAVAILABLE]
    # Two tries to fetch it in place, and again through the retry topic after each of the two waits.
    assert letter.attempts == 3
    assert len(letter.history) == 3
    assert letter.history == tuple(sorted(letter.history, key=lambda attempt: attempt.at))
    assert letter.value == event.to_json()
    assert letter.topic == pipeline.settings.events_topic
    assert pipeline.record(event.listing_id) is None


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        (b"poison-1", b"\xff\xfe not json", DeadLetterType.INVALID_EVENT),
        (b"poison-2", b"[" * 900_000, DeadLetterType.INVALID_EVENT),
        (b"poison-3", orjson.dumps({**EVENT, "type": "sold"}), DeadLetterType.INVALID_EVENT),
        (b"poison-4", orjson.dumps({**EVENT, "occurred_at": "2026-01-31T09:30:00"}), DeadLetterType.INVALID_EVENT),
        (b"poison-5", None, DeadLetterType.INVALID_EVENT),
        (b"poison-6", orjson.dumps(EVENT), DeadLetterType.KEY_MISMATCH),
        (None, orjson.dumps(EVENT), DeadLetterType.KEY_MISMATCH),
    ],
)
def test_poison_record_costs_one_dead_letter(
    pipeline: Pipeline, key: bytes | None, value: bytes | None, kind: DeadLetterType
) -> None:
    pipeline.produce_bytes(key, value)

    def own() -> object:
        return next((x for x in pipeline.dead_letters(None) if (x.key, x.value) == (key, value)), None)

    letter = wait_for(own, f"dead letter of {key!r}")
    assert letter.type is kind  # type: ignore[attr-defined]
    assert pipeline.wait_for_record(pipeline.publish())


def test_bomb_is_refused_without_being_decoded(pipeline: Pipeline) -> None:
    data = io.BytesIO()
    Image.new("1", (10_000, 6_000)).save(data, "PNG")
    url = pipeline.host.put("bomb.png", data.getvalue())
    letter = pipeline.wait_for_dead_letter(pipeline.publish(url))
    assert [photo.error.type for photo in letter.photos] == [PhotoErrorType.TOO_MANY_PIXELS]
    assert "10000 x 6000" in letter.photos[0].error.message


def test_private_address_in_an_event_is_refused(pipeline: Pipeline) -> None:
    urls = ["http://169.254.169.254/latest/meta-data", f"http://localhost:{pipeline.host.port}/files/good.jpg"]
    letter = pipeline.wait_for_dead_letter(pipeline.publish(*urls))
    assert {photo.error.type for photo in letter.photos} == {PhotoErrorType.URL_REFUSED}


def test_animated_and_turned_photos_are_scored(pipeline: Pipeline, photo: bytes) -> None:
    image = Image.open(io.BytesIO(photo))
    exif = Image.Exif()
    exif[0x0112] = 6
    animated = io.BytesIO()
    image.save(animated, "WEBP", save_all=True, append_images=[Image.new("RGB", image.size)], lossless=True)
    urls = [
        pipeline.host.good,
        pipeline.host.put("turned.jpg", jpeg(image.transpose(Image.Transpose.ROTATE_90), exif=exif)),
        pipeline.host.put("animated.webp", animated.getvalue()),
    ]
    upright, turned, first_frame = pipeline.wait_for_score(pipeline.publish(*urls)).photos
    assert turned.score == pytest.approx(upright.score, abs=0.05)
    assert first_frame.score == pytest.approx(upright.score, abs=0.05)


def test_event_delivered_twice_is_the_same_record_and_the_same_hint(pipeline: Pipeline) -> None:
    event = event_of(listing_id(), [pipeline.host.good])
    pipeline.produce(event)
    pipeline.produce(event)
    hints = wait_for(lambda: (found := pipeline.hints(event.listing_id))[1:] and found, "two hints")
    assert len({hint.hint_id for hint in hints}) == 1
    assert pipeline.wait_for_record(event.listing_id).event_version == 1


def test_offsets_are_committed_once_all_is_done(pipeline: Pipeline) -> None:
    listing = pipeline.publish()
    pipeline.wait_for_score(listing)
    total = len(pipeline.read(pipeline.settings.events_topic))
    wait_for(lambda: committed(pipeline.settings) == total, "commit of every event")


def test_dead_letter_is_readable_without_our_code(pipeline: Pipeline) -> None:
    pipeline.produce_bytes(b"plain-reader", b"\x00\x01")
    pipeline.wait_for_dead_letter("plain-reader")
    message = pipeline.read(pipeline.settings.dlq_topic, "plain-reader")[0]
    assert base64.b64decode(orjson.loads(message.value() or b"")["value"]) == b"\x00\x01"

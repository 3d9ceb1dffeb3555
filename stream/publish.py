"""Publishes listing events: from JSON lines, or made from a folder of photos."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

from schemas import ListingEvent, ListingEventType, ListingPhoto, MessageError
from schemas.listing_event import MAX_PHOTOS
from stream.consumer import Output, produce
from stream.errors import DependencyError, ImageScoreError
from stream.kafka import client_config
from stream.settings import Settings

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".gif"))


def events_of_lines(lines: Iterable[bytes]) -> Iterator[ListingEvent]:
    """Yield the event of each line that is not blank.

    Raises:
        ImageScoreError: a line is not a ListingEvent; names the line and each field.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield ListingEvent.from_json(line)
            except MessageError as error:
                raise ImageScoreError(f"line {number}: {error}") from None


def listings_of_folder(folder: Path) -> dict[str, list[Path]]:
    """Return listing id -> photos: a file is a listing with one photo, a subfolder one with several (by name).

    Raises:
        ImageScoreError: there is no photo in it, or too many in a subfolder.
    """
    if not folder.is_dir():
        raise ImageScoreError(f"{folder} is not a folder: give the folder that holds the photos")
    listings: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        photos = sorted(path.iterdir()) if path.is_dir() else [path]
        photos = [photo for photo in photos if photo.suffix.lower() in SUFFIXES]
        if len(photos) > MAX_PHOTOS:
            raise ImageScoreError(f"{path} holds {len(photos)} photos: a listing has at most {MAX_PHOTOS}")
        if photos:
            listings[_identifier(path.stem if path.is_file() else path.name, listings)] = photos
    if not listings:
        raise ImageScoreError(f"no photo in {folder}: expected files that end with {', '.join(sorted(SUFFIXES))}")
    return listings


def _identifier(name: str, taken: dict[str, list[Path]]) -> str:
    """Return `name` with only the characters of a listing id, different from those taken."""
    base = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)[:56] or "listing"
    candidates = (base if n == 1 else f"{base}-{n}" for n in range(1, len(taken) + 2))
    return next(candidate for candidate in candidates if candidate not in taken)


def event_of(
    listing_id: str, urls: list[str], version: int = 1, seller_id: str = "demo-seller", locale: str = "en"
) -> ListingEvent:
    """Return a `created` event for photos at these URLs, the first of which is the cover."""
    photos = [
        ListingPhoto.model_validate({"photo_id": f"{listing_id[:58]}-{i + 1}", "url": url, "position": i})
        for i, url in enumerate(urls)
    ]
    return ListingEvent(
        event_id=uuid.uuid4(),
        type=ListingEventType.CREATED,
        listing_id=listing_id,
        seller_id=seller_id,
        version=version,
        occurred_at=datetime.now(UTC),
        locale=locale,
        photos=tuple(photos),
    )


def publish(settings: Settings, events: Iterable[ListingEvent], on_delivery: Callable[[], None]) -> int:
    """Produce events to the events topic; call `on_delivery` for each that the brokers hold; return how many.

    Raises:
        DependencyError: the brokers refused an event, or did not take it within 30 s.
    """
    errors: list[KafkaError] = []

    def report(error: KafkaError | None, _: Message) -> None:
        if error:
            errors.append(error)
        else:
            on_delivery()

    config = {"enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 30_000}
    producer = Producer(client_config(settings) | config)
    count = 0
    for event in events:
        produce(producer, Output(settings.events_topic, event.listing_id.encode(), event.to_json()), report)
        producer.poll(0)
        count += 1
    producer.flush()
    if errors:
        raise DependencyError(f"{len(errors)} of {count} events were not taken by Kafka: {errors[0].str()}")
    return count

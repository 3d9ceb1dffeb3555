"""The demo: real photos through the whole pipeline, watched live, shown as a table and a contact sheet."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from schemas import DeadLetter, ImageScore, ListingEvent, SellerHint
from stream.demo.contact_sheet import Sheet, write_html, write_png
from stream.demo.photo_store import PhotoStore
from stream.demo.process import PipelineProcess
from stream.demo.samples import draw_samples
from stream.demo.table import results_table
from stream.embedded import EmbeddedStack
from stream.errors import ImageScoreError
from stream.kafka import client_config
from stream.publish import event_of, listings_of_folder, publish
from stream.settings import Settings

_QUIET_S = 60.0


@dataclass
class Results:
    """What came out of the pipeline, by listing id."""

    expected: int
    scores: dict[str, ImageScore] = field(default_factory=dict)
    hints: dict[str, SellerHint] = field(default_factory=dict)
    dead: dict[str, DeadLetter] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        return len(self.scores) + len(self.dead)

    @property
    def complete(self) -> bool:
        return self.answered == self.expected and len(self.hints) == len(self.scores)

    def latencies(self) -> list[float]:
        """Seconds from the event to its score, for each listing."""
        return [(score.scored_at - score.event.occurred_at).total_seconds() for score in self.scores.values()]


def run_demo(settings: Settings, photos: Path | None, out: Path, locale: str, console: Console) -> Results:
    """Run the pipeline on `photos` (drawn samples when None), print the results, write the contact sheet to `out`.

    Raises:
        ImageScoreError: no photos, a server could not be started, or an answer did not come.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    folder = photos or out / "samples"
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        drawing = pool.submit(draw_samples, folder) if photos is None else None
        listings = {} if drawing else listings_of_folder(folder)
        console.print("starting Kafka, Redis and Triton ...")
        servers = stack.enter_context(EmbeddedStack(settings))
        if drawing:
            drawing.result()
            listings = listings_of_folder(folder)
        store = PhotoStore(folder)
        settings = servers.settings.model_copy(update={"fetch_allow": (*servers.settings.fetch_allow, store.host)})
        processes = [store, PipelineProcess("worker", settings), PipelineProcess("hints", settings)]
        for process in processes:
            stack.callback(process.stop)
            process.start()
        for process in processes:
            process.wait_ready()
        console.print(f"ready after {time.monotonic() - started:.1f} s; publishing {len(listings)} listings")
        events = [
            event_of(_run_id(name), [store.url(p) for p in paths], locale=locale) for name, paths in listings.items()
        ]
        results = _watch(settings, events, console)
    files = {event.listing_id: paths for event, paths in zip(events, listings.values(), strict=True)}
    sheet = Sheet.of(results.scores, results.hints, results.dead, files, drawn=photos is None)
    console.print(results_table(results.scores, results.hints, results.dead, files))
    png, page = write_png(sheet, out / "contact-sheet.png"), write_html(sheet, out / "contact-sheet.html")
    console.print(f"contact sheet: {png}\n               {page}", soft_wrap=True)
    return results


def _run_id(name: str) -> str:
    """Listing ids of one run differ from those of the next, so that the demo can run again on a real cluster."""
    return f"{name}.{_RUN}"


_RUN = uuid.uuid4().hex[:6]


def _watch(settings: Settings, events: list[ListingEvent], console: Console) -> Results:
    """Publish the events and follow their scores, hints and dead letters, with live figures."""
    results = Results(expected=len(events))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as progress:
        scored = progress.add_task("scored", total=len(events), figures="")
        hinted = progress.add_task("hinted", total=len(events), figures="")
        began = time.monotonic()
        publish(settings, events, on_delivery=lambda: None)
        wanted = {event.listing_id for event in events}
        rate = 0.0
        for _ in _collect(settings, results, wanted):
            if not results.answered == progress.tasks[scored].completed == results.expected:
                rate = results.answered / (time.monotonic() - began)
            lag = results.expected - results.answered
            p50 = statistics.median(results.latencies() or [0.0])
            progress.update(
                scored, completed=results.answered, figures=f"{rate:.0f} listings/s  lag {lag}  p50 {p50:.2f} s"
            )
            progress.update(hinted, completed=len(results.hints) + len(results.dead))
    return results


def _collect(settings: Settings, results: Results, wanted: set[str]) -> Iterator[None]:
    """Yield after each batch of answers, until all are there.

    Raises:
        ImageScoreError: nothing came for a minute.
    """
    config = {"group.id": f"image-score-demo-{_RUN}", "auto.offset.reset": "earliest", "fetch.wait.max.ms": 50}
    consumer = Consumer(client_config(settings) | config)
    consumer.subscribe([settings.scores_topic, settings.hints_topic, settings.dlq_topic])
    last = time.monotonic()
    try:
        while not results.complete:
            for message in consumer.consume(100, 0.1):
                value = message.value()
                if message.error() or value is None:
                    continue
                last = time.monotonic()
                if message.topic() == settings.scores_topic:
                    score = ImageScore.from_json(value)
                    if score.listing_id in wanted:
                        results.scores[score.listing_id] = score
                elif message.topic() == settings.hints_topic:
                    hint = SellerHint.from_json(value)
                    if hint.listing_id in wanted:
                        results.hints[hint.listing_id] = hint
                elif (key := (message.key() or b"").decode(errors="replace")) in wanted:
                    results.dead[key] = DeadLetter.from_json(value)
            yield
            if time.monotonic() - last > _QUIET_S:
                missing = results.expected - results.answered
                raise ImageScoreError(f"no answer for {_QUIET_S:.0f} s; {missing} listings and some hints are missing")
    finally:
        consumer.close()

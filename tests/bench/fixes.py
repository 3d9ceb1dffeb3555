"""What fixes cost, and what they bring, on labelled photos.

    python tests/bench/fixes.py --photos ../shared/photos --labels ../shared/labels/validation.jsonl

Prints a table, writes a picture of the pairs that gain most, and ends with one line of JSON: CPU milliseconds a photo
for all candidates at 1024 pixels; how many photos labelled 1 to 3 get a tip; the largest gain of any chain of fixes on
photos labelled 4 or 5, and the largest that fixing again and again what was fixed comes to; and the time from an event
to its hint, `advise` between them.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from confluent_kafka import Producer
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))

from schemas import SellerHint
from stream.demo.photo_store import PhotoStore
from stream.demo.process import PipelineProcess
from stream.demo.samples import draw_samples
from stream.embedded import EmbeddedStack
from stream.fixes.advise import Advice, advise, encoded, opened, versions
from stream.fixes.edits import Fix
from stream.fixes.picture import Pair, write_pairs
from stream.inference import TritonModel
from stream.kafka import client_config, read_topic
from stream.publish import event_of
from stream.settings import load

_AT_ONCE = 8


def cpu_ms(photos: list[Path]) -> list[float]:
    """Return the CPU milliseconds that all candidates of each photo take, at 1024 pixels, encoding included."""
    spent = []
    for path in photos:
        photo = opened(path.read_bytes())
        scale = 1024 / max(photo.size)
        photo = photo.resize((round(photo.width * scale), round(photo.height * scale)))
        started = time.thread_time()
        versions(photo)
        spent.append((time.thread_time() - started) * 1000)
    return spent


async def advice_of(model: TritonModel, photos: list[bytes]) -> list[Advice]:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(data: bytes) -> Advice:
        async with slots:
            return await advise(model, data)

    return await asyncio.gather(*map(one, photos))


async def measure(settings: Any, photos: list[Path], rounds: int) -> tuple[list[Advice], list[list[float]]]:
    """Return the advice on each photo, and its score after each round of fixing what the round before made of it."""
    async with TritonModel(settings) as model:
        await model.check()
        first = await advice_of(model, [path.read_bytes() for path in photos])
        scores = [[_start(one)] for one in first]
        step = {i: one for i, one in enumerate(first) if one.best}
        for _ in range(rounds):
            for i, one in step.items():
                scores[i].append(one.best.score if one.best else scores[i][-1])
            fixed = {i: one.best.jpeg for i, one in step.items() if one.best}
            again = await advice_of(model, list(fixed.values()))
            step = {i: one for i, one in zip(fixed, again, strict=True) if one.best}
    return first, scores


def _start(advice: Advice) -> float:
    return advice.best.score - advice.best.gain if advice.best else advice.prediction.score


def hint_seconds(count: int, rate: float) -> list[float]:
    """Return, for each of `count` listings with drawn photos, the seconds from its event to its hint.

    Embedded servers; scorer, `advise` and the hints app on the same machine.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        photos = draw_samples(Path(folder))
        store = PhotoStore(Path(folder))
        servers = stack.enter_context(EmbeddedStack(load()))
        changes = {"fetch_allow": (store.host,), "hints_from": "advised"}
        settings = servers.settings.model_copy(update=changes)
        processes = [store, *(PipelineProcess(name, settings) for name in ("worker", "advise", "hints"))]
        for process in processes:
            stack.callback(process.stop)
            process.start()
        for process in processes:
            process.wait_ready()
        producer, sent = Producer(client_config(settings)), {}
        for number in range(count):
            listing = f"l{number}"
            event = event_of(listing, [store.url(photos[number % len(photos)])])
            producer.produce(settings.events_topic, key=listing, value=event.to_json())
            producer.poll(0)
            sent[listing] = event.occurred_at.timestamp()
            time.sleep(1 / rate)
        producer.flush(10)
        del producer  # before Kafka ends: it would complain that Kafka is gone
        deadline = time.monotonic() + 60
        while len(found := list(read_topic(settings, settings.hints_topic))) < count and time.monotonic() < deadline:
            time.sleep(0.2)
        hints = [(SellerHint.from_json(message.value() or b""), message.timestamp()[1] / 1000) for message in found]
        return [at - sent[hint.listing_id] for hint, at in hints]


@click.command()
@click.option("--photos", type=click.Path(path_type=Path), default=Path("../shared/photos"), show_default=True)
@click.option(
    "--labels", type=click.Path(path_type=Path), default=Path("../shared/labels/validation.jsonl"), show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/fixes"), show_default=True)
@click.option("--rounds", default=4, show_default=True, help="how often to fix what was fixed")
@click.option("--events", default=300, show_default=True, help="listings whose time to the hint is taken; 0: none")
@click.option("--rate", default=10.0, show_default=True, help="of those, a second")
@click.option("--best", default=20, show_default=True, help="pairs in the picture")
def main(photos: Path, labels: Path, out: Path, rounds: int, events: int, rate: float, best: int) -> None:
    """Measure what fixes cost, and what they bring, on labelled photos."""
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    files = [photos / row["photo"] for row in rows]
    spent = cpu_ms([*track(files[:60], "timing", console=Console(stderr=True), transient=True)])
    with EmbeddedStack(load(), kafka=False, redis=False) as stack:
        first, scores = asyncio.run(measure(stack.settings, files, rounds))
    classes = [row["score"] for row in rows]
    weak = [i for i, label in enumerate(classes) if label <= 3]
    good = [i for i, label in enumerate(classes) if label >= 4]
    gains: dict[Fix, list[float]] = defaultdict(list)
    for i in weak:
        for fixed in first[i].fixes:
            gains[fixed.fix].append(fixed.gain)
    table = Table("fix", "photos", "mean gain", "largest")
    for fix, values in sorted(gains.items(), key=lambda pair: -len(pair[1])):
        table.add_row(fix, str(len(values)), f"{statistics.mean(values):.3f}", f"{max(values):.3f}")
    Console(stderr=True).print(table)
    chosen = sorted((i for i in weak if first[i].best), key=lambda i: -_gain(first[i]))[:best]
    pairs = []
    for i in chosen:
        after = first[i].best
        assert after is not None
        text = f"{after.score - after.gain:.2f} -> {after.score:.2f}  {', '.join(first[i].chain)}"
        pairs.append(Pair(encoded(opened(files[i].read_bytes())), after.jpeg, text))
    write_pairs(pairs, out / "best.jpg")
    figures: dict[str, Any] = {
        "photos": len(rows),
        "cpu_ms_median": round(statistics.median(spent), 1),
        "cpu_ms_max": round(max(spent), 1),
        "weak_photos": len(weak),
        "weak_with_tip": sum(bool(first[i].fixes) for i in weak),
        "mean_gain": round(statistics.mean(_gain(first[i]) for i in weak if first[i].best), 4),
        "good_photos": len(good),
        "good_largest_gain": round(max(_gain(first[i]) for i in good), 4),
        "good_largest_gain_again": round(max(scores[i][-1] - scores[i][0] for i in good), 4),
        "fixed_again_in_round": [sum(len(one) > step for one in scores) for step in range(1, rounds + 1)],
    }
    if events:
        waits = sorted(hint_seconds(events, rate))
        figures |= {
            "hints": len(waits),
            "hint_p50_s": round(statistics.median(waits), 3),
            "hint_p99_s": round(waits[min(len(waits) - 1, int(0.99 * len(waits)))], 3),
        }
    print(json.dumps(figures))


def _gain(advice: Advice) -> float:
    return advice.best.gain if advice.best else 0.0


if __name__ == "__main__":
    main()

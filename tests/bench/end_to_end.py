"""How much of bare Triton's rate the whole pipeline keeps, everything on the same cores, in one run.

    python tests/bench/end_to_end.py [--photos FOLDER] [--count 2000] [--no-hints]

Bare: the same photos sent to Triton by tritonclient's asyncio client, from memory, and nothing else, before and after
each round of the pipeline; a round's ratio is its rate over the mean of both, `ratio` the median of the rounds, which
take turns because machines' speed drifts. The pipeline is Kafka, the scorer, an HTTP photo
store, Triton, Redis and the hints app, each a process. Latency is measured after that, at half of that rate:
from producing the event to its record being readable in Redis. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections import deque
from contextlib import ExitStack
from itertools import accumulate, pairwise
from pathlib import Path
from typing import cast

import numpy as np
import orjson
import redis
import tritonclient.grpc.aio as grpcclient
import uvloop
from confluent_kafka import Consumer, Producer, TopicPartition
from rich.console import Console
from rich.progress import track
from rich.table import Table

from schemas import ListingEvent, record_key
from stream.demo.photo_store import PhotoStore
from stream.demo.process import PipelineProcess
from stream.demo.samples import draw_samples
from stream.embedded import EmbeddedStack
from stream.embedded.server import Server, children
from stream.kafka import client_config
from stream.publish import event_of
from stream.settings import Settings, load

TIMEOUT_S = 600
console = Console(stderr=True)


def find_photos(folder: Path | None, scratch: Path) -> tuple[Path, list[Path]]:
    """Return the folder and its photos: the one given, else the project's data, else drawn samples."""
    for candidate in (folder, Path(os.environ.get("IMAGE_SCORE_PHOTOS", "../shared/photos"))):
        if candidate is not None and (found := sorted(candidate.rglob("*.jpg"))):
            return candidate, found
    return scratch, draw_samples(scratch)


async def bare_rate(settings: Settings, photos: list[bytes]) -> float:
    """Return photos/s of Triton, asked by its own asyncio client, a photo a request, `inferences` in flight."""
    outputs = [grpcclient.InferRequestedOutput(name) for name in ("SCORE", "CLASS_PROBS", "ASPECTS", "ISSUES")]
    in_flight = asyncio.Semaphore(settings.inferences)

    async def infer(photo: bytes) -> float:
        tensor = grpcclient.InferInput("IMAGE", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[photo]], dtype=np.object_))
        async with in_flight:
            answer = await client.infer(settings.model, [tensor], outputs=outputs)
        return float(answer.as_numpy("SCORE")[0, 0])

    async with grpcclient.InferenceServerClient(settings.triton) as client:
        await asyncio.gather(*(infer(photo) for photo in photos[:64]))
        started = time.perf_counter()
        await asyncio.gather(*(infer(photo) for photo in photos))
        return len(photos) / (time.perf_counter() - started)


class Pipeline:
    """What the benchmark sees of the pipeline: it produces events, and looks for records in Redis."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = Producer(client_config(settings) | {"linger.ms": 0})
        self._records = redis.Redis.from_url(settings.redis)

    def produce(self, event: ListingEvent) -> None:
        self._producer.produce(self._settings.events_topic, key=event.listing_id, value=event.to_json())
        self._producer.poll(0)

    def rate(self, events: list[ListingEvent]) -> float:
        """Return listings/s from producing the first event to the last record in Redis."""
        before, started = self._count(), time.perf_counter()
        for event in events:
            self.produce(event)
        while self._count() - before < len(events):
            time.sleep(0.01)
            if time.perf_counter() - started > TIMEOUT_S:
                raise SystemExit(f"only {self._count() - before} of {len(events)} records came in {TIMEOUT_S} s")
        return len(events) / (time.perf_counter() - started)

    def wait_for_scores(self, count: int) -> None:
        """Return when the scores topic holds `count` records: the scorer's producer has its connections then."""
        consumer = Consumer(client_config(self._settings) | {"group.id": "unused"})
        topic = self._settings.scores_topic
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        places = [TopicPartition(topic, partition) for partition in partitions]
        while sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places) < count:
            time.sleep(0.1)
        consumer.close()

    def _count(self) -> int:
        return self._records.dbsize()

    def latencies(self, events: list[ListingEvent], rate: float) -> list[float]:
        """Produce at `rate` events/s with random gaps; return the seconds until each record is readable."""
        gaps, started = random.Random(0), time.perf_counter()
        pending = deque(zip(accumulate(gaps.expovariate(rate) for _ in events), events, strict=True))
        produced: dict[str, float] = {}
        found: list[float] = []
        while pending or produced:
            now = time.perf_counter()
            if pending and now >= started + pending[0][0]:
                event = pending.popleft()[1]
                produced[event.listing_id] = now
                self.produce(event)
                continue
            found += [time.perf_counter() - produced.pop(listing) for listing in self._readable(list(produced))]
            if now - started > TIMEOUT_S:
                raise SystemExit(f"{len(produced)} records did not come in {TIMEOUT_S} s")
            time.sleep(0.001)
        return found

    def _readable(self, listings: list[str]) -> list[str]:
        values = cast(list[bytes | None], self._records.mget([record_key(listing) for listing in listings] or ["-"]))
        return [listing for listing, value in zip(listings, values, strict=False) if value]


def cpu_seconds(server: Server) -> float:
    """Return the CPU time of a server and its children, so far."""
    total, pids = 0.0, [server.pid]
    while pids:
        pid = pids.pop()
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        pids += children(pid)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEG photos (IMAGE_SCORE_PHOTOS)")
    parser.add_argument("--count", type=int, default=2000, help="photos, one for each listing")
    parser.add_argument(
        "--rounds", type=int, default=3, help="times that the pipeline runs, bare Triton before and after"
    )
    parser.add_argument("--latency-count", type=int, default=500, help="events in the latency part")
    parser.add_argument("--no-hints", action="store_true", help="leave the hints app out")
    args = parser.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder, found = find_photos(args.photos, scratch)
        random.Random(0).shuffle(found)
        paths = [found[i % len(found)] for i in range(args.count)]
        photos = [path.read_bytes() for path in paths]
        embedded = stack.enter_context(EmbeddedStack(load()))
        store = PhotoStore(folder)
        settings = embedded.settings.model_copy(update={"fetch_allow": (store.host,)})
        worker = PipelineProcess("worker", settings)
        servers: list[Server] = [store, worker]
        if not args.no_hints:
            servers.append(PipelineProcess("hints", settings))
        pipeline = Pipeline(settings)

        for server in servers:
            stack.callback(server.stop)
            server.start()
        for server in servers:
            server.wait_ready()
        warm = [event_of(f"warm-{i}", [store.url(path)]) for i, path in enumerate(paths[:100])]
        pipeline.rate(warm)
        pipeline.wait_for_scores(len(warm))
        measured = [s for s in (embedded.kafka, embedded.redis, embedded.triton, *servers) if s is not None]
        used = dict.fromkeys((server.name for server in measured), 0.0)
        bare, rates = [uvloop.run(bare_rate(settings, photos))], []
        for turn in track(range(args.rounds), f"{args.count} photos of {folder}", console=console):
            before = {server.name: cpu_seconds(server) for server in measured}
            events = [event_of(f"bench-{turn}-{i}", [store.url(path)]) for i, path in enumerate(paths)]
            rates.append(pipeline.rate(events))
            for server in measured:
                used[server.name] += cpu_seconds(server) - before[server.name]
            bare.append(uvloop.run(bare_rate(settings, photos)))
        slow = [event_of(f"latency-{i}", [store.url(path)]) for i, path in enumerate(paths[: args.latency_count])]
        waits = pipeline.latencies(slow, statistics.median(rates) / 2)
    ratios = [rate / statistics.mean(around) for rate, around in zip(rates, pairwise(bare), strict=True)]
    percentiles = statistics.quantiles(waits, n=100)
    figures = {
        "bench": "end_to_end",
        "cores": len(os.sched_getaffinity(0)),
        "photos": args.count,
        "hints": not args.no_hints,
        "pipeline_listings_per_s": [round(value, 1) for value in rates],
        "bare_photos_per_s": [round(value, 1) for value in bare],
        "ratios": [round(value, 3) for value in ratios],
        "ratio": round(statistics.median(ratios), 3),
        "latency_load": 0.5,
        "latency_p50_ms": round(percentiles[49] * 1e3, 1),
        "latency_p99_ms": round(percentiles[98] * 1e3, 1),
        "cpu_ms_per_listing": {name: round(s / args.rounds / args.count * 1e3, 2) for name, s in used.items()},
    }
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, str(value))
    console.print(table)
    print(orjson.dumps(figures).decode())


if __name__ == "__main__":
    main()

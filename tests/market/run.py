"""`make experiment`: a SIMULATED A/B test of ranking with the score, through every real process.

Listings are published to Kafka; the scorer fetches their photos, asks Triton, writes Redis and `image.scores`; the sink
writes the scores into OpenSearch. Buyers are put into arms by the rule of `schemas.experiment`, search there, by the
plain query or by the one with the score, and click and buy as `tests.market.buyers` says. What they did is analysed by
`image-score experiment analyze`, and the control arm's log by `image-score simulate-ranking`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
from confluent_kafka import Producer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from schemas.experiment import Experiments
from stream.demo.photo_store import PhotoStore
from stream.demo.process import PipelineProcess
from stream.embedded import EmbeddedStack
from stream.kafka import client_config
from stream.lookup import ScoreReader
from stream.publish import event_of
from stream.search import queries
from stream.settings import load
from tests.market.buyers import PAGE, WORDS, Buyers, Listing, listings
from tests.pipeline import wait_for
from tests.real_kafka import missing
from tests.search_server import SearchServer

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 14
SIMULATED = (
    "The photos, their scores, the search engine and the ranking are real; the buyers are not: their preference for "
    "good photos was chosen by us (tests/market/buyers.py). So this page shows that the measurement works, not that "
    "photos sell."
)
REST_MS = 50.0
"""SIMULATED: what a page takes beside the search engine."""
_BULK = 100
RULES = Experiments.model_validate(
    {
        "layers": [
            {
                "name": "ranking",
                "salt": "market",
                "experiments": [
                    {"name": "image-score", "salt": "market-1", "arms": [{"name": "control"}, {"name": "treatment"}]}
                ],
            }
        ]
    }
)


@dataclass
class Log:
    """What buyers did, as the commands read it."""

    exposures: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    results: list[tuple[Any, ...]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        names = ["user_id", "arm", "at", "device"]
        pl.DataFrame(self.exposures, names, orient="row").write_parquet(folder / "exposures.parquet")
        names = ["user_id", "at", "type", "value", "seller_id", "new_seller"]
        frame = pl.DataFrame(self.events, names, orient="row", infer_schema_length=None)
        frame.write_parquet(folder / "events.parquet")
        names = ["search_id", "listing_id", "photo", "category", "title", "price", "position", "seen", "clicked"]
        names += ["bought", "relevance", "seller_id"]
        frame = pl.DataFrame(self.results, names, orient="row", infer_schema_length=None)
        frame.write_parquet(folder / "searches.parquet")


class Market:
    """Everything that runs; use as a context manager."""

    def __init__(self, shop: list[Listing], photos: Path, weight: float) -> None:
        self.shop = shop
        self._photos = photos
        self._weight = weight
        self._number = {listing.listing_id: i for i, listing in enumerate(shop)}
        self._stack = ExitStack()

    def __enter__(self) -> Market:
        with ExitStack() as stack:
            self.search = SearchServer()
            servers = stack.enter_context(EmbeddedStack(load()))
            store = PhotoStore(self._photos)
            for server in (self.search, store):
                stack.callback(server.stop)
                server.start()
            self.search.wait_ready()
            self._index()
            changes = {"fetch_allow": (store.host,), "search": self.search.url, "search_index": "listings"}
            self.settings = servers.settings.model_copy(update=changes)
            for process in (PipelineProcess("worker", self.settings), PipelineProcess("index", self.settings)):
                stack.callback(process.stop)
                process.start()
                process.wait_ready()
            producer = Producer(client_config(self.settings))
            for listing in self.shop:
                event = event_of(listing.listing_id, [store.url(listing.photo)])
                producer.produce(self.settings.events_topic, key=listing.listing_id, value=event.to_json())
            producer.flush(30)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _index(self) -> None:
        """Put the documents in place, as the marketplace's own indexer does."""
        text = {"type": "text"}
        settings = {"number_of_replicas": 0, "number_of_shards": 1}
        self.search.ask("PUT", "/listings", {"settings": settings, "mappings": {"properties": {"title": text}}})
        for listing in self.shop:
            document = {"title": listing.title, "price": listing.price, "category": listing.category}
            self.search.ask("PUT", f"/listings/_doc/{listing.listing_id}", document)

    def wait_until_scored(self, within_s: float = 120) -> int:
        """Return when every listing has a score in search's documents, or is given up as unscorable."""
        scored = {"query": {"exists": {"field": "image_score.score"}}}

        def count() -> int:
            self.search.ask("POST", "/listings/_refresh")
            return int(self.search.ask("POST", "/listings/_count", scored)["count"])

        wait_for(lambda: count() >= len(self.shop), "scores of all listings", within_s)
        return count()

    def pages(self, asked: list[tuple[str, str]]) -> Iterator[tuple[NDArray[np.int64], list[float], float]]:
        """Yield (listings, relevances, milliseconds) of each (query, arm)."""
        for start in range(0, len(asked), _BULK):
            part = asked[start : start + _BULK]
            lines: list[dict[str, Any]] = []
            for text, arm in part:
                match = {"match": {"title": text}}
                query = queries.function_score(match, self._weight) if arm == "treatment" else match
                lines += [{"index": "listings"}, {"query": query, "size": PAGE, "_source": False}]
            for found in self._msearch(lines)["responses"]:
                hits = found["hits"]["hits"]
                numbers = np.array([self._number[hit["_id"]] for hit in hits], dtype=np.int64)
                yield numbers, [hit["_score"] for hit in hits], float(found["took"])

    def _msearch(self, lines: list[dict[str, Any]]) -> Any:
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        request = urllib.request.Request(
            f"{self.search.url}/_msearch", data, {"Content-Type": "application/x-ndjson"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


def live(market: Market, buyers: Buyers, per_buyer: float, seed: int, console: Console) -> Log:
    """Let the buyers search: a fortnight before the experiment, when all see the plain ranking, and one within."""
    rng = np.random.default_rng(seed)
    log = Log()
    categories = sorted({listing.category for listing in market.shop})
    plan: list[tuple[int, datetime, str, str]] = []
    for period, counts in enumerate((buyers.searches(per_buyer), buyers.searches(per_buyer))):
        for buyer, count in enumerate(counts):
            user = f"u{buyer}"
            arm = RULES.assign(user)["image-score"] if period else "before"
            days = sorted(rng.random(count) * DAYS)
            for number, day in enumerate(days):
                at = START + timedelta(days=period * DAYS + day)
                if period and number == 0:
                    log.exposures.append((user, arm, at, "phone" if buyers.phone[buyer] else "computer"))
                text = f"{rng.choice(categories)} {rng.choice(WORDS)}"
                plan.append((buyer, at, text, arm))
    asked = [(text, arm) for _, _, text, arm in plan]
    found = market.pages(asked)
    rows = zip(plan, found, strict=True)
    steps = track(enumerate(rows), "searches", len(plan), console=console, transient=True)
    for number, ((buyer, at, text, arm), page) in steps:
        _note(log, market, buyers, (number, buyer, at, text, arm), page)
    return log


def _note(
    log: Log,
    market: Market,
    buyers: Buyers,
    search: tuple[int, int, datetime, str, str],
    page: tuple[NDArray[np.int64], list[float], float],
) -> None:
    number, buyer, at, text, arm = search
    shown, relevances, took = page
    user = f"u{buyer}"
    log.events.append((user, at, "search", took + REST_MS, None, None))
    choice = buyers.look(buyer, shown)
    for i in range(choice.seen):
        listing = market.shop[shown[i]]
        log.events.append((user, at, "impression", None, listing.seller_id, listing.new_seller))
    log.events += [(user, at, "click", None, None, None)] * len(choice.clicked)
    log.events += [(user, at, "transaction", market.shop[shown[i]].price, None, None) for i in choice.bought]
    if arm == "control":
        for i, relevance in enumerate(relevances):
            listing = market.shop[shown[i]]
            seen, clicked, bought = i < choice.seen, i in choice.clicked, i in choice.bought
            what = (listing.photo.name, text.split()[0], listing.title, listing.price)
            row = (f"q{number}", listing.listing_id, *what, i + 1, seen, clicked, bought, relevance, listing.seller_id)
            log.results.append(row)


@click.command()
@click.option("--listings", "count", default=400, show_default=True)
@click.option("--buyers", "people", default=12_000, show_default=True)
@click.option("--searches", default=4.0, show_default=True, help="of a buyer in a fortnight")
@click.option("--weight", default=0.3, show_default=True, help="of the photo in the treatment's query")
@click.option("--photos", type=click.Path(path_type=Path), default=Path("../shared/photos"), show_default=True)
@click.option("--labels", type=click.Path(path_type=Path), default=Path("../shared/labels"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("image-score-experiment"), show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(
    count: int, people: int, searches: float, weight: float, photos: Path, labels: Path, out: Path, seed: int
) -> None:
    """Run a SIMULATED A/B test of ranking with the score, through every real process."""
    if problem := missing():
        raise click.ClickException(problem.replace("Kafka", "OpenSearch"))
    started = time.monotonic()
    console = Console(stderr=True)
    out.mkdir(parents=True, exist_ok=True)
    shop = listings(count, photos, labels, out / "samples", seed)
    root = photos if shop[0].photo.is_relative_to(photos) else out / "samples"
    console.print(f"{count} listings of real processes, {people} simulated buyers")
    with Market(shop, root, weight) as market:
        market.wait_until_scored()
        console.print(f"scored and indexed after {time.monotonic() - started:.0f} s")
        buyers = Buyers(people, shop, seed)
        live(market, buyers, searches, seed, console).write(out)
        with ScoreReader(market.settings.redis, budget_s=10) as reader:
            rows = [(one.listing_id, score) for one, score in zip(shop, _scores(reader, shop), strict=True)]
        pl.DataFrame(rows, ["listing_id", "score"], orient="row").write_parquet(out / "scores.parquet")
    said = ("--simulated", SIMULATED)
    tried = (out / "searches.parquet", "--scores", out / "scores.parquet", "--out", out / "ranking")
    _command("simulate-ranking", *tried, *said)
    title = "Ranking with Image Score"
    logs = (out / "exposures.parquet", out / "events.parquet")
    _command("experiment", "analyze", *logs, "--out", out, "--title", title, *said)
    found = json.loads((out / "analysis.json").read_text())
    primary = found["findings"][0]["difference"]
    figures = {
        "seconds": round(time.monotonic() - started),
        "users": sum(found["users"].values()),
        "decision": found["decision"],
        "lift": round(primary["treatment"] / primary["control"] - 1, 4),
        "p": round(primary["p_value"], 5),
    }
    print(json.dumps({"simulated": True, **figures}))


def _scores(reader: ScoreReader, shop: list[Listing]) -> list[float]:
    return reader.get_many([listing.listing_id for listing in shop]).scores()


def _command(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "stream.cli", *map(str, words)], check=True)


if __name__ == "__main__":
    main()

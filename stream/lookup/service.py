"""`image-score lookup-service`: the reader over HTTP and gRPC, for programs that would rather not read Redis."""

from __future__ import annotations

import logging
from typing import Annotated

import uvloop
from fastapi import FastAPI, Path, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field
from swagger_ui_bundle import swagger_ui_path

from schemas import RedisRecord
from schemas.base import Identifier
from stream.errors import SettingsError
from stream.http_server import end_of_program, http_server
from stream.lookup.grpc_service import grpc_server
from stream.lookup.reader import AsyncScoreReader
from stream.settings import Settings

log = logging.getLogger("image_score.lookup")
MAX_IDS = 5000
MAX_BUDGET_MS = 10_000
_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class ListingScore(BaseModel):
    """The score of one listing."""

    listing_id: Identifier
    score: float = Field(description="0..1; the neutral score where there is none")
    late: bool = Field(description="Redis did not answer in time")
    record: RedisRecord | None = Field(description="null: not scored, deleted, or not known in time")


class ScoresRequest(BaseModel):
    """The listings of a page of results."""

    listing_ids: list[Identifier] = Field(max_length=MAX_IDS)
    budget_ms: float | None = Field(None, gt=0, le=MAX_BUDGET_MS, description="answer within; null: the service's own")


class ScoresResponse(BaseModel):
    """Scores in the order of the request."""

    scores: list[float]
    late: list[str] = Field(description="listings that Redis said nothing of in time")


class _ReaderMetrics(Collector):
    """The reader's counts, read when they are asked for."""

    def __init__(self, reader: AsyncScoreReader) -> None:
        self._reader = reader

    def collect(self) -> list[Metric]:
        stats = self._reader.stats()
        counts = {
            "asked": ("Listings asked for", stats.asked),
            "late": ("Listings answered with the neutral score because Redis was slow or away", stats.late),
            "cache_hits": ("Listings found in the cache", stats.hits),
            "cache_misses": ("Listings asked of Redis", stats.misses),
            "cache_invalidated": ("Cached records dropped because they changed", stats.invalidated),
        }
        gauges = {
            "cached": ("Listings in the cache", stats.cached),
            "tracking": ("Whether Redis tells of changes", float(stats.tracking)),
        }
        return [
            *(CounterMetricFamily(f"image_score_lookup_{name}", text, v) for name, (text, v) in counts.items()),
            *(GaugeMetricFamily(f"image_score_lookup_{name}", text, v) for name, (text, v) in gauges.items()),
        ]


def http_app(reader: AsyncScoreReader) -> FastAPI:
    """Return the HTTP application: /v1/scores, /livez, /readyz, /metrics, /docs, /openapi.json."""
    app = FastAPI(title="Image Score lookup", version="1", docs_url=None, redoc_url=None)
    app.openapi_version = "3.0.3"  # what the bundled page reads
    registry = CollectorRegistry()
    registry.register(_ReaderMetrics(reader))
    seconds = Histogram("image_score_lookup_seconds", "Time of a lookup", registry=registry, buckets=_BUCKETS_S)

    @app.get("/v1/scores/{listing_id}")
    async def score(listing_id: Annotated[Identifier, Path(examples=["m123"])]) -> ListingScore:
        """The score of one listing."""
        with seconds.time():
            found = await reader.get(listing_id)
        return ListingScore(listing_id=listing_id, score=found.score, late=found.late, record=found.record)

    @app.post("/v1/scores")
    async def scores(request: ScoresRequest) -> ScoresResponse:
        """The scores of many listings, in one round trip to Redis."""
        budget_s = request.budget_ms / 1000 if request.budget_ms else None
        with seconds.time():
            answer = await reader.get_many(request.listing_ids, budget_s)
        return ScoresResponse(scores=answer.scores(), late=answer.late)

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        """Whether the service runs."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz(response: Response) -> dict[str, object]:
        """Whether Redis answers; a service that is not ready answers lookups all the same, neutrally."""
        ready = await reader.ready()
        response.status_code = 200 if ready else 503
        return {"ready": ready, "tracking": reader.stats().tracking}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    app.mount("/docs/files", StaticFiles(directory=str(swagger_ui_path)))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        files = "/docs/files/"
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url=f"{files}swagger-ui-bundle.js",
            swagger_css_url=f"{files}swagger-ui.css",
            swagger_favicon_url=f"{files}favicon-32x32.png",
        )

    return app


def reader_of(settings: Settings) -> AsyncScoreReader:
    """Return a reader with these settings.

    Raises:
        SettingsError: the URL of Redis cannot be read.
    """
    try:
        return AsyncScoreReader(
            settings.redis,
            budget_s=settings.lookup_budget_s,
            neutral=settings.lookup_neutral,
            cache_size=settings.lookup_cache,
            ttl_s=settings.lookup_ttl_s,
            replicas=settings.lookup_replicas,
            ssl_ca=settings.redis_ssl_ca,
        )
    except ValueError as error:
        raise SettingsError(f"redis: {error}; set IMAGE_SCORE_REDIS") from None


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; what is under way is finished."""
    end = end_of_program()
    async with (
        reader_of(settings) as reader,
        grpc_server(reader, settings.lookup_grpc, MAX_IDS),
        http_server(http_app(reader), settings.lookup_http, "lookup_http"),
    ):
        log.info("ready: HTTP on port %d, gRPC on port %d", settings.lookup_http, settings.lookup_grpc)
        await end.wait()


def run(settings: Settings) -> None:
    """Run `serve` in an event loop of its own."""
    uvloop.run(serve(settings))

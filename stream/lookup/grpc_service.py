"""The reader over gRPC, as `schemas/lookup.proto` describes, with reflection and health checking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from schemas import lookup_pb2
from stream.errors import SettingsError
from stream.lookup.answer import Score
from stream.lookup.reader import AsyncScoreReader

SERVICE = lookup_pb2.DESCRIPTOR.services_by_name["ScoreLookup"].full_name


class _Lookup:
    def __init__(self, reader: AsyncScoreReader, max_ids: int) -> None:
        self._reader = reader
        self._max_ids = max_ids

    async def get(self, request: lookup_pb2.GetRequest, context: Any) -> lookup_pb2.ListingScore:
        if not request.listing_id:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "listing_id: empty; give the listing's id")
        return _message(request.listing_id, await self._reader.get(request.listing_id, _budget(request.budget_ms)))

    async def get_many(self, request: lookup_pb2.GetManyRequest, context: Any) -> lookup_pb2.GetManyResponse:
        count = len(request.listing_ids)
        if count > self._max_ids:
            text = f"listing_ids: {count} are too many; ask for at most {self._max_ids} at once"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        answer = await self._reader.get_many(list(request.listing_ids), _budget(request.budget_ms))
        return lookup_pb2.GetManyResponse(scores=answer.scores(), late=answer.late)


def _budget(ms: int) -> float | None:
    return ms / 1000 if ms else None


def _message(listing_id: str, found: Score) -> lookup_pb2.ListingScore:
    record = found.record
    if record is None:
        return lookup_pb2.ListingScore(listing_id=listing_id, score=found.score, late=found.late)
    return lookup_pb2.ListingScore(
        listing_id=listing_id,
        score=found.score,
        scored=True,
        cover_score=record.cover_score,
        best_position=record.best_position,
        event_version=record.event_version,
        scored_at_ms=round(record.scored_at.timestamp() * 1000),
        model_version=record.model_version,
    )


@asynccontextmanager
async def grpc_server(reader: AsyncScoreReader, port: int, max_ids: int) -> AsyncIterator[None]:
    """Serve on all interfaces while the block runs.

    Raises:
        SettingsError: the port is taken.
    """
    server = grpc.aio.server()
    lookup = _Lookup(reader, max_ids)
    methods: dict[str, tuple[Any, Any, Any]] = {
        "Get": (lookup.get, lookup_pb2.GetRequest, lookup_pb2.ListingScore),
        "GetMany": (lookup.get_many, lookup_pb2.GetManyRequest, lookup_pb2.GetManyResponse),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )
        for name, (call, request, response) in methods.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    state = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection((SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)
    try:
        server.add_insecure_port(f"[::]:{port}")
    except RuntimeError:
        raise SettingsError(f"lookup_grpc: port {port} is taken; set IMAGE_SCORE_LOOKUP_GRPC to a free one") from None
    await server.start()
    await state.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield
    finally:
        await server.stop(grace=2)

"""Scores over HTTP and gRPC, from the real process and a real Redis."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import redis
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from schemas import RedisRecord, lookup_pb2, record_key
from stream.demo.process import PipelineProcess
from stream.embedded.redis import EmbeddedRedis
from stream.embedded.server import free_port
from stream.lookup.grpc_service import SERVICE
from stream.settings import Settings, load
from tests.bench.lookup import record
from tests.pipeline import wait_for


class LookupService(PipelineProcess):
    def __init__(self, settings: Settings) -> None:
        super().__init__("lookup-service", settings)
        self.http = f"http://127.0.0.1:{settings.lookup_http}"
        self.channel = grpc.insecure_channel(f"127.0.0.1:{settings.lookup_grpc}")

    def get(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and JSON (or text) of a request; one with a body is a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.http + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        return status, json.loads(text) if text.startswith(("{", "[")) else text

    def call(self, name: str, request: Any, response: Any) -> Any:
        method = self.channel.unary_unary(
            f"/{SERVICE}/{name}", request_serializer=type(request).SerializeToString, response_deserializer=response
        )
        return method(request, timeout=10)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis()
    server.start()
    server.wait_ready()
    redis.Redis(port=server.port).mset({record_key(f"m{number}"): record(number) for number in range(100)})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def service(server: EmbeddedRedis) -> Iterator[LookupService]:
    ports = {"lookup_http": free_port(), "lookup_grpc": free_port()}
    service = LookupService(load(redis=server.url, lookup_budget_s=5, **ports))
    service.start()
    service.wait_ready()
    yield service
    service.channel.close()
    service.stop()


def test_http_answers_for_one_listing(service: LookupService) -> None:
    status, found = service.get("/v1/scores/m7")
    expected = RedisRecord.from_bytes(record(7))
    assert status == 200
    assert found["score"] == pytest.approx(expected.score)
    assert RedisRecord.from_json(json.dumps(found["record"]).encode()) == expected
    assert service.get("/v1/scores/unknown")[1] == {
        "listing_id": "unknown",
        "score": 0.5,
        "late": False,
        "record": None,
    }


def test_http_answers_for_many_listings_in_their_order(service: LookupService) -> None:
    status, found = service.get("/v1/scores", {"listing_ids": ["m9", "unknown", "m3"]})
    scores = [RedisRecord.from_bytes(record(number)).score for number in (9, 3)]
    assert status == 200
    assert found == {"scores": [scores[0], 0.5, scores[1]], "late": []}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"listing_ids": ["bad id"]}, "listing_ids"),
        ({"listing_ids": ["m"] * 5001}, "listing_ids"),
        ({"listing_ids": ["m1"], "budget_ms": 0}, "budget_ms"),
        ({}, "listing_ids"),
    ],
)
def test_http_refuses_requests_and_names_the_field(service: LookupService, body: Any, field: str) -> None:
    status, found = service.get("/v1/scores", body)
    assert status == 422
    assert field in json.dumps(found["detail"][0]["loc"])


def test_the_service_describes_itself(service: LookupService) -> None:
    assert "/v1/scores" in service.get("/openapi.json")[1]["paths"]
    page = service.get("/docs")[1]
    assert "/docs/files/swagger-ui-bundle.js" in page
    assert "https://" not in page, "the page needs nothing from elsewhere"
    assert service.get("/docs/files/swagger-ui-bundle.js")[0] == 200


def test_metrics_count_lookups(service: LookupService) -> None:
    service.get("/v1/scores/m1")
    text = service.get("/metrics")[1]
    assert "image_score_lookup_asked_total" in text
    assert "image_score_lookup_tracking 1.0" in text
    assert "image_score_lookup_seconds_bucket" in text


def test_grpc_answers_for_one_and_many(service: LookupService) -> None:
    one = service.call("Get", lookup_pb2.GetRequest(listing_id="m7"), lookup_pb2.ListingScore.FromString)
    expected = RedisRecord.from_bytes(record(7))
    assert (one.score, one.scored, one.event_version) == (expected.score, True, 7)
    assert one.cover_score == expected.cover_score
    many = lookup_pb2.GetManyRequest(listing_ids=["m9", "unknown"])
    found = service.call("GetMany", many, lookup_pb2.GetManyResponse.FromString)
    assert list(found.scores) == [RedisRecord.from_bytes(record(9)).score, 0.5]


def test_grpc_refuses_too_many(service: LookupService) -> None:
    many = lookup_pb2.GetManyRequest(listing_ids=["m"] * 5001)
    with pytest.raises(grpc.RpcError) as refused:
        service.call("GetMany", many, lookup_pb2.GetManyResponse.FromString)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "listing_ids: 5001" in str(refused.value.details())


def test_grpc_has_reflection_and_health(service: LookupService) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(service.channel))
    found = pool.FindServiceByName(SERVICE)
    assert {method.name for method in found.methods} == {"Get", "GetMany"}
    health = health_pb2_grpc.HealthStub(service.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_service_is_not_ready_without_redis_and_answers_all_the_same() -> None:
    ports = {"lookup_http": free_port(), "lookup_grpc": free_port()}
    server = EmbeddedRedis()
    service = LookupService(load(redis=server.url, **ports))
    service.start()
    try:
        service.wait_ready()
        assert service.get("/livez")[0] == 200
        assert service.get("/readyz")[0] == 503
        assert service.get("/v1/scores/m1")[1]["late"] is True
        server.start()
        server.wait_ready()
        wait_for(lambda: service.get("/readyz")[0] == 200, "readiness", 10)
    finally:
        service.channel.close()
        service.stop()
        server.stop()


@pytest.mark.parametrize("taken", ["lookup_http", "lookup_grpc"])
def test_a_taken_port_is_named(server: EmbeddedRedis, taken: str) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        ports = {"lookup_http": free_port(), "lookup_grpc": free_port()} | {taken: other.getsockname()[1]}
        service = LookupService(load(redis=server.url, **ports))
        service.start()
        try:
            wait_for(lambda: service.exit_code is not None, "end")
            assert taken in service.log.read_text()
            assert "Traceback" not in service.log.read_text()
        finally:
            service.stop()

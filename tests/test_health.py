"""Liveness and readiness over HTTP, and the exit codes that tell why a scorer ended."""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request
from typing import Any

import orjson
import pytest

from stream.demo.process import PipelineProcess
from stream.embedded.redis import EmbeddedRedis
from stream.embedded.server import free_port
from tests.pipeline import Pipeline, wait_for


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            return answer.status, orjson.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, orjson.loads(error.read())
    except urllib.error.URLError:
        return 0, {}


def test_scorer_is_alive_but_not_ready_while_redis_is_away(real_pipeline: Pipeline) -> None:
    """It keeps its membership, makes no dead letter, and goes on when Redis is back."""
    redis, port = EmbeddedRedis(), free_port()
    redis.start()
    redis.wait_ready()
    pipeline = real_pipeline
    try:
        pipeline.settings = pipeline.settings.model_copy(update={"redis": redis.url, "health_port": port})
        pipeline.start("worker")
        wait_for(lambda: ask(port, "readyz")[0] == 200, "readiness")
        assert ask(port, "livez")[1]["partitions"] == [0, 1, 2, 3]
        redis.stop(keep_files=True)
        listings = [pipeline.publish() for _ in range(20)]
        wait_for(lambda: "Redis" in ask(port, "readyz")[1]["holding"], "notice of the outage")
        assert ask(port, "readyz")[0] == 503
        assert ask(port, "livez")[0] == 200
        assert ask(port, "livez")[1]["partitions"] == [0, 1, 2, 3]
        redis.start()
        redis.wait_ready()
        for listing in listings:
            pipeline.wait_for_score(listing)
        assert ask(port, "readyz")[0] == 200
        assert pipeline.dead_letters(None) == []
    finally:
        redis.stop()


def ended(process: PipelineProcess) -> int:
    wait_for(lambda: process.exit_code is not None, "end")
    return process.exit_code or 0


def test_exit_codes_tell_why(real_pipeline: Pipeline) -> None:
    pipeline = real_pipeline
    pipeline.settings = pipeline.settings.model_copy(
        update={"dead_letter_window": 20, "drain_timeout_s": 0.5, "fetch_timeout_s": 30.0}
    )
    pipeline.start("worker")
    pipeline.host.release.clear()
    before = pipeline.host.requests["/hang"]
    pipeline.publish(pipeline.host.url("hang"))
    wait_for(lambda: pipeline.host.requests["/hang"] > before, "request that hangs")
    process = pipeline.processes["worker"]
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process) == 5
    assert "1 records did not finish within 0 s" in process.log.read_text()
    process.stop()
    pipeline.host.release.set()
    for _ in range(40):
        pipeline.produce_bytes(b"poison", b"not json")
    pipeline.start("worker")
    process = pipeline.processes["worker"]
    assert ended(process) == 4
    assert "of the last 20 records became dead letters" in process.log.read_text()
    pipeline.host.release.clear()


def test_port_that_is_taken_is_named(real_pipeline: Pipeline) -> None:
    port = int(real_pipeline.host.address.rsplit(":", 1)[1])
    real_pipeline.settings = real_pipeline.settings.model_copy(update={"health_port": port})
    with pytest.raises(Exception, match="set IMAGE_SCORE_HEALTH_PORT to a free port"):
        real_pipeline.start("worker")

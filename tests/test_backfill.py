"""Scoring events again: from the topic or a file, resumable, without delaying new listings."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

from schemas import record_key
from stream.backfill import Backfill
from stream.embedded import EmbeddedStack
from stream.inference import TritonModel
from stream.publish import event_of, publish
from stream.settings import Settings, environment
from tests.pipeline import Pipeline, listing_id, wait_for


def backfill(pipeline: Pipeline, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stream.cli", "backfill", *arguments]
    return subprocess.Popen(
        command, env=environment(pipeline.settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=90)
    return out, err


def test_backfill_of_the_topic_scores_again_and_skips_what_is_old(real_pipeline: Pipeline) -> None:
    pipeline = real_pipeline
    listings = [pipeline.publish() for _ in range(12)]
    pipeline.publish(listing=listings[0], version=2)
    pipeline.start("worker")
    first = {listing: pipeline.wait_for_record(listing, 2 if listing == listings[0] else 1) for listing in listings}
    out, err = finished(backfill(pipeline, "--events-per-s", "200"))
    assert "12 scored" in out, err
    assert "1 stale" in out
    for listing in listings:
        again = pipeline.record(listing)
        assert again is not None
        assert again.scored_at > first[listing].scored_at
        assert again.event_version == first[listing].event_version


def test_interrupted_backfill_of_a_file_goes_on(real_pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline = real_pipeline
    listings = [listing_id() for _ in range(60)]
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(event_of(listing, [pipeline.host.good]).to_json() for listing in listings))
    keys = [record_key(listing) for listing in listings]

    def count() -> int:
        return sum(value is not None for value in pipeline.redis.mget(keys))

    process = backfill(pipeline, "--file", str(file), "--events-per-s", "10")
    wait_for(lambda: count() >= 5, "first records")
    process.send_signal(signal.SIGINT)
    _, err = finished(process)
    assert process.returncode == 1
    assert "are left: run the same command again" in err
    done = count()
    assert done < 60
    out, err = finished(backfill(pipeline, "--file", str(file), "--events-per-s", "200"))
    assert f"{60 - done} scored" in out, err
    assert count() == 60


def test_rate_is_kept(real_pipeline: Pipeline) -> None:
    pipeline = real_pipeline
    publish(pipeline.settings, [event_of(listing_id(), [pipeline.host.good]) for _ in range(40)], lambda: None)
    job = Backfill(pipeline.settings.model_copy(update={"events_per_s": 10.0}))
    assert job.copy() == 40
    started = time.monotonic()
    job.score(lambda _: None)
    assert time.monotonic() - started > 3.5


def test_new_listings_go_first_at_triton(settings: Settings, stack: EmbeddedStack, photo: bytes) -> None:
    """With Triton's queue full of a backfill's photos, a new listing's photo overtakes them."""

    async def run() -> tuple[float, float]:
        low = settings.model_copy(update={"infer_priority": 2, "inferences": 400})
        async with TritonModel(low) as backfill, TritonModel(settings) as new:
            await backfill.check()
            await new.check()
            await new.predict(photo)
            loop = asyncio.get_running_loop()
            started = loop.time()

            async def timed(model: TritonModel) -> float:
                await model.predict(photo)
                return loop.time() - started

            old = [asyncio.create_task(timed(backfill)) for _ in range(300)]
            await asyncio.sleep(0.1)
            started_new = loop.time()
            await asyncio.gather(*(new.predict(photo) for _ in range(8)))
            took = loop.time() - started_new
            return took, max(await asyncio.gather(*old))

    new_s, old_s = asyncio.run(run())
    assert new_s < old_s / 3

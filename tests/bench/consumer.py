"""Records/s and CPU per record of consumers whose handler waits 5 ms, on real Kafka, one partition.

    make bench-consumer                             # installs the peers into .venv-bench; about four minutes
    python tests/bench/consumer.py --keys 10000     # ours and the plain loop alone, without the peers installed

Each runs in a process of its own: `records/s` from the first record handled to the last, CPU of the whole process in
that time. Those that handle one record at a time get fewer records: their speed does not depend on how many there are.
Ours also checks itself: every record once, in order per key, all offsets committed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))

from stream.consumer import ConsumerConfig, Failed, Output, ParallelConsumer, Record, produce
from tests.real_kafka import RealKafka, missing

WAIT_S = 0.005
ONE_AT_A_TIME = 2000
PEERS = {
    "ours": "",
    "plain loop": "",
    "FastStream, 1 worker": "faststream",
    "FastStream, 100 workers": "faststream",
    "Quix Streams": "quixstreams",
}


class Meter:
    """Counts handled records and prints the figures after the last."""

    def __init__(self, count: int) -> None:
        self._left = self._count = count
        self._start = self._cpu = 0.0
        self.on_end: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGINT)

    def begin(self) -> None:
        if not self._start:
            self._start, self._cpu = time.perf_counter(), time.process_time()

    def end(self) -> None:
        self._left -= 1
        if self._left == 0:
            seconds, cpu = time.perf_counter() - self._start, time.process_time() - self._cpu
            figures = {"records_per_s": self._count / seconds, "cpu_us": cpu / self._count * 1e6}
            print(json.dumps(figures), flush=True)
            self.on_end()


def run_ours(brokers: str, topic: str, count: int) -> None:
    import uvloop

    meter = Meter(count)
    seen: dict[bytes | None, int] = {}

    async def handle(record: Record) -> tuple[Output, ...]:
        meter.begin()
        await asyncio.sleep(WAIT_S)
        assert seen.get(record.key, -1) < record.offset, "not in order, or not once"
        seen[record.key] = record.offset
        meter.end()
        return ()

    def bury(record: Record, failure: Failed) -> Output:
        raise failure

    async def main() -> None:
        config = ConsumerConfig({"bootstrap.servers": brokers}, topic, "bench", in_flight=1000, buffer=4000)
        consumer = ParallelConsumer(config, handle, bury)
        meter.on_end = consumer.stop
        await consumer.run()

    uvloop.run(main())
    check = Consumer({"bootstrap.servers": brokers, "group.id": "bench"})
    assert check.committed([TopicPartition(topic, 0)], timeout=10)[0].offset == count
    check.close()


def run_plain(brokers: str, topic: str, count: int) -> None:
    config = {"bootstrap.servers": brokers, "group.id": "plain", "auto.offset.reset": "earliest"}
    consumer = Consumer({**config, "enable.auto.offset.store": False})
    consumer.subscribe([topic])
    meter = Meter(count)
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True

    meter.on_end = end
    while not ended:
        message = consumer.poll(1)
        if message is None or message.error():
            continue
        meter.begin()
        time.sleep(WAIT_S)
        consumer.store_offsets(message)
        meter.end()
    consumer.close()


def run_faststream(brokers: str, topic: str, count: int, workers: int) -> None:
    import logging

    from faststream import AckPolicy, FastStream
    from faststream.confluent import KafkaBroker

    meter = Meter(count)
    broker = KafkaBroker(brokers, logger=None)
    policy = AckPolicy.ACK_FIRST if workers > 1 else AckPolicy.ACK

    @broker.subscriber(
        topic, group_id="faststream", auto_offset_reset="earliest", max_workers=workers, ack_policy=policy
    )  # type: ignore[untyped-decorator]
    async def handle(_: bytes) -> None:
        meter.begin()
        await asyncio.sleep(WAIT_S)
        meter.end()

    logging.disable()
    asyncio.run(FastStream(broker, logger=None).run())


def run_quix(brokers: str, topic: str, count: int) -> None:
    from quixstreams import Application

    meter = Meter(count)
    app = Application(broker_address=brokers, consumer_group="quix", auto_offset_reset="earliest", loglevel="ERROR")

    def handle(_: Any) -> None:
        meter.begin()
        time.sleep(WAIT_S)
        meter.end()

    frame = app.dataframe(app.topic(topic, value_deserializer="bytes"))
    frame.update(handle)
    app.run()


RUNNERS: dict[str, Callable[[str, str, int], None]] = {
    "ours": run_ours,
    "plain loop": run_plain,
    "FastStream, 1 worker": partial(run_faststream, workers=1),
    "FastStream, 100 workers": partial(run_faststream, workers=100),
    "Quix Streams": run_quix,
}


def fill(brokers: str, topic: str, count: int, keys: int) -> None:
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5})
    for number in range(count):
        produce(producer, Output(topic, b"key-%d" % (number % keys), b"%d" % number))
    producer.flush()


def measure(name: str, brokers: str, count: int, keys: int) -> dict[str, float]:
    topic = f"bench-{time.time_ns()}"
    fill(brokers, topic, count, keys)
    command = [sys.executable, __file__, "--runner", name, "--brokers", brokers, "--topic", topic]
    done = subprocess.run([*command, "--records", str(count)], capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines or (name == "ours" and done.returncode):
        raise click.ClickException(f"{name} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(lines[-1])
    return figures


@click.command()
@click.option("--keys", "key_counts", multiple=True, type=int, default=(1, 10, 100, 10_000), show_default=True)
@click.option("--records", default=10_000, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="ours and the plain loop; the median counts")
@click.option("--runner", hidden=True)
@click.option("--brokers", hidden=True)
@click.option("--topic", hidden=True)
def main(key_counts: tuple[int, ...], records: int, rounds: int, runner: str | None, brokers: str, topic: str) -> None:
    """Measure ours beside a plain confluent-kafka loop, FastStream and Quix Streams."""
    if runner:
        RUNNERS[runner](brokers, topic, records)
        return
    if problem := missing():
        raise click.ClickException(problem)
    results: dict[str, dict[str, float]] = {}
    with RealKafka() as kafka:
        plan = [
            (f"ours, {keys} key{'s' * (keys > 1)}", "ours", records if keys > 1 else min(records, ONE_AT_A_TIME), keys)
            for keys in key_counts
        ]
        plan += [
            (name, name, records if "100" in name else min(records, ONE_AT_A_TIME), records)
            for name, needs in PEERS.items()
            if name != "ours" and (not needs or importlib.util.find_spec(needs))
        ]
        for label, name, count, keys in plan:
            times = rounds if name in ("ours", "plain loop") else 1
            runs = [measure(name, kafka.address, count, keys) for _ in range(times)]
            results[label] = {figure: round(statistics.median(run[figure] for run in runs), 1) for figure in runs[0]}
            print(label, results[label], file=sys.stderr)
    table = Table("consumer", "records/s", "CPU per record")
    for label, figures in results.items():
        table.add_row(label, f"{figures['records_per_s']:,.0f}", f"{figures['cpu_us']:,.0f} µs")
    Console().print(table)
    one_key, plain = results.get("ours, 1 key"), results["plain loop"]
    ratio = round(one_key["records_per_s"] / plain["records_per_s"], 3) if one_key else None
    print(json.dumps({"one_key_to_plain_loop": ratio, **results}))


if __name__ == "__main__":
    main()

"""Real Apache Kafka (KRaft), from Maven Central, for the tests that are about it; `make kafka` starts a broker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.embedded.server import Server, free_port
from stream.errors import EmbeddedError

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy" / "kafka"
LIBS = ROOT / ".kafka" / "libs"
_CLUSTER_ID = "aW1hZ2Utc2NvcmUtdGVzdA"
_JAVA = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]


def missing() -> str:
    """Return why real Kafka cannot run here; empty: it can."""
    tools = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if tools and not _has_jars():
        return f"real Kafka needs Java 17 and Maven, {' and '.join(tools)} not found: apt-get install maven"
    return ""


def bring() -> None:
    """Download Kafka's jars once.

    Raises:
        EmbeddedError: Maven failed; ends with what it said.
    """
    if _has_jars():
        return
    goal = "dependency:copy-dependencies"
    command = [
        "mvn",
        "-q",
        "-B",
        "-f",
        str(DEPLOY / "pom.xml"),
        goal,
        "-DincludeScope=runtime",
        f"-DoutputDirectory={LIBS}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise EmbeddedError(f"Maven could not bring Kafka:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    (LIBS / "complete").touch()


def _has_jars() -> bool:
    return (LIBS / "complete").exists() and (LIBS / "complete").stat().st_mtime > (DEPLOY / "pom.xml").stat().st_mtime


class KafkaNode(Server):
    """One node, broker and controller in one; the whole cluster's ports are known before any starts."""

    name = "kafka-node"
    grace_s = 20.0

    def __init__(self, number: int, ports: list[tuple[int, int]]) -> None:
        super().__init__()
        self.number = number
        self._ports = ports
        self.address = f"127.0.0.1:{ports[number - 1][0]}"

    def command(self) -> list[str]:
        properties = self.folder / "server.properties"
        if not properties.exists():
            properties.write_text((DEPLOY / "server.properties").read_text() + self._own_properties())
        heap = "-Xmx512m" if len(self._ports) == 1 else "-Xmx320m"
        java = ["java", heap, *_JAVA, f"-Dlog4j2.configurationFile={DEPLOY / 'log4j2.properties'}", "-cp", f"{LIBS}/*"]
        make = [
            *java,
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
            "-t",
            _CLUSTER_ID,
            "-c",
            str(properties),
        ]
        run = [*java, "kafka.Kafka", str(properties)]
        formatted = (self.folder / "data" / "meta.properties").exists()
        return run if formatted else ["sh", "-c", f"{_quoted(make)} && exec {_quoted(run)}"]

    def _own_properties(self) -> str:
        broker, controller = self._ports[self.number - 1]
        voters = ",".join(f"{i}@127.0.0.1:{port}" for i, (_, port) in enumerate(self._ports, 1))
        copies = len(self._ports)
        values = {
            "node.id": self.number,
            "listeners": f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
            "controller.quorum.voters": voters,
            "log.dirs": self.folder / "data",
            "default.replication.factor": copies,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": min(2, copies),
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": min(2, copies),
            "min.insync.replicas": min(2, copies),
        }
        return "".join(f"{name}={value}\n" for name, value in values.items())

    def is_ready(self) -> bool:
        try:
            found = AdminClient({"bootstrap.servers": self.address, "log_level": 0}).list_topics(timeout=0.5)
        except KafkaException:
            return False
        return len(found.brokers) >= len(self._ports)


def _quoted(words: list[str]) -> str:
    return " ".join(f"'{word}'" for word in words)


class RealKafka:
    """A cluster of `count` nodes; use as a context manager."""

    def __init__(self, count: int = 1) -> None:
        bring()
        ports = [(free_port(), free_port()) for _ in range(count)]
        self.nodes = [KafkaNode(number, ports) for number in range(1, count + 1)]
        self.address = ",".join(node.address for node in self.nodes)

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                node.wait_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            if node.started:
                node.kill()
            node.stop()


def main() -> None:
    ends = {signal.SIGINT, signal.SIGTERM}
    if problem := missing():
        sys.exit(problem)
    with RealKafka() as kafka:
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        print(f"export IMAGE_SCORE_KAFKA={kafka.address}", flush=True)
        print("running until Ctrl-C", file=sys.stderr)
        signal.sigwait(ends)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()

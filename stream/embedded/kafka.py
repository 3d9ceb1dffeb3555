"""Embedded Kafka: librdkafka's in-process cluster, in a child process of its own.

In memory and bounded: see the package's docstring.
"""

from __future__ import annotations

import signal
import sys

from confluent_kafka import Producer

from stream.embedded.server import Server


class EmbeddedKafka(Server):
    name = "kafka"

    def __init__(self, topics: list[str]) -> None:
        super().__init__()
        self.address = ""
        self._topics = topics

    def command(self) -> list[str]:
        return [sys.executable, "-m", "stream.embedded.kafka", str(self.folder / "address"), *self._topics]

    def is_ready(self) -> bool:
        path = self.folder / "address"
        self.address = path.read_text() if path.exists() else ""
        return self.address.endswith("\n")

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        super().wait_ready(timeout_s)
        self.address = self.address.strip()


def main(address_file: str, topics: list[str]) -> None:
    """Hold a cluster with these topics until SIGTERM; write its address, ended by a newline, to `address_file`."""
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 3})
    broker = next(iter(cluster.list_topics(timeout=10).brokers.values()))
    for topic in topics:
        cluster.list_topics(topic, timeout=10)  # asking for a topic makes it
    with open(address_file, "w") as file:
        file.write(f"{broker.host}:{broker.port}\n")
    signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    main(sys.argv[1], sys.argv[2:])

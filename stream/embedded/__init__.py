"""Real servers for newcomers and tests, from Python packages: nothing to install, no root, gone on exit.

Kafka is librdkafka's own in-process cluster: it speaks the real protocol, but keeps messages in memory only
and bounded (about 5 MB or 100,000 messages a partition, then the oldest are dropped), makes topics on
first use with four partitions, and does not compact. Redis and Triton are the real servers.
"""

from stream.embedded.stack import EmbeddedStack

__all__ = ["EmbeddedStack"]

"""The consumer's settings, each with its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ConsumerConfig:
    """How to consume `topic` as `group`. `client` holds librdkafka's connection settings (bootstrap.servers, ...)."""

    client: Mapping[str, Any]
    topic: str
    group: str
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    protocol: Literal["classic", "consumer"] = "classic"
    """The group protocol; `consumer` is KIP-848, which brokers have from 4.0 on."""
    instance: str = ""
    """A name that stays over restarts makes the member static: its partitions wait for it for `session_s`."""
    session_s: float = 10.0
    """A member that is silent for this long is gone (with KIP-848 the brokers say how long)."""

    in_flight: int = 512
    """Records that are handled at once."""
    in_flight_bytes: int = 64 * 2**20
    """Bytes of records that are held at once, handled or waiting."""
    buffer: int = 1000
    """Records of one partition that are held at once."""
    rate: float = 0.0
    """Records that are started a second; 0: no limit."""

    commit_s: float = 1.0
    """Offsets are committed this often; what finished since is handled again after a crash."""
    drain_s: float = 20.0
    """Time for what is in flight when the consumer stops."""
    revoke_s: float = 5.0
    """Time for what is in flight of a partition that goes to another member; then it is cancelled."""
    stuck_s: float = 60.0
    """A record in flight for longer is logged, with what it waits for."""

    attempts_in_place: int = 2
    """Tries of a record whose failure may pass, before it goes to the retry topic."""
    backoff_s: float = 0.2
    """Wait before the second try in place; doubled before each further one."""
    retry_topic: str = ""
    """Where such records wait; as many partitions as `topic`. Empty: they become dead letters at once."""
    retry_delays_s: tuple[float, ...] = (5.0, 30.0, 120.0)
    """Waits before the tries that follow those in place."""
    dead_letter_share: float = 0.5
    """The consumer stops when more than this share of the last `dead_letter_window` records were dead letters."""
    dead_letter_window: int = 500

    producer: Mapping[str, Any] = field(default_factory=dict)
    """librdkafka settings for the outputs, over ours."""

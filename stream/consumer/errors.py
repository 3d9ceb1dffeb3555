"""Why a consumer ended by itself."""

from __future__ import annotations


class ConsumerStopped(Exception):
    """The base of all of them; the message says what to do."""


class TooManyDeadLetters(ConsumerStopped):
    """The share of dead letters is over its limit: a bad deploy, rather than bad records."""


class DrainTimedOut(ConsumerStopped):
    """Not all that was in flight finished before the deadline; it is handled again after the next start."""


class ProducerSilent(ConsumerStopped):
    """The producer reports neither success nor failure, long after its own deadline."""


class Fenced(ConsumerStopped):
    """Another member with the same instance or transactional.id took over."""

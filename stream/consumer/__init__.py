"""A key-ordered parallel consumer for asyncio on confluent-kafka; it knows nothing of photos.

    consumer = ParallelConsumer(ConsumerConfig(client, "orders", "billing"), handle, make_dead_letter)
    await consumer.run()

`consumer` runs handlers, `scheduler` says which record is next, `group` polls and commits in a thread, `offsets` keeps
what is finished out of order, `outbox` produces, `parking` is the retry topic, `breaker` waits through outages.
"""

from stream.consumer.breaker import CircuitBreaker
from stream.consumer.config import ConsumerConfig
from stream.consumer.consumer import Health, ParallelConsumer
from stream.consumer.errors import ConsumerStopped, DrainTimedOut, Fenced, TooManyDeadLetters
from stream.consumer.outbox import produce
from stream.consumer.record import Attempt, DeadLetterMaker, Failed, Handler, Output, Record
from stream.consumer.waiting import waiting

__all__ = [
    "Attempt",
    "CircuitBreaker",
    "ConsumerConfig",
    "ConsumerStopped",
    "DeadLetterMaker",
    "DrainTimedOut",
    "Failed",
    "Fenced",
    "Handler",
    "Health",
    "Output",
    "ParallelConsumer",
    "Record",
    "TooManyDeadLetters",
    "produce",
    "waiting",
]

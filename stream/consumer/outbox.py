"""Produces the outputs of handlers: at once and awaited, or in one transaction with the offsets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from stream.consumer.config import ConsumerConfig
from stream.consumer.errors import Fenced, ProducerSilent
from stream.consumer.record import Output

log = logging.getLogger("image_score.consumer")
DeliveryReport = Callable[[KafkaError | None, Message], None]
_POLL_S = 0.01
_TRANSACTION_S = 30.0
_STEP_S = 10.0
_PASSING = (
    KafkaError._MSG_TIMED_OUT,
    KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT,
    KafkaError.INVALID_TIMESTAMP,  # our clock, or the broker's, is off by hours
)
_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


class NotDelivered(Exception):
    """The brokers did not take an output in time: handle its record again, which may by now be out of date."""


class Outbox:
    """An idempotent producer for an event loop.

    What cannot be delivered within half a session is given up: nothing that a member has queued reaches the brokers
    after its partitions, and so its keys, went to another one.
    """

    def __init__(self, config: ConsumerConfig) -> None:
        ours = {
            "enable.idempotence": True,
            "linger.ms": 20,
            "compression.type": "lz4",
            "message.timeout.ms": int(config.session_s * 500),
        }
        self._producer = Producer({**config.client, **ours, **config.producer})
        self._poller: asyncio.Task[None] | None = None
        self._patience_s = 1.5 * config.session_s

    async def deliver(self, outputs: Sequence[Output]) -> None:
        """Produce and return when the brokers hold all. A cancelled call still waits: nothing is left under way.

        Raises:
            NotDelivered: not in time.
            KafkaException: the brokers refuse an output.
            ProducerSilent: the producer says neither yes nor no.
        """
        if not outputs:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = len(outputs)
        failed: list[KafkaError] = []

        def report(error: KafkaError | None, _: Message) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                failed.append(error)
            if left == 0 and not done.done():
                done.set_result(None)

        for output in outputs:
            while not _has_queued(self._producer, output, report):
                self._producer.poll(0)
                await asyncio.sleep(_POLL_S)
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        try:
            await asyncio.wait([done], timeout=self._patience_s)
        except asyncio.CancelledError:
            await asyncio.wait([done], timeout=self._patience_s)
            raise
        if not done.done():
            # Seen after the clock was put back by an hour: librdkafka's own deadline does not pass either.
            raise ProducerSilent(f"no delivery report within {self._patience_s:.0f} s: did the clock jump? Start again")
        if failed:
            if failed[0].code() in _PASSING:
                raise NotDelivered(failed[0].str())
            raise KafkaException(failed[0])

    async def _poll(self) -> None:
        """Serve delivery reports in the event loop while records are under way."""
        try:
            while len(self._producer):
                self._producer.poll(0)
                await asyncio.sleep(_POLL_S)
        finally:
            self._poller = None

    async def close(self) -> None:
        await asyncio.to_thread(self._producer.flush, 10)


class Transactions:
    """Commits outputs and offsets together; to be used by one thread. Readers with read_committed see all or nothing.

    A member that was thought dead is fenced twice: by the group's generation, which goes along with the offsets,
    and, if `instance` is set, by the transactional.id, which its successor has too.
    """

    def __init__(self, config: ConsumerConfig, name: str) -> None:
        ours = {
            "transactional.id": name,
            "transaction.timeout.ms": int(_TRANSACTION_S * 1000),
            "linger.ms": 5,
            "compression.type": "lz4",
        }
        self._producer = Producer({**config.client, **ours, **config.producer})

    def start(self) -> None:
        """Fence whoever had the name before, and end what it left open."""
        _until_done(lambda: self._producer.init_transactions(_STEP_S), 4 * _TRANSACTION_S)

    def commit(self, outputs: Sequence[Output], offsets: list[TopicPartition], consumer: Consumer) -> bool:
        """Commit all in one transaction; return False when it was aborted: nothing is visible, try again later.

        Raises:
            Fenced: another producer took over the name.
            KafkaException: the brokers did not finish a step in time; by now they have aborted the transaction.
        """
        producer = self._producer
        try:
            producer.begin_transaction()
            for output in outputs:
                produce(producer, output)
            if offsets:
                metadata = consumer.consumer_group_metadata()
                _until_done(lambda: producer.send_offsets_to_transaction(offsets, metadata, _STEP_S))
            _until_done(lambda: producer.commit_transaction(_STEP_S))
        except KafkaException as failure:
            error = failure.args[0]
            if error.fatal() or error.code() in _FENCED:
                raise Fenced(f"transactions of this instance were taken over: {error.str()}") from None
            if error.retriable():
                raise
            log.warning("transaction aborted, it will be tried again: %s", error.str())
            _until_done(lambda: producer.abort_transaction(_STEP_S))
            return False
        return True


def produce(producer: Producer, output: Output, on_delivery: DeliveryReport | None = None) -> None:
    """Hand an output to a producer; wait while its queue is full."""
    while not _has_queued(producer, output, on_delivery):
        producer.poll(0.1)


def _has_queued(producer: Producer, output: Output, on_delivery: DeliveryReport | None) -> bool:
    """Hand an output to a producer; return False when its queue is full."""
    try:
        producer.produce(
            output.topic,
            key=output.key,
            value=output.value,
            partition=output.partition,
            headers=list(output.headers),
            on_delivery=on_delivery,
        )
    except BufferError:
        return False
    return True


def _until_done(step: Callable[[], object], within_s: float = _TRANSACTION_S) -> None:
    """Run one transactional step again while the brokers ask for that; by default as long as a transaction may last."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            step()
            return
        except KafkaException as failure:
            error = failure.args[0]
            if not error.retriable() or error.fatal() or time.monotonic() > deadline:
                raise
            log.warning("transaction: %s; trying again", error.str())

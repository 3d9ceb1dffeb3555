"""Kafka: connection settings, a check, and the topics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stream.errors import DependencyError, ImageScoreError
from stream.log import log
from stream.settings import Settings

_TIMEOUT_S = 30.0
_WEEK_MS = 7 * 86_400_000
MAX_LETTER_BYTES = 4 * 2**20
"""Largest record that we produce; `topics create` gives the dead-letter topic room for it."""


def client_config(settings: Settings) -> dict[str, Any]:
    """Return librdkafka's settings for connecting, TLS and SASL."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka,
        "security.protocol": settings.kafka_security_protocol,
        "log_level": 3,
        "reconnect.backoff.max.ms": 2000,
    }
    if settings.kafka_security_protocol.startswith("sasl"):
        config |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_sasl_username,
            "sasl.password": settings.kafka_sasl_password.get_secret_value(),
        }
    files = {
        "ssl.ca.location": settings.kafka_ssl_ca,
        "ssl.certificate.location": settings.kafka_ssl_cert,
        "ssl.key.location": settings.kafka_ssl_key,
    }
    if settings.kafka_security_protocol.endswith("ssl"):
        config |= {name: path for name, path in files.items() if path}
    return config


def check(settings: Settings, timeout_s: float = 10.0) -> None:
    """Return when Kafka answers.

    Raises:
        DependencyError: it does not, or its settings are wrong; names the address.
    """
    try:
        AdminClient(client_config(settings)).list_topics(timeout=timeout_s)
    except KafkaException as error:
        message = (
            f"Kafka at {settings.kafka} does not answer ({error.args[0].str()}): start it, or set IMAGE_SCORE_KAFKA"
        )
        raise DependencyError(message) from None


def partitions(consumer: Consumer, topic: str) -> list[int]:
    """Return the numbers of a topic's partitions; none when it is not there."""
    return list(consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions)


def read_topic(settings: Settings, topic: str) -> Iterator[Message]:
    """Yield what a topic holds now, committed transactions alone.

    Raises:
        DependencyError: Kafka does not answer, or the topic cannot be read; names it.
    """
    ours = {"group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer(client_config(settings) | ours)
    try:
        left = set(partitions(consumer, topic))
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in left])
        while left:
            message = consumer.poll(_TIMEOUT_S)
            if message is None:
                raise DependencyError(f"Kafka at {settings.kafka} does not answer: {topic} could not be read")
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition() or 0)
            else:
                raise DependencyError(f"{topic} cannot be read: {error.str()}; image-score topics create makes it")
    except KafkaException as error:
        raise DependencyError(f"Kafka at {settings.kafka}: {error.args[0].str()}") from None
    finally:
        consumer.close()


def topics(settings: Settings) -> list[NewTopic]:
    """Return the topics of the pipeline, as `topics create` makes them."""
    configs: dict[str, dict[str, str]] = {
        settings.events_topic: {},
        settings.retry_topic: {},
        settings.backfill_topic: {},
        settings.scores_topic: {"cleanup.policy": "compact"},
        settings.shadow_topic: {"cleanup.policy": "compact"},
        settings.advised_topic: {"cleanup.policy": "compact"},
        settings.hints_topic: {},
        settings.notices_topic: {},
        settings.feedback_topic: {},
        settings.notice_ticks_topic: {"retention.ms": str(_WEEK_MS)},
        f"{settings.notices_group}-sellers-changelog": {"cleanup.policy": "compact"},
        settings.dlq_topic: {"max.message.bytes": str(MAX_LETTER_BYTES)},
    }
    return [
        NewTopic(name, num_partitions=settings.partitions, replication_factor=settings.replication, config=config)
        for name, config in configs.items()
    ]


def create_topics(settings: Settings) -> dict[str, str]:
    """Create the topics that are not there; return what happened to each: created, or exists.

    Raises:
        ImageScoreError: the brokers refused a topic; names it.
    """
    admin = AdminClient(client_config(settings))  # must outlive its futures
    futures = admin.create_topics(topics(settings), request_timeout=15)
    done = {}
    for name, future in futures.items():
        try:
            future.result()
            done[name] = "created"
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ImageScoreError(f"topic {name} could not be created: {error.args[0].str()}") from None
            done[name] = "exists"
    return done


def log_error(error: KafkaError) -> None:
    """Log what librdkafka reports about its connections; it reconnects by itself."""
    log.warning("kafka: %s", error.str())

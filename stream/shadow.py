"""Shadow mode: a candidate version scores the same events, and nobody but `compare` reads what it says.

It is a scorer with a consumer group and an output topic of its own, so it cannot delay or change anything that search
or sellers see: it writes no record, no dead letter, no retry, and asks Triton with the lower priority.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from schemas import ImageScore, MessageError
from stream.consumer import Output, Record
from stream.kafka import client_config, partitions
from stream.scorer import EventFailed, Outcome, Scorer
from stream.settings import Settings
from stream.worker import consumer_config, run_in_loop, score_events

_TIMEOUT_S = 30.0


class ShadowScorer(Scorer):
    """Scores listings; writes no record, and leaves events that fail to the scorer that answers."""

    async def handle(self, record: Record) -> Sequence[Output]:
        try:
            return await super().handle(record)
        except EventFailed:
            self.outcomes[Outcome.DEAD_LETTER] += 1
            return ()

    async def _write(self, *_: Any) -> bool:
        return True


def run(settings: Settings, model: str) -> None:
    """Score events with `model` into the shadow topic until SIGTERM."""
    group = f"{settings.scorer_group}.shadow"
    shadow = settings.model_copy(
        update={"model": model, "scores_topic": settings.shadow_topic, "scorer_group": group, "infer_priority": 2}
    )
    config = consumer_config(shadow, group=group, instance="", retry_topic="", delivery="at_least_once")
    run_in_loop(score_events(shadow, config, kind=ShadowScorer))


def read_scores(settings: Settings, topic: str) -> dict[tuple[str, int, str], tuple[float, dict[str, float]]]:
    """Return (listing, version, photo) -> (score, issues) of all that a topic of scores holds now."""
    ours = {"group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer(client_config(settings) | ours)
    found: dict[tuple[str, int, str], tuple[float, dict[str, float]]] = {}
    try:
        left = set(partitions(consumer, topic))
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in left])
        while left and (message := consumer.poll(_TIMEOUT_S)) is not None:
            error, value = message.error(), message.value()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition() or 0)
            elif error is None and value is not None:
                try:
                    score = ImageScore.from_json(value)
                except MessageError:
                    continue
                for photo in score.photos:
                    key = score.listing_id, score.event.version, photo.photo_id
                    found[key] = photo.score, {issue.value: p for issue, p in photo.issues.items()}
    finally:
        consumer.close()
    return found

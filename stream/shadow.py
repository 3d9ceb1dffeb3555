"""Shadow mode: a candidate version scores the same events, and nobody but `compare` reads what it says.

It is a scorer with a consumer group and an output topic of its own, so it cannot delay or change anything that search
or sellers see: it writes no record, no dead letter, no retry, and asks Triton with the lower priority.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas import ImageScore, MessageError
from stream.consumer import Output, Record
from stream.kafka import read_topic
from stream.letters import EventFailed
from stream.scorer import Outcome, Scorer
from stream.settings import Settings
from stream.worker import consumer_config, run_in_loop, score_events


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
    found: dict[tuple[str, int, str], tuple[float, dict[str, float]]] = {}
    for message in read_topic(settings, topic):
        value = message.value()
        if value is None:
            continue
        try:
            score = ImageScore.from_json(value)
        except MessageError:
            continue
        for photo in score.photos:
            key = score.listing_id, score.event.version, photo.photo_id
            found[key] = photo.score, {issue.value: p for issue, p in photo.issues.items()}
    return found

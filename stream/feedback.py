"""What tips achieve: counts of what sellers did with them, the report, and which tips switch themselves off."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from prometheus_client import Gauge

from schemas import HintFeedback, MessageError, SellerHint
from schemas.hint_feedback import FeedbackAction
from stream.kafka import client_config, partitions, read_topic
from stream.log import log
from stream.settings import Settings
from stream.tips import language_of

Said = TypeVar("Said", HintFeedback, SellerHint)
WINDOW = timedelta(days=30)
_BATCH = 500
_VOTES = (FeedbackAction.HELPFUL, FeedbackAction.NOT_HELPFUL)
switched_off = Gauge("image_score_tip_off", "Whether a kind of tip is switched off: too often not helpful", ["kind"])


@dataclass
class Effect:
    """What became of the tips of one kind in one language."""

    actions: dict[FeedbackAction, int] = field(default_factory=lambda: defaultdict(int))
    before: list[float] = field(default_factory=list)
    """Scores of the listings whose seller applied the tip, as they were told of."""
    after: list[float] = field(default_factory=list)
    """Their scores at the next version."""

    def share(self, action: FeedbackAction) -> float | None:
        """Return how often an action followed a tip that was shown; None: none was."""
        shown = self.actions[FeedbackAction.SHOWN]
        return self.actions[action] / shown if shown else None


def effects(feedback: Iterable[HintFeedback], hints: Iterable[SellerHint]) -> dict[tuple[str, str], Effect]:
    """Return the effect of each (kind, language). Feedback that came twice counts once."""
    versions: dict[str, dict[int, float]] = defaultdict(dict)
    for hint in hints:
        if not hint.withdrawn:
            versions[hint.listing_id][hint.listing_version] = hint.score
    found: dict[tuple[str, str], Effect] = defaultdict(Effect)
    seen: set[UUID] = set()
    for one in feedback:
        if one.feedback_id in seen:
            continue
        seen.add(one.feedback_id)
        effect = found[one.kind, language_of(one.locale)]
        effect.actions[one.action] += 1
        scores = versions[one.listing_id]
        later = [version for version in scores if version > one.listing_version]
        if one.action is FeedbackAction.APPLIED and one.listing_version in scores and later:
            effect.before.append(scores[one.listing_version])
            effect.after.append(scores[min(later)])
    return found


def read_effects(settings: Settings, since: datetime | None) -> dict[tuple[str, str], Effect]:
    """Return the effects of what the topics of feedback and hints hold.

    Raises:
        DependencyError: a topic cannot be read.
    """
    feedback = [one for one in _read(settings, settings.feedback_topic, HintFeedback) if not since or one.at >= since]
    return effects(feedback, _read(settings, settings.hints_topic, SellerHint))


def _read(settings: Settings, topic: str, kind: type[Said]) -> list[Said]:
    found = []
    for message in read_topic(settings, topic):
        try:
            found.append(kind.from_json(message.value() or b""))
        except MessageError as error:
            log.warning("%s skipped: %s", topic, error)
    return found


class Votes:
    """Which kinds of tips sellers find not helpful, by their votes of the last 30 days of feedback."""

    def __init__(self, most: float, least_votes: int) -> None:
        self._most = most
        self._least_votes = least_votes
        self._votes: dict[str, dict[UUID, tuple[datetime, bool]]] = defaultdict(dict)
        self._newest: datetime | None = None
        self.off: frozenset[str] = frozenset()

    def hear(self, feedback: Iterable[HintFeedback]) -> None:
        """Count votes, and say in log and metric which kinds go off or come back."""
        changed = False
        for one in feedback:
            if one.action in _VOTES:
                self._newest = max(self._newest or one.at, one.at)
                self._votes[one.kind][one.feedback_id] = one.at, one.action is FeedbackAction.NOT_HELPFUL
                changed = True
        if not changed or self._newest is None:
            return
        first = self._newest - WINDOW
        off = set()
        for kind, votes in self._votes.items():
            for old in [name for name, (at, _) in votes.items() if at < first]:
                del votes[old]
            against = sum(bad for _, bad in votes.values())
            if len(votes) >= self._least_votes and against > self._most * len(votes):
                off.add(kind)
            switched_off.labels(kind).set(kind in off)
        for kind in sorted(off - self.off):
            log.warning("tips of kind %s are switched off: too often not helpful", kind)
        for kind in sorted(self.off - off):
            log.warning("tips of kind %s are told again", kind)
        self.off = frozenset(off)


class VoteReader(threading.Thread):
    """Reads all of the feedback topic, and what comes, into `votes`; every notices app reads all of it."""

    def __init__(self, settings: Settings, votes: Votes) -> None:
        super().__init__(name="image-score-votes", daemon=True)
        self._settings = settings
        self._votes = votes

    def run(self) -> None:
        config = {"group.id": "unused", "enable.auto.commit": False, "isolation.level": "read_committed"}
        consumer = Consumer(client_config(self._settings) | config)
        topic = self._settings.feedback_topic
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions(consumer, topic)])
        while True:
            found = []
            for message in consumer.consume(_BATCH, 0.5):
                if message.error() is None:
                    try:
                        found.append(HintFeedback.from_json(message.value() or b""))
                    except MessageError as error:
                        log.warning("feedback skipped: %s", error)
            self._votes.hear(found)

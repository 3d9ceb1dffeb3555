"""What tips achieve, and tips that switch themselves off."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from schemas import HintFeedback
from schemas.hint_feedback import FeedbackAction
from stream.cli import main
from stream.embedded.server import free_port
from stream.feedback import Votes, effects
from stream.kafka import client_config
from stream.settings import Settings
from tests.pipeline import isolated, wait_for
from tests.test_notice_rules import DAY, NOON, hint
from tests.test_notices import Notices

SHOWN, OPENED, HELPFUL, NOT_HELPFUL, APPLIED = FeedbackAction


def said(
    action: FeedbackAction, kind: str = "dark", listing: str = "l1", locale: str = "en", **changes: object
) -> HintFeedback:
    fields = {
        "feedback_id": uuid.uuid4(),
        "seller_id": "s1",
        "listing_id": listing,
        "listing_version": 1,
        "kind": kind,
        "locale": locale,
        "action": action,
        "at": NOON,
    }
    return HintFeedback.model_validate(fields | changes)


def test_effects_are_counted_by_kind_and_language() -> None:
    again = said(OPENED)
    told = [said(SHOWN), said(SHOWN), again, again, said(APPLIED), said(SHOWN, "blurry", locale="ja-JP")]
    hints = [hint("l1", score=0.4), hint("l1", version=3, score=0.9), hint("l1", version=2, score=0.6)]
    found = effects(told, hints)
    dark = found["dark", "en"]
    assert dark.share(OPENED) == 0.5, "what came twice counts once"
    assert (dark.before, dark.after) == ([0.4], [0.6])
    assert found["blurry", "ja"].actions[SHOWN] == 1


def test_without_a_newer_version_nothing_is_said_of_the_score() -> None:
    found = effects([said(APPLIED)], [hint("l1")])
    assert found["dark", "en"].before == []
    assert found["dark", "en"].share(APPLIED) is None


def test_a_kind_that_is_too_often_not_helpful_goes_off_and_comes_back() -> None:
    votes = Votes(most=0.5, least_votes=10)
    votes.hear(said(NOT_HELPFUL) for _ in range(9))
    assert votes.off == frozenset(), "too few votes"
    votes.hear([said(NOT_HELPFUL), *(said(HELPFUL, "blurry") for _ in range(20))])
    assert votes.off == {"dark"}
    votes.hear(said(HELPFUL) for _ in range(10))
    assert votes.off == frozenset()


def test_votes_of_long_ago_do_not_count() -> None:
    votes = Votes(most=0.5, least_votes=10)
    votes.hear(said(NOT_HELPFUL) for _ in range(20))
    votes.hear([said(HELPFUL, at=NOON + 40 * DAY)])
    assert votes.off == frozenset()


@pytest.fixture
def notices(kafka_settings: Settings) -> Iterator[Notices]:
    changes = {"notices_clock": "events", "notices_votes": 10, "notices_metrics_port": free_port()}
    app = Notices(isolated(kafka_settings.model_copy(update=changes), embedded=False))
    yield app
    app.stop()


def test_a_kind_that_is_off_is_told_no_more_and_the_metric_says_so(notices: Notices) -> None:
    producer = Producer(client_config(notices.settings))
    for number in range(20):
        one = said(NOT_HELPFUL, at=NOON + timedelta(minutes=number))
        producer.produce(notices.settings.feedback_topic, key=one.seller_id, value=one.to_json())
    assert producer.flush(10) == 0
    notices.start()
    url = f"http://127.0.0.1:{notices.settings.notices_metrics_port}/metrics"

    def is_off() -> bool:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return 'image_score_tip_off{kind="dark"} 1.0' in answer.read().decode()

    wait_for(is_off, "switched-off tip")
    notices.hear("s1", hint("l1"), hint("l2", kind="blurry"))
    (notice,) = notices.wait_for("s1", 1)
    assert notice.listings == ("l2",)


def test_the_report_reads_both_topics(notices: Notices) -> None:
    notices.hear("s1", hint("l1"), hint("l1", version=2, score=0.7))
    producer = Producer(client_config(notices.settings))
    for one in (said(SHOWN), said(OPENED), said(APPLIED), said(SHOWN, at=NOON - DAY)):
        producer.produce(notices.settings.feedback_topic, key=one.seller_id, value=one.to_json())
    producer.produce(notices.settings.feedback_topic, key="s1", value=b"{")
    assert producer.flush(10) == 0
    topics = ["--feedback-topic", notices.settings.feedback_topic, "--hints-topic", notices.settings.hints_topic]
    words = ["feedback", "--kafka", notices.settings.kafka, *topics]
    done = CliRunner().invoke(main, [*words, "--json", "--since", NOON.isoformat()], catch_exceptions=False)
    found = json.loads(done.stdout.splitlines()[-1])
    expected = {"tip": "dark", "language": "en", "shown": 1, "opened": 1, "applied": 1}
    assert expected.items() <= found.items()
    assert (found["score_before"], found["score_after"]) == (0.4, 0.7)
    assert "dark" in CliRunner().invoke(main, words, catch_exceptions=False).output

"""The notices app over real Kafka: rules with the events' own times, through restarts and rebalances."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from confluent_kafka import Producer

from schemas import SellerHint, SellerNotice
from schemas.seller_notice import NoticeType
from stream.demo.process import PipelineProcess
from stream.kafka import client_config
from stream.settings import Settings
from tests.pipeline import isolated, read_topic, wait_for
from tests.test_notice_rules import DAY, HOUR, ISSUES, NOON, hint


class Notices:
    """The app's processes, a producer of hints, and what was told."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._producer = Producer(client_config(settings))
        self.processes: list[PipelineProcess] = []

    def start(self) -> PipelineProcess:
        process = PipelineProcess("notices", self.settings)
        self.processes.append(process)
        process.start()
        process.wait_ready()
        return process

    def stop(self) -> None:
        for process in self.processes:
            process.stop()

    def hear(self, seller: str, *hints: SellerHint) -> None:
        for one in hints:
            value = one.model_copy(update={"seller_id": seller, "hint_id": _own(seller, one)}).to_json()
            self._producer.produce(self.settings.hints_topic, key=seller, value=value)
        assert self._producer.flush(10) == 0

    def told(self) -> dict[str, list[SellerNotice]]:
        found: dict[str, list[SellerNotice]] = {}
        topic = self.settings.notices_topic
        for message in read_topic(self.settings, topic, **{"isolation.level": "read_committed"}):
            notice = SellerNotice.from_json(message.value() or b"")
            assert (message.key() or b"").decode() == notice.seller_id
            found.setdefault(notice.seller_id, []).append(notice)
        return found

    def wait_for(self, seller: str, count: int) -> list[SellerNotice]:
        return wait_for(
            lambda: found if len(found := self.told().get(seller, [])) >= count else None,
            f"{count} notices of {seller}",
            90,
        )


def _own(seller: str, one: SellerHint) -> uuid.UUID:
    return uuid.uuid5(one.hint_id, seller)


@pytest.fixture(params=["exactly_once"])
def notices(kafka_settings: Settings, request: pytest.FixtureRequest) -> Iterator[Notices]:
    changes = {"notices_clock": "events", "delivery": request.param}
    app = Notices(isolated(kafka_settings.model_copy(update=changes), embedded=False))
    yield app
    app.stop()


def day(number: int, at: datetime) -> list[SellerHint]:
    return [hint(f"l{number}-{n}", at + timedelta(minutes=n), kind=ISSUES[n]) for n in range(5)]


@pytest.mark.parametrize("notices", ["exactly_once", "at_least_once"], indirect=True)
def test_what_waits_is_told_when_the_events_say_that_its_time_has_come(notices: Notices) -> None:
    notices.start()
    notices.hear("s1", *day(0, NOON))
    assert len(notices.wait_for("s1", 3)) == 3
    time.sleep(2)
    assert len(notices.told()["s1"]) == 3, "two wait for the next day"
    notices.hear("another", hint("x", NOON + DAY))  # the clock is the events', whoever's they are
    found = notices.wait_for("s1", 5)
    assert [notice.listings[0] for notice in found] == [f"l0-{n}" for n in range(5)]
    assert found[-1].at == NOON + timedelta(hours=20)


def test_a_restart_in_the_middle_loses_and_repeats_nothing(notices: Notices) -> None:
    app = notices.start()
    sellers = [f"s{n}" for n in range(20)]
    for seller in sellers:
        notices.hear(seller, *day(0, NOON)[:4])
    wait_for(lambda: sum(map(len, notices.told().values())) >= 10, "some notices", 90)
    app.kill()
    app.stop()
    notices.start()
    for seller in sellers:
        notices.wait_for(seller, 3)
    notices.hear("clock", hint("x", NOON + DAY))
    for seller in sellers:
        assert [one.listings[0] for one in notices.wait_for(seller, 4)] == [f"l0-{n}" for n in range(4)]
    told = [notice.notice_id for found in notices.told().values() for notice in found]
    assert max(Counter(told).values()) == 1


def test_a_rebalance_in_the_middle_keeps_to_the_limit(notices: Notices) -> None:
    notices.start()
    sellers = [f"s{n}" for n in range(12)]
    for seller in sellers:
        notices.hear(seller, *day(0, NOON)[:2])
    for seller in sellers:
        notices.wait_for(seller, 2)
    notices.start()  # takes over some of the partitions, and their sellers
    for seller in sellers:
        notices.hear(seller, *day(1, NOON + HOUR)[2:5])
    for seller in sellers:
        assert len(notices.wait_for(seller, 3)) == 3
    time.sleep(2)
    assert {len(found) for found in notices.told().values()} == {3}, "what was told before the move counts"
    told = [notice.notice_id for found in notices.told().values() for notice in found]
    assert max(Counter(told).values()) == 1


def test_hints_that_cannot_be_read_are_skipped(notices: Notices) -> None:
    notices.start()
    producer = Producer(client_config(notices.settings))
    producer.produce(notices.settings.hints_topic, key="s1", value=b"{")
    producer.flush(10)
    notices.hear("s1", hint("l1"))
    (notice,) = notices.wait_for("s1", 1)
    assert notice.type is NoticeType.TIPS

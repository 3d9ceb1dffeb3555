"""The notices app over real Kafka: rules with the events' own times, through restarts and rebalances."""

from __future__ import annotations

import time
import uuid
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

    def all(self) -> list[SellerNotice]:
        topic = self.settings.notices_topic
        found = read_topic(self.settings, topic, **{"isolation.level": "read_committed"})
        notices = [SellerNotice.from_json(message.value() or b"") for message in found]
        assert [(message.key() or b"").decode() for message in found] == [notice.seller_id for notice in notices]
        return notices

    def told(self) -> dict[str, list[SellerNotice]]:
        """Return what each seller was told, in order; what came again, with the same id, is seen once."""
        found: dict[str, dict[uuid.UUID, SellerNotice]] = {}
        for notice in self.all():
            found.setdefault(notice.seller_id, {}).setdefault(notice.notice_id, notice)
        return {seller: list(notices.values()) for seller, notices in found.items()}

    def wait_for_all(self, sellers: list[str], count: int) -> dict[str, list[SellerNotice]]:
        """Return what all were told when each of these was told so often."""

        def there() -> dict[str, list[SellerNotice]] | None:
            told = self.told()
            return told if all(len(told.get(seller, [])) >= count for seller in sellers) else None

        return wait_for(there, f"{count} notices of each seller", 120)

    def wait_for(self, seller: str, count: int) -> list[SellerNotice]:
        return self.wait_for_all([seller], count)[seller]


def _own(seller: str, one: SellerHint) -> uuid.UUID:
    return uuid.uuid5(one.hint_id, seller)


@pytest.fixture
def notices(kafka_settings: Settings) -> Iterator[Notices]:
    changes = {"notices_clock": "events"}
    app = Notices(isolated(kafka_settings.model_copy(update=changes), embedded=False))
    yield app
    app.stop()


def day(number: int, at: datetime) -> list[SellerHint]:
    return [hint(f"l{number}-{n}", at + timedelta(minutes=n), kind=ISSUES[n]) for n in range(5)]


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


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_restart_in_the_middle_loses_nothing(notices: Notices, end: str) -> None:
    app = notices.start()
    sellers = [f"s{n}" for n in range(20)]
    for seller in sellers:
        notices.hear(seller, *day(0, NOON)[:4])
    wait_for(lambda: sum(map(len, notices.told().values())) >= 10, "some notices", 90)
    if end == "killed":
        app.kill()
    app.stop()
    notices.start()
    notices.wait_for_all(sellers, 3)
    notices.hear("clock", hint("x", NOON + DAY))
    told = notices.wait_for_all(sellers, 4)
    for seller in sellers:
        assert [one.listings[0] for one in told[seller]] == [f"l0-{n}" for n in range(4)]


def test_a_rebalance_in_the_middle_keeps_to_the_limit(notices: Notices) -> None:
    notices.start()
    sellers = [f"s{n}" for n in range(12)]
    for seller in sellers:
        notices.hear(seller, *day(0, NOON)[:2])
    notices.wait_for_all(sellers, 2)
    notices.start()  # takes over some of the partitions, and their sellers
    for seller in sellers:
        notices.hear(seller, *day(1, NOON + HOUR)[2:5])
    notices.wait_for_all(sellers, 3)
    time.sleep(2)
    assert {len(found) for found in notices.told().values()} == {3}, "what was told before the move counts"


def test_hints_that_cannot_be_read_are_skipped(notices: Notices) -> None:
    notices.start()
    producer = Producer(client_config(notices.settings))
    producer.produce(notices.settings.hints_topic, key="s1", value=b"{")
    producer.flush(10)
    notices.hear("s1", hint("l1"))
    (notice,) = notices.wait_for("s1", 1)
    assert notice.type is NoticeType.TIPS

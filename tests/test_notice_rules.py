"""When a seller is told what: every rule, with times given by the test."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, time, timedelta

import pytest

from schemas import Issue, SellerHint, SellerNotice, Tip
from schemas.seller_notice import NoticeType
from stream.notice_rules import Rules, Seller, hear, tick
from stream.tips import text

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RULES = Rules()


def hint(
    listing: str,
    at: datetime = NOON,
    version: int = 1,
    kind: str = "dark",
    score: float = 0.4,
    withdrawn: bool = False,
    zone: str | None = None,
    locale: str = "en",
) -> SellerHint:
    tip = Tip(kind=kind, issue=Issue(kind), probability=0.9, photo_id="p0", position=0, text=text(kind, 1, locale))
    return SellerHint(
        hint_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{listing}/{version}/{withdrawn}"),
        seller_id="s1",
        listing_id=listing,
        listing_version=version,
        locale=locale,
        score=score,
        tips=() if withdrawn else (tip,),
        created_at=at,
        withdrawn=withdrawn,
        occurred_at=at,
        time_zone=zone,
    )


class Told:
    """A seller, and what was told so far."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.seller = Seller(seller_id="s1")
        self.rules = rules

    def hear(self, *hints: SellerHint) -> list[SellerNotice]:
        # Through JSON, as the table keeps it.
        found = []
        for one in hints:
            found += hear(self.seller, one, self.rules)
            self.seller = Seller.model_validate_json(self.seller.model_dump_json())
        return found

    def tick(self) -> list[SellerNotice]:
        assert self.seller.due is not None
        found = tick(self.seller, self.seller.due, self.rules)
        self.seller = Seller.model_validate_json(self.seller.model_dump_json())
        return found


def kinds(notices: list[SellerNotice]) -> list[tuple[NoticeType, tuple[str, ...]]]:
    return [(notice.type, notice.listings) for notice in notices]


ISSUES = ["dark", "blurry", "wrinkled", "tilted", "glare", "noisy"]


def several(count: int, at: datetime = NOON) -> list[SellerHint]:
    """Hints of different listings with different best tips."""
    return [hint(f"l{n}", at + n * timedelta(minutes=1), kind=ISSUES[n]) for n in range(count)]


def test_a_hint_is_told_at_once() -> None:
    (notice,) = Told().hear(hint("l1"))
    assert (notice.type, notice.listings, notice.at) == (NoticeType.TIPS, ("l1",), NOON)
    assert notice.tips[0].kind == "dark"
    assert notice.seller_id == "s1"


def test_at_most_three_a_day_and_the_rest_the_next_day() -> None:
    told = Told()
    assert len(told.hear(*several(6))) == 3
    assert told.seller.due == datetime(2026, 3, 3, 0, tzinfo=UTC)
    assert told.tick() == [], "midnight is in the quiet hours"
    assert told.seller.due == datetime(2026, 3, 3, 8, tzinfo=UTC)
    assert kinds(told.tick()) == [(NoticeType.TIPS, (f"l{n}",)) for n in (3, 4, 5)]
    assert told.seller.due is None


def test_the_day_is_the_sellers() -> None:
    told = Told()
    late = datetime(2026, 3, 2, 11, tzinfo=UTC)  # 20:00 in Tokyo
    zoned = [one.model_copy(update={"time_zone": "Asia/Tokyo"}) for one in several(4, late)]
    assert len(told.hear(*zoned)) == 3
    assert told.seller.due == datetime(2026, 3, 2, 15, tzinfo=UTC), "midnight in Tokyo"


def test_quiet_hours_are_by_the_sellers_clock() -> None:
    told = Told()
    assert told.hear(hint("l1", zone="America/New_York", at=datetime(2026, 3, 2, 4, tzinfo=UTC))) == []
    assert told.seller.due == datetime(2026, 3, 2, 13, tzinfo=UTC), "8:00 in New York"
    assert kinds(told.tick()) == [(NoticeType.TIPS, ("l1",))]


def test_there_may_be_no_quiet_hours() -> None:
    rules = Rules(quiet_from=time(0), quiet_until=time(0))
    assert Told(rules).hear(hint("l1", at=NOON + 11 * HOUR))


def test_a_zone_that_nobody_knows_counts_as_utc() -> None:
    assert Told().hear(hint("l1", zone="Mars/Olympus"))


def test_a_newer_version_replaces_what_waits() -> None:
    told = Told()
    told.hear(*several(3))
    assert told.hear(hint("late", version=1, kind="noisy"), hint("late", version=2, kind="tilted")) == []
    told.tick()
    (notice,) = told.tick()
    assert notice.tips[0].kind == "tilted"


def test_an_older_version_that_comes_late_says_nothing() -> None:
    told = Told()
    assert told.hear(hint("l1", version=2))
    assert told.hear(hint("l1", version=1, kind="blurry")) == []


def test_a_deleted_listing_takes_its_tips_back() -> None:
    told = Told()
    assert len(told.hear(hint("l1"), hint("a", kind="blurry"), hint("b", kind="tilted"))) == 3
    waiting = hint("l9", kind="noisy")
    told.hear(waiting)
    found = told.hear(hint("l1", version=2, withdrawn=True), hint("l9", version=2, withdrawn=True))
    assert kinds(found) == [(NoticeType.WITHDRAWN, ("l1",))], "what was not told need not be taken back"
    assert told.seller.due is None
    assert told.hear(hint("l1", version=2)) == [], "the deletion wins over a score of the same version"


def test_better_photos_take_tips_back() -> None:
    told = Told()
    told.hear(hint("l1"))
    assert kinds(told.hear(hint("l1", version=2, score=0.9)))[0] == (NoticeType.WITHDRAWN, ("l1",))


def test_what_recurs_becomes_one_digest_and_is_not_repeated() -> None:
    told = Told()
    assert len(told.hear(hint("l1"), hint("l2"))) == 2
    told.hear(hint("other", kind="blurry", score=0.9))
    (digest,) = [n for n in told.hear(hint("l3", NOON + DAY)) if n.type is NoticeType.DIGEST]
    assert digest.listings == ("l1", "l2", "l3")
    assert digest.text.startswith("3 of your 4 listings have something in common")
    assert "lamp" in digest.text
    assert told.hear(hint("l4", NOON + 2 * DAY)) == []
    assert told.hear(hint("l5", NOON + 9 * DAY)), "a week later it may be told again"


def test_good_listings_get_praise_once_a_week_and_never_tips() -> None:
    told = Told()
    (praise,) = told.hear(hint("l1", score=0.8))
    assert praise.type is NoticeType.PRAISE
    assert praise.tips == ()
    assert told.hear(hint("l2", NOON + DAY, score=0.9)) == []
    assert told.hear(hint("l3", NOON + 8 * DAY, score=0.9))


def test_praise_counts_and_keeps_to_the_quiet_hours() -> None:
    told = Told(Rules(per_day=1))
    assert told.hear(hint("l1"), hint("l2", NOON + HOUR, score=0.9))[1:] == []
    assert Told().hear(hint("l1", NOON + 12 * HOUR, score=0.9)) == []


@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_same_again_leads_to_the_same_and_changes_nothing(count: int) -> None:
    told, again = Told(), Told()
    first = told.hear(*several(count))
    for one in several(count):
        again.hear(one)
        before = again.seller.model_dump_json()
        assert again.hear(one) == again.seller.listings[one.listing_id].answer
        assert again.seller.model_dump_json() == before
    assert again.seller == told.seller
    assert len({notice.notice_id for notice in first}) == len(first)
    if told.seller.due:
        due = told.seller.due
        ticked = told.tick()
        assert tick(told.seller, due, RULES) == ticked


def test_events_out_of_order_never_turn_the_clock_back() -> None:
    told = Told()
    told.hear(hint("l1", NOON + DAY))
    (notice,) = told.hear(hint("l2", NOON, kind="blurry"))
    assert notice.at == NOON + DAY


@pytest.mark.parametrize("locale", ["en", "ja", "de", "es"])
def test_digests_and_praise_are_in_the_sellers_language(locale: str) -> None:
    told = Told()
    found = told.hear(*(hint(f"l{n}", locale=locale) for n in range(4)), hint("good", score=0.9, locale=locale))
    texts = [notice.text for notice in found if notice.text]
    assert texts
    assert all("{" not in words for words in texts)
    assert (locale == "en") == any("listing" in words for words in texts)

"""When a seller is told what: pure rules over one seller's state and the times of events, without any clock.

- A newer version of a listing replaces what waits of it, and a deleted listing takes it back.
- At most `per_day` notices a day, by the seller's calendar; what is more waits for the next day.
- None in the quiet hours of the seller's time zone; it waits until they end.
- What the best tips of several listings have in common becomes one digest, which stands for them, and is not told
  again for a week.
- A listing that scores well gets no tips; a praise at most, once a week.

Every function returns the notices that it decided on. The same input twice gives the same notices, with the same ids,
and changes nothing else: so what is handled again after a crash is told once.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field

from schemas import SellerHint, SellerNotice, Tip
from schemas.seller_notice import MAX_LISTINGS, NoticeType
from stream.tips import digest_text, praise_text

_NAMESPACE = uuid.UUID("c2a2b1cf-3a3a-5f3c-8a37-1f8c4f7d2e55")
_WEEK = timedelta(days=7)
_REMEMBERED = 500
"""Listings of a seller that are remembered; the ones heard of longest ago go first."""


@dataclass(frozen=True)
class Rules:
    per_day: int = 3
    digest_from: int = 3
    """Listings with the same best tip that make a digest."""
    good_from: float = 0.7
    """Score, 0..1, from which a listing gets no tips."""
    quiet_from: time = time(21)
    quiet_until: time = time(8)
    """No quiet hours when both are the same."""


class Known(BaseModel):
    """A listing as it was heard of last."""

    version: int
    hint_id: uuid.UUID
    kind: str = ""
    """Its best tip; empty: none."""
    gone: bool = False
    told: bool = False
    """Whether a notice spoke of it, which is to be taken back when it changes."""
    answer: list[SellerNotice] = Field(default_factory=list)
    """What hearing of it led to at once."""


class Seller(BaseModel):
    """What is remembered of one seller."""

    seller_id: str
    partition: int = 0
    """Of the topics, where this seller's records are."""
    listings: dict[str, Known] = Field(default_factory=dict)
    waiting: dict[str, SellerHint] = Field(default_factory=dict)
    """Hints that were not told yet, the oldest first."""
    sent: list[datetime] = Field(default_factory=list)
    """Times of the notices of the last two days."""
    digests: dict[str, datetime] = Field(default_factory=dict)
    praised: datetime | None = None
    clock: datetime = datetime.fromtimestamp(0, UTC)
    """The latest time heard of."""
    due: datetime | None = None
    """When to look again at what waits."""
    ticked: datetime | None = None
    """The last such time that came, and what it led to."""
    tick_answer: list[SellerNotice] = Field(default_factory=list)
    zone: str = "UTC"
    locale: str = "en"


def hear(seller: Seller, hint: SellerHint, rules: Rules) -> list[SellerNotice]:
    """Take note of a hint, change the seller's state, and return what to tell now."""
    listing, version = hint.listing_id, hint.listing_version
    known = seller.listings.get(listing)
    if known and known.hint_id == hint.hint_id:
        return known.answer
    if known and (known.version, known.gone) > (version, hint.withdrawn):
        return []
    _move_clock(seller, hint.occurred_at or hint.created_at)
    seller.zone, seller.locale = hint.time_zone or seller.zone, hint.locale
    good = hint.score >= rules.good_from
    useful = bool(hint.tips) and not good and not hint.withdrawn
    new = Known(version=version, hint_id=hint.hint_id, kind=hint.tips[0].kind if useful else "", gone=hint.withdrawn)
    seller.listings.pop(listing, None)  # the one heard of last comes last
    seller.listings[listing] = new
    seller.waiting.pop(listing, None)
    found = []
    if known and known.told and not useful:
        found.append(_notice(seller, NoticeType.WITHDRAWN, [listing], hint.hint_id))
    if useful:
        seller.waiting[listing] = hint
    found += _release(seller, rules)
    if good and not hint.withdrawn:
        found += _praise(seller, hint, rules)
    new.answer = found
    _forget(seller)
    return found


def tick(seller: Seller, due: datetime, rules: Rules) -> list[SellerNotice]:
    """Return what may be told now that `due`, for which something waited, has come."""
    if seller.ticked == due:
        return seller.tick_answer
    _move_clock(seller, due)
    seller.ticked, seller.tick_answer = due, _release(seller, rules)
    return seller.tick_answer


def _release(seller: Seller, rules: Rules) -> list[SellerNotice]:
    """Return what may be told of what waits, and set when to look again."""
    found: list[SellerNotice] = []
    seller.due = None
    while seller.waiting and seller.due is None:
        seller.due = _not_before(seller, rules)
        if seller.due is None and (notice := _next(seller, rules)) is not None:
            found.append(notice)
            seller.sent.append(seller.clock)
    return found


def _next(seller: Seller, rules: Rules) -> SellerNotice | None:
    """Take the oldest of what waits, alone or with its like; None: a digest has told it already."""
    listing, hint = next(iter(seller.waiting.items()))
    kind = hint.tips[0].kind
    alike = [name for name, known in seller.listings.items() if known.kind == kind]
    if seller.clock - seller.digests.get(kind, seller.clock - _WEEK) < _WEEK:
        del seller.waiting[listing]
        return None
    if len(alike) < rules.digest_from:
        del seller.waiting[listing]
        seller.listings[listing].told = True
        return _notice(seller, NoticeType.TIPS, [listing], hint.hint_id, tips=hint.tips)
    seller.digests[kind] = seller.clock
    for name in alike:
        seller.waiting.pop(name, None)
    there = sum(not known.gone for known in seller.listings.values())
    text = digest_text(len(alike), there, hint.tips[0].text, seller.locale)
    return _notice(seller, NoticeType.DIGEST, alike[-MAX_LISTINGS:], hint.hint_id, text)


def _praise(seller: Seller, hint: SellerHint, rules: Rules) -> list[SellerNotice]:
    recently = seller.praised is not None and seller.clock - seller.praised < _WEEK
    if recently or seller.waiting or _not_before(seller, rules) is not None:
        return []
    seller.praised = seller.clock
    seller.sent.append(seller.clock)
    return [_notice(seller, NoticeType.PRAISE, [hint.listing_id], hint.hint_id, praise_text(seller.locale))]


def _notice(
    seller: Seller,
    type: NoticeType,
    listings: list[str],
    cause: uuid.UUID,
    text: str = "",
    tips: tuple[Tip, ...] = (),
) -> SellerNotice:
    return SellerNotice(
        notice_id=uuid.uuid5(_NAMESPACE, f"{cause}/{type}"),
        type=type,
        seller_id=seller.seller_id,
        listings=tuple(listings),
        locale=seller.locale,
        text=text,
        tips=tips,
        at=seller.clock,
    )


def _not_before(seller: Seller, rules: Rules) -> datetime | None:
    """Return until when nothing more is told; None: it may be told now."""
    zone = _zone(seller.zone)
    local = seller.clock.astimezone(zone)
    if _is_quiet(local.time(), rules):
        return _next_time(local, rules.quiet_until, zone)
    today = sum(at.astimezone(zone).date() == local.date() for at in seller.sent)
    return None if today < rules.per_day else _next_time(local, time(0), zone)


def _is_quiet(now: time, rules: Rules) -> bool:
    start, end = rules.quiet_from, rules.quiet_until
    return start <= now < end if start <= end else now >= start or now < end


def _next_time(local: datetime, wanted: time, zone: tzinfo) -> datetime:
    """Return the next time, after `local`, at which the seller's clock shows `wanted`."""
    found = datetime.combine(local.date(), wanted, zone)
    if found <= local:
        found = datetime.combine(local.date() + timedelta(days=1), wanted, zone)
    return found.astimezone(UTC)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


def _move_clock(seller: Seller, now: datetime) -> None:
    """Times of events may come out of order; the clock never goes back."""
    seller.clock = max(seller.clock, now.astimezone(UTC))
    seller.sent = [at for at in seller.sent if seller.clock - at < timedelta(days=2)]
    seller.digests = {kind: at for kind, at in seller.digests.items() if seller.clock - at < _WEEK}


def _forget(seller: Seller) -> None:
    for listing in list(seller.listings)[: max(0, len(seller.listings) - _REMEMBERED)]:
        del seller.listings[listing]
        seller.waiting.pop(listing, None)

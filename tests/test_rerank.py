"""Re-ranking: bounded, neutral, never an irrelevant item over a relevant one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.search.rerank import Result, Rules, rerank

RESULTS = st.lists(
    st.builds(
        Result,
        listing_id=st.uuids().map(str),
        relevance=st.floats(0.01, 100),
        score=st.none() | st.floats(0, 1),
        new_seller=st.booleans(),
    ),
    max_size=40,
)
RULES = st.builds(
    Rules,
    max_places=st.integers(0, 10),
    weight=st.floats(0, 1),
    neutral=st.floats(0, 1),
    band=st.floats(0, 1),
    explore=st.sampled_from([0.0, 0.3, 1.0]),
)


def ids(results: list[Result], **rules: float) -> list[str]:
    return [ranked.result.listing_id for ranked in rerank(results, Rules(**rules))]  # type: ignore[arg-type]


@given(RESULTS, RULES)
def test_every_result_stays_and_none_moves_too_far(results: list[Result], rules: Rules) -> None:
    ranked = rerank(results, rules, "search")
    assert sorted(one.was for one in ranked) == list(range(1, len(results) + 1))
    assert all(abs(one.place - one.was) <= rules.max_places for one in ranked)
    assert all(abs(one.effect) <= rules.weight + 1e-9 for one in ranked)


@given(RESULTS, RULES)
def test_no_irrelevant_item_is_lifted_over_a_relevant_one(results: list[Result], rules: Rules) -> None:
    ranked = rerank(results, rules, "search")
    for upper, one in enumerate(ranked):
        for other in ranked[upper + 1 :]:
            lifted = one.was > other.was
            assert not (lifted and one.result.relevance < other.result.relevance * (1 - rules.band))


@given(RESULTS)
def test_without_scores_nothing_moves(results: list[Result]) -> None:
    plain = sorted((r._replace(score=None, new_seller=False) for r in results), key=lambda r: -r.relevance)
    assert [one.place for one in rerank(plain)] == [one.was for one in rerank(plain)]


def test_better_photos_come_first_among_equals() -> None:
    results = [Result("plain", 10, 0.5), Result("bad", 10, 0.1), Result("unscored", 10), Result("good", 10, 0.9)]
    assert ids(results) == ["good", "plain", "unscored", "bad"]


def test_a_good_photo_passes_what_is_slightly_more_relevant_and_no_more() -> None:
    results = [Result("much", 20, 0.1), Result("slightly", 10.5, 0.4), Result("good", 10, 0.95)]
    assert ids(results) == ["much", "good", "slightly"]


def test_an_order_that_search_chose_for_other_reasons_is_kept_where_photos_are_alike() -> None:
    results = [Result("pinned", 1, 0.5), Result("a", 9, 0.5), Result("b", 9, 0.5)]
    assert ids(results, max_places=0) == ["pinned", "a", "b"]


def test_exploration_lifts_new_sellers_and_is_repeatable() -> None:
    results = [*(Result(f"old{n}", 10, 0.6) for n in range(3)), Result("new", 10, None, new_seller=True)]
    rules = Rules(explore=0.3)
    places = [next(r.place for r in rerank(results, rules, f"q{n}") if r.result.new_seller) for n in range(400)]
    again = [next(r.place for r in rerank(results, rules, f"q{n}") if r.result.new_seller) for n in range(400)]
    assert places == again
    assert 0.2 < sum(place == 1 for place in places) / 400 < 0.4
    assert {1, 4} == set(places)


def test_each_result_can_say_why_it_moved() -> None:
    results = [Result("plain", 10), Result("good", 10, 0.9)]
    said = [ranked.explain() for ranked in rerank(results)]
    assert said == [
        "good moves up 1, to place 1: photo 0.90 changes the relevance 10 by +16.0%",
        "plain moves down 1, to place 2: no score, so the photo adds nothing",
    ]
    explored = rerank([results[0], Result("new", 10, new_seller=True)], Rules(explore=1))
    assert "new seller" in explored[0].explain()


@pytest.mark.parametrize("wrong", [{"max_places": -1}, {"weight": 1.5}, {"band": -0.1}, {"explore": 2}])
def test_wrong_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weight, band and explore"):
        Rules(**wrong)  # type: ignore[arg-type]

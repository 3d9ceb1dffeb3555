"""Ready-made queries for OpenSearch and Elasticsearch that rank with the score.

Each wraps the query that finds the relevant documents, and only scales its relevance: what it does not match is not
found, however good the photo. A document without a score counts as one with the neutral score.
"""

from __future__ import annotations

from typing import Any

Query = dict[str, Any]
NEUTRAL = 0.5


def function_score(query: Query, weight: float = 0.2, field: str = "image_score", neutral: float = NEUTRAL) -> Query:
    """Return `query` with its relevance multiplied by 1 + weight * (score - neutral).

    So a photo moves the relevance by at most `weight * neutral` down and `weight * (1 - neutral)` up, as a share of it.

    Args:
        weight: at most 1; with 0.2, by default, within 0.9 and 1.1.

    Raises:
        ValueError: weight or neutral is out of range.
    """
    _check(weight, neutral)
    photo = {"field": f"{field}.score", "factor": weight, "missing": neutral}
    return {
        "function_score": {
            "query": query,
            "functions": [{"weight": 1 - weight * neutral}, {"field_value_factor": photo}],
            "score_mode": "sum",
            "boost_mode": "multiply",
        }
    }


def rank_feature(query: Query, boost: float = 1.0, field: str = "image_score", pivot: float = NEUTRAL) -> Query:
    """Return `query` with boost * score / (score + pivot) added, for a sub-field of type `rank_feature`.

    The mapping needs `RANK_FEATURE`. It is faster than `function_score` on large result sets, as the engine can skip
    documents that cannot win; what it adds is at most `boost`, and 0 for documents without a score.

    Raises:
        ValueError: boost is below 0, or pivot not above 0.
    """
    if boost < 0 or pivot <= 0:
        raise ValueError(f"boost {boost} must be at least 0 and pivot {pivot} above 0")
    feature = {"field": f"{field}.rank", "boost": boost, "saturation": {"pivot": pivot}}
    return {"bool": {"must": [query], "should": [{"rank_feature": feature}]}}


RANK_FEATURE: dict[str, Any] = {"type": "rank_feature"}
"""Mapping of the sub-field `rank`, which the sink writes with the score."""


def _check(weight: float, neutral: float) -> None:
    if not 0 <= weight <= 1:
        raise ValueError(f"weight {weight} must be 0..1: a photo is not to outweigh relevance")
    if not 0 <= neutral <= 1:
        raise ValueError(f"neutral {neutral} must be 0..1")

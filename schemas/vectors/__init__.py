"""Examples that readers in every language are tested with: `python -m schemas.vectors` writes them again.

`redis_record.json`: the bytes of records, as hexadecimal text, and what they mean, or that they are refused.
`experiments.json`: an experiments file, and the arms of some users.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from schemas.base import MAX_VERSION, MessageError
from schemas.experiment import Experiments
from schemas.redis_record import RedisRecord, record_key

FOLDER = Path(__file__).parent
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _record(**changes: Any) -> RedisRecord:
    fields: dict[str, Any] = {
        "score": 0.83,
        "cover_score": 0.91,
        "best_position": 2,
        "scored_photos": 5,
        "partial": False,
        "aspects": (0.1, 0.25, 0.5, 0.75, 0.9, 1.0),
        "event_version": 7,
        "scored_at": datetime(2026, 1, 31, 9, 30, 0, 123_000, tzinfo=UTC),
        "model_version": 2,
    }
    return RedisRecord(**(fields | changes))


def _records() -> dict[str, bytes]:
    plain = _record().to_bytes()
    lowest = {"score": 0, "cover_score": 0, "aspects": (0,) * 6, "event_version": 0, "scored_at": _EPOCH}
    ends = {"event_version": MAX_VERSION, "model_version": 2**32 - 1, "best_position": 19, "scored_photos": 20}
    return {
        "a usual record": plain,
        "lowest values": _record(**lowest).to_bytes(),
        "highest values": _record(score=1, cover_score=1, aspects=(1,) * 6, **ends).to_bytes(),
        "the cover has no score, other photos neither": _record(cover_score=None, partial=True).to_bytes(),
        "a later format version with more bytes": bytes([9]) + plain[1:] + b"\x01\x02\x03",
        "flags of a later version": plain[:1] + b"\xfc" + plain[2:],
        "scored before 1970": _record(scored_at=_EPOCH - timedelta(milliseconds=1)).to_bytes(),
        "empty": b"",
        "35 bytes": plain[:35],
        "format version 0": b"\x00" + plain[1:],
        "best photo out of range": plain[:2] + bytes([20]) + plain[3:],
        "no scored photos": plain[:3] + bytes([0]) + plain[4:],
    }


def _meaning(data: bytes) -> dict[str, Any] | None:
    try:
        record = RedisRecord.from_bytes(data)
    except MessageError:
        return None
    found = record.model_dump(exclude={"scored_at"})
    return found | {"scored_at_ms": round(record.scored_at.timestamp() * 1000)}


def redis_record() -> dict[str, Any]:
    """Return records: `record` is their meaning, null where a reader must refuse the bytes."""
    cases = [{"name": name, "hex": data.hex(), "record": _meaning(data)} for name, data in _records().items()]
    keys = [{"listing_id": name, "key": record_key(name)} for name in ("m123", "a:b_c.d-e", "Z" * 64)]
    return {"keys": keys, "records": cases}


_EXPERIMENTS = {
    "layers": [
        {
            "name": "ranking",
            "salt": "ranking-2026",
            "experiments": [
                {
                    "name": "image-score",
                    "salt": "image-score-1",
                    "first": 0,
                    "last": 5999,
                    "ramp": 5000,
                    "arms": [{"name": "control", "weight": 1}, {"name": "treatment", "weight": 1}],
                    "exclude": ["user-3", "bot"],
                    "force": {"tester": "treatment", "bot": "control"},
                },
                {
                    "name": "other-ranking",
                    "salt": "other-1",
                    "first": 6000,
                    "last": 9999,
                    "ramp": 10000,
                    "arms": [
                        {"name": "control", "weight": 70},
                        {"name": "small", "weight": 20},
                        {"name": "none", "weight": 0},
                        {"name": "large", "weight": 10},
                    ],
                    "exclude": [],
                    "force": {},
                },
            ],
        },
        {
            "name": "page",
            "salt": "page-2026",
            "experiments": [
                {
                    "name": "tips",
                    "salt": "tips-1",
                    "first": 0,
                    "last": 9999,
                    "ramp": 2500,
                    "arms": [{"name": "off", "weight": 1}, {"name": "on", "weight": 1}],
                    "exclude": [],
                    "force": {},
                }
            ],
        },
    ],
    "exclude": ["user-4", "tester"],
}


def experiments() -> dict[str, Any]:
    """Return a file, and the arms of users: names of other scripts among them."""
    rules = Experiments.model_validate(_EXPERIMENTS)
    users = [*(f"user-{number}" for number in range(60)), "tester", "bot", "ユーザー", "a/b", "ü", "x" * 256]
    return {"experiments": _EXPERIMENTS, "users": [{"user": user, "arms": rules.assign(user)} for user in users]}


def write(folder: Path = FOLDER) -> list[Path]:
    """Write the vectors into `folder`; return the paths."""
    paths = []
    for build in (redis_record, experiments):
        path = folder / f"{build.__name__}.json"
        path.write_bytes(orjson.dumps(build(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        paths.append(path)
    return paths

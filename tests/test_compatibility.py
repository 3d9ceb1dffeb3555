"""Older readers and writers keep working: today's schemas against those of the last release (tests/released/)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas import MESSAGES, Message
from schemas.export import JSON_DIR, json_schema, schema_bytes
from tests.schema_diff import breaks

RELEASED = Path(__file__).parent / "released"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.__name__)
def test_exported_json_schema_is_current(message: type[Message]) -> None:
    text = "run `image-score schemas export` and commit schemas/json"
    assert (JSON_DIR / f"{message.__name__}.json").read_bytes() == schema_bytes(message), text


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.__name__)
def test_nothing_breaks_an_older_reader_or_writer(message: type[Message]) -> None:
    released = orjson.loads((RELEASED / f"{message.__name__}.json").read_bytes())
    assert breaks(released, json_schema(message)) == []


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.__name__)
def test_messages_of_the_last_release_are_still_read(message: type[Message]) -> None:
    lines = (RELEASED / f"{message.__name__}.jsonl").read_bytes().splitlines()
    assert lines
    for line in lines:
        assert message.from_json(message.from_json(line).to_json()) == message.from_json(line)


def event_schema() -> dict[str, Any]:
    return copy.deepcopy(orjson.loads((RELEASED / "ListingEvent.json").read_bytes()))


def without_property(schema: dict[str, Any]) -> None:
    del schema["properties"]["seller_id"]
    schema["required"].remove("seller_id")


def with_required(schema: dict[str, Any]) -> None:
    schema["properties"]["shop_id"] = {"type": "string"}
    schema["required"].append("shop_id")


def no_longer_required(schema: dict[str, Any]) -> None:
    schema["required"].remove("version")


def another_type(schema: dict[str, Any]) -> None:
    schema["properties"]["version"] = {"type": "string"}


def fewer_enum_values(schema: dict[str, Any]) -> None:
    schema["$defs"]["ListingEventType"]["enum"].remove("deleted")


def more_enum_values(schema: dict[str, Any]) -> None:
    schema["$defs"]["ListingEventType"]["enum"].append("sold")


def tighter_limit(schema: dict[str, Any]) -> None:
    schema["properties"]["photos"]["maxItems"] = 10


def looser_limit(schema: dict[str, Any]) -> None:
    schema["properties"]["photos"]["maxItems"] = 40


def nested_limit(schema: dict[str, Any]) -> None:
    schema["$defs"]["ListingPhoto"]["properties"]["position"]["exclusiveMaximum"] = 5


def other_pattern(schema: dict[str, Any]) -> None:
    schema["properties"]["listing_id"]["pattern"] = "^[a-z]+$"


def no_longer_nullable(schema: dict[str, Any]) -> None:
    schema["properties"]["title"] = schema["properties"]["title"]["anyOf"][0]


@pytest.mark.parametrize(
    "change",
    [
        without_property,
        with_required,
        no_longer_required,
        another_type,
        fewer_enum_values,
        more_enum_values,
        tighter_limit,
        looser_limit,
        nested_limit,
        other_pattern,
        no_longer_nullable,
    ],
    ids=lambda change: change.__name__,
)
def test_breaking_change_is_found(change: Any) -> None:
    schema = event_schema()
    change(schema)
    assert breaks(event_schema(), schema) != []


def test_optional_field_may_be_added() -> None:
    schema = event_schema()
    schema["properties"]["color"] = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert breaks(event_schema(), schema) == []

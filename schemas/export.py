"""The JSON Schema files under `schemas/json/`, for readers and writers in other languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from schemas import MESSAGES, Message

JSON_DIR = Path(__file__).parent / "json"


def json_schema(message: type[Message]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a message as it stands on the wire."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **message.model_json_schema(mode="validation"),
    }


def schema_bytes(message: type[Message]) -> bytes:
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(json_schema(message), option=options)


def export(folder: Path = JSON_DIR) -> list[Path]:
    """Write `<Message>.json` for every message into `folder`; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{message.__name__}.json" for message in MESSAGES]
    for path, message in zip(paths, MESSAGES, strict=True):
        path.write_bytes(schema_bytes(message))
    return paths

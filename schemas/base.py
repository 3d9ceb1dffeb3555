"""What all messages share: strictness, JSON on the wire, and errors that tell what to do next."""

from __future__ import annotations

import base64
import reprlib
from typing import Annotated, Any, Self

import orjson
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

MAX_VERSION = 2**53 - 1
"""Largest listing version: the largest integer that JSON readers and Redis' Lua keep exact."""

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 80


def _rfc3339(value: object) -> object:
    """Refuse the numbers that pydantic would take for Unix times: the wire format is RFC 3339 text."""
    if isinstance(value, int | float):
        raise ValueError("must be an RFC 3339 time with a zone, such as 2026-01-31T09:30:00Z")
    return value


Timestamp = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]
"""RFC 3339 time; one without a zone is an error."""

Identifier = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+$")]
"""1..64 characters of A-Z a-z 0-9 . _ : - (safe in Redis keys, URLs and logs)."""

Version = Annotated[int, Field(ge=0, le=MAX_VERSION, strict=True)]
"""Listing version: increases with every event of a listing."""

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
"""A score or a probability, 0..1."""

Locale = Annotated[str, Field(min_length=2, max_length=35, pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*$")]
"""BCP 47 language tag, such as en, ja-JP or zh-Hant-TW."""


TimeZone = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$")]
"""IANA time zone, such as Asia/Tokyo; one that is not known counts as UTC."""


def _from_base64(value: object) -> object:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


WireBytes = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(_to_base64, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""Bytes in Python, base64 text on the wire."""


class MessageError(ValueError):
    """Bytes from outside that do not follow their schema.

    `problems` holds one line for each fault: field, what is wrong, and the value (shortened).
    """

    def __init__(self, schema: str, problems: list[str]) -> None:
        self.schema = schema
        self.problems = problems
        super().__init__(f"not a valid {schema}: " + "; ".join(problems))


class Message(BaseModel):
    """Base of every message: immutable; unknown fields are ignored, so that newer writers may add some."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def to_json(self) -> bytes:
        """Return the message as UTF-8 JSON; fields that are None are left out."""
        return orjson.dumps(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse and validate bytes from the wire.

        Raises:
            MessageError: not JSON, nested too deep, or against the schema; names each field.
        """
        try:
            return cls.model_validate(orjson.loads(data))
        except orjson.JSONDecodeError as error:
            raise MessageError(cls.__name__, [f"not JSON: {error}"]) from error
        except ValidationError as error:
            raise MessageError(cls.__name__, [describe(e) for e in error.errors()]) from error


def describe(error: Any) -> str:
    """Return one pydantic error as `field: what is wrong (got value)`; long or nested values are cut."""
    where = ".".join(str(part) for part in error["loc"]) or "message"
    what = error["msg"].removeprefix("Value error, ")
    if not what[:2].isupper():
        what = what[0].lower() + what[1:]
    return f"{where}: {what} (got {_shown.repr(error['input'])})"

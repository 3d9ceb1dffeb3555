"""Finds what in a newer JSON Schema breaks readers or writers of an older one.

Our readers ignore unknown fields and refuse everything else that they do not know. So a new optional field breaks
nobody; whatever accepts less breaks older writers, and whatever may send more breaks older readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_ANNOTATIONS = frozenset(("title", "description", "default", "$schema", "$defs", "$ref", "properties", "required"))
_NESTED = frozenset(("items", "additionalProperties", "anyOf", "prefixItems", "propertyNames"))


def breaks(old: Schema, new: Schema) -> list[str]:
    """Return one line for each incompatibility: `path: what changed`."""
    return list(_compare("message", old, new, old.get("$defs", {}), new.get("$defs", {})))


def _resolved(schema: Schema, defs: Schema) -> Schema:
    while "$ref" in schema:
        schema = {**defs[schema["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def _compare(path: str, old: Schema, new: Schema, old_defs: Schema, new_defs: Schema) -> Iterator[str]:
    old, new = _resolved(old, old_defs), _resolved(new, new_defs)
    was, now = old.get("properties", {}), new.get("properties", {})
    for name in was:
        if name not in now:
            yield f"{path}.{name}: removed, older readers may need it"
        else:
            yield from _compare(f"{path}.{name}", was[name], now[name], old_defs, new_defs)
    for name in sorted(set(new.get("required", [])) - set(old.get("required", []))):
        yield f"{path}.{name}: required now, older writers leave it out"
    for name in sorted(set(old.get("required", [])) - set(new.get("required", []))):
        yield f"{path}.{name}: not required any more, older readers need it"
    yield from _compare_rules(path, old, new)
    for name in ("items", "additionalProperties", "propertyNames"):
        if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
            yield from _compare(f"{path}.{name}", old[name], new[name], old_defs, new_defs)
        elif old.get(name) != new.get(name):
            yield f"{path}.{name}: {old.get(name)} became {new.get(name)}"
    for name in ("anyOf", "prefixItems"):
        if len(old.get(name, [])) != len(new.get(name, [])):
            yield f"{path}.{name}: the alternatives changed"
        for i, (a, b) in enumerate(zip(old.get(name, []), new.get(name, []), strict=False)):
            yield from _compare(f"{path}.{name}[{i}]", a, b, old_defs, new_defs)


def _compare_rules(path: str, old: Schema, new: Schema) -> Iterator[str]:
    """Limits, types, patterns, formats and enum values must stay: to widen one breaks readers, to narrow writers."""
    for rule in sorted((set(old) | set(new)) - _ANNOTATIONS - _NESTED):
        if old.get(rule) != new.get(rule):
            yield f"{path}.{rule}: {old.get(rule)} became {new.get(rule)}"

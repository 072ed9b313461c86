"""Validation errors in words for the sender: fields as the sender spelled them, no class names."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

_MOST_TOLD = 20
_MOST_BUILT = 1000
"""Of more errors none is told: what pydantic builds of each takes a thousand times the bytes that made it."""
_CHARACTERS = 500
"""Names of fields and reasons are cut off there: some quote what came in."""
_SUBJECT = re.compile(r"^(?:Input|String|List|Dictionary|Set|Tuple|Value|Data|URL|Object|JSON input)\b ")
_TAG = re.compile(
    r"^Input tag (?P<tag>.+) found using (?P<key>'.+?') does not match any of the expected tags: (?P<tags>.+)$"
)
_OBJECTS = {"model_type", "model_attributes_type", "dict_type", "dataclass_type", "mapping_type"}
_SAID = {
    "missing": "is missing",
    "extra_forbidden": "is no field of this",
    "union_tag_not_found": "should be an object with a type",
    "list_type": "should be a list",
    "invalid-json-value": "is not JSON",
} | dict.fromkeys(_OBJECTS, "should be a JSON object")


def complaints(error: ValidationError, value: Any) -> list[tuple[str, str]]:
    """Return the field, ``""`` for the whole value, and the reason of each error; of many errors only the first.

    Args:
        error: what pydantic says of *value*.
        value: what was validated. The names that pydantic gives to branches of a union are told from those of
            fields by what stands there.
    """
    if (count := error.error_count()) > _MOST_BUILT:
        return [("", f"does not fit in {count} places")]
    found: dict[tuple[str, str], None] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        field, message = _field(item["loc"], value, item["type"]), _message(item["type"], item["msg"][:_CHARACTERS])
        found[field[:_CHARACTERS], message] = None
    told = list(found)
    left = len(told) - _MOST_TOLD
    return told if left <= 0 else [*told[:_MOST_TOLD], ("", f"does not fit in {left} more places")]


def _field(loc: tuple[int | str, ...], value: Any, kind: str) -> str:
    path = []
    for at, name in enumerate(loc):
        if name in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
            value = value[name]
        elif not (kind == "missing" and at == len(loc) - 1):
            continue
        path.append(str(name))
    return ".".join(path)


def _message(kind: str, message: str) -> str:
    if kind in _SAID:
        return _SAID[kind]
    if (tag := _TAG.match(message)) is not None:
        return f"should have as {tag['key']} one of {tag['tags']}, not {tag['tag']}"
    if kind in ("value_error", "assertion_error"):
        return message.partition(", ")[2] or message
    return _SUBJECT.sub("", message)

"""Questions to people: which forms they may have, and which answers fit them.

A form is a JSON Schema, of the keywords of 2020-12 that every front end can draw. Patterns and references are not
among them: what an agent writes is looked at by the service, and by every peer, and must take no time that matters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from crdt_sessions.errors import BadValue
from crdt_sessions.model.checks import check_json

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

    from crdt_sessions.model.decisions import ApprovalRequest, Decision

SCHEMA_BYTES = 16 * 1024
"""Size of a form, as JSON."""
ANSWER_BYTES = 64 * 1024
"""Size of an answer, as JSON."""
ANSWER_VALUES = 1000
"""Values in an answer, those within others included."""
DEPTH = 8
"""Levels of nesting of a form or an answer."""

_PLAIN = frozenset(
    [
        "$schema",
        "title",
        "description",
        "type",
        "enum",
        "const",
        "default",
        "examples",
        "format",
        "required",
        "additionalProperties",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
    ]
)
_CHOICES = ("oneOf", "anyOf")
"""Lists of values with a title each."""
KEYWORDS = _PLAIN | {"properties", "items", *_CHOICES}
"""What a form may be made of."""


def wants_value(request: ApprovalRequest | None) -> bool:
    """Whether people are asked for a value, and not whether a tool may be called."""
    return request is not None and request.kind in ("choose", "form")


def check_form(schema: Any) -> dict[str, Any]:
    """Return *schema* if it is one of a form that people can be shown.

    Raises:
        BadValue: it is no JSON Schema, or has what forms cannot have; *where* says which place.
    """
    check_json(schema, "schema")
    if len(json.dumps(schema)) > SCHEMA_BYTES:
        raise BadValue(where="schema", why=f"it has more than {SCHEMA_BYTES} bytes")
    _check_form(schema, "schema", DEPTH)
    from jsonschema.exceptions import SchemaError

    try:
        _validator(schema).check_schema(schema)
    except SchemaError as error:
        raise BadValue(where="schema" + "".join(f".{step}" for step in error.path), why=error.message) from None
    return dict(schema)


def _check_form(schema: Any, where: str, depth: int) -> None:
    if not isinstance(schema, dict):
        raise BadValue(where=where, why="it is no object")
    if depth == 0:
        raise BadValue(where=where, why=f"forms are nested {DEPTH} levels at most")
    for keyword, value in schema.items():
        if keyword not in KEYWORDS:
            raise BadValue(where=where, why=f"forms do not know {keyword!r}; they know {', '.join(sorted(KEYWORDS))}")
        for place, each in _within(keyword, value):
            _check_form(each, f"{where}.{keyword}{place}", depth - 1)
        if keyword in _CHOICES and not all(isinstance(each, dict) and "const" in each for each in value):
            raise BadValue(where=f"{where}.{keyword}", why="each choice is an object with const, and title")
        if keyword == "additionalProperties" and not isinstance(value, bool):
            raise BadValue(where=f"{where}.{keyword}", why="it is neither true nor false")


def _within(keyword: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the schemas within a keyword, with their places."""
    if keyword == "properties" and isinstance(value, dict):
        yield from ((f".{name}", each) for name, each in value.items())
    elif keyword == "items":
        yield "", value
    elif keyword in _CHOICES and isinstance(value, list):
        yield from ((f".{at}", each) for at, each in enumerate(value))


def why_no_answer(request: ApprovalRequest, said: Decision) -> str | None:
    """Return why something is no answer to what was asked; None if it is one."""
    if not said.approved:
        return None
    if request.kind in (None, "approve"):
        return None if said.value is None else "only yes or no is asked"
    if said.value is None:
        return None if request.kind == "edit" else "a value is missing"
    return why_unfit(said.value, request.form)


def why_unfit(value: Any, schema: dict[str, Any] | None) -> str | None:
    """Return why *value* does not fit a form; None if it does. Any value within bounds fits if there is no form."""
    try:
        if _count(value, DEPTH) > ANSWER_VALUES:
            return f"it has more than {ANSWER_VALUES} values"
        if len(json.dumps(check_json(value))) > ANSWER_BYTES:
            return f"it has more than {ANSWER_BYTES} bytes"
    except BadValue as error:
        return error.why
    if schema is None:
        return None
    wrong = next(iter(_validator(schema).iter_errors(value)), None)
    if wrong is None:
        return None
    where = ".".join(str(step) for step in wrong.absolute_path)
    return f"{where}: {wrong.message}" if where else str(wrong.message)


def _count(value: Any, depth: int) -> int:
    """Return the number of values in *value*, itself included."""
    if depth < 0:
        raise BadValue(where="", why=f"it is nested deeper than {DEPTH} levels")
    within = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(_count(each, depth - 1) for each in within)


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    return _made(json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=64)
def _made(schema: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # a tenth of a second, for those who ask with forms

    return Draft202012Validator(json.loads(schema))

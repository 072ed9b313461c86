"""What may come in as JSON, and be written as a value: what the document can hold and every peer can read.

The CRDT library panics on some Python values, and JavaScript has no integers beyond 2**53 - 1, so values are
checked before they are written.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from pydantic import ValidationError

from crdt_sessions.errors import BadValue

NO_MAP = "it is no Y.Map (an untyped Yjs type, for one, is not read)"

MAX_DEPTH = 64
"""Levels of nesting that a value may have."""
MAX_INTEGER = 2**53 - 1
"""The largest integer that JavaScript can hold."""


def check_json(value: Any, where: str = "") -> Any:
    """Return *value* if the document can hold it and every peer can read it.

    Args:
        value: anything.
        where: its name, for the error.

    Raises:
        BadValue: it cannot; *where* in the value says so.
    """
    _check(value, where, MAX_DEPTH)
    return value


def parse_json(text: str | bytes) -> Any:
    """Return what JSON from outside says; only what RFC 8259 knows is taken, and of each key there is one.

    Python would take ``NaN`` for a number, round ``1e999`` to infinity, and of two keys of one name forget the first.

    Raises:
        BadValue: there is such a value; *where* says which.
        ValueError: it is no JSON.
        RecursionError: it is nested deeper than Python can follow.
    """
    odd = False

    def number(digits: str) -> float:
        nonlocal odd
        value = float(digits)
        odd = odd or not math.isfinite(value)
        return value

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal odd
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        odd = True
        return _Ambiguous(pairs)

    value = json.loads(text, parse_float=number, parse_constant=number, object_pairs_hook=members)
    if odd:
        _refuse_odd(value, "")
    return value


class _Ambiguous(dict[str, Any]):
    """An object in which a key stands twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        times = Counter(key for key, _ in pairs)
        self.twice = next(key for key in self if times[key] > 1)


def _refuse_odd(value: Any, where: str) -> None:
    if isinstance(value, _Ambiguous):
        raise BadValue(where=_member(where, value.twice), why="stands there twice")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_odd(item, _member(where, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_odd(item, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadValue(where=where, why=f"{value} is not JSON")


def _member(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _check(value: Any, where: str, depth: int) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise BadValue(where=where, why=f"the key {key!r} is not text")
            _check_scalar(key, where)
            _check_deeper(item, _member(where, key), depth)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_deeper(item, f"{where}[{index}]", depth)
    else:
        _check_scalar(value, where)


def _check_deeper(value: Any, where: str, depth: int) -> None:
    if depth == 0:
        raise BadValue(where=where[:200], why=f"is nested deeper than {MAX_DEPTH} levels")
    _check(value, where, depth - 1)


def _check_scalar(value: Any, where: str) -> None:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise BadValue(where=where, why="holds half a surrogate pair")
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise BadValue(where=where, why="an integer beyond 2**53 - 1; JavaScript cannot hold it")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadValue(where=where, why=f"{value} is not JSON")
    elif value is not None:
        raise BadValue(where=where, why=f"{type(value).__name__} is not JSON")


def json_size(value: Any) -> int:
    """Return how many bytes *value* has as JSON, written without white space."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def why_not(error: ValidationError, root: str = "") -> list[str]:
    """Return, for people, what of a value does not fit: names of fields and rules, nothing of what stands there."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return [f"{'.'.join(map(str, (*([root] if root else ()), *each['loc'])))}: {each['msg']}" for each in problems]

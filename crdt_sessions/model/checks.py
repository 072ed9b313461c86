"""What may be written as a JSON value: what the document can hold and every peer can read.

The CRDT library panics on some Python values, and JavaScript has no integers beyond 2**53 - 1, so values are
checked before they are written.
"""

from __future__ import annotations

import math
from typing import Any

from crdt_sessions.errors import BadValue

_MAX_DEPTH = 64
_MAX_INTEGER = 2**53 - 1


def check_json(value: Any, where: str = "") -> Any:
    """Return *value* if the document can hold it and every peer can read it.

    Args:
        value: anything.
        where: its name, for the error.

    Raises:
        BadValue: it cannot; *where* in the value says so.
    """
    _check(value, where, _MAX_DEPTH)
    return value


def _check(value: Any, where: str, depth: int) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise BadValue(where=where, why=f"the key {key!r} is not text")
            _check_scalar(key, where)
            _check_deeper(item, f"{where}.{key}" if where else key, depth)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_deeper(item, f"{where}[{index}]", depth)
    else:
        _check_scalar(value, where)


def _check_deeper(value: Any, where: str, depth: int) -> None:
    if depth == 0:
        raise BadValue(where=where[:200], why=f"is nested deeper than {_MAX_DEPTH} levels")
    _check(value, where, depth - 1)


def _check_scalar(value: Any, where: str) -> None:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise BadValue(where=where, why="holds half a surrogate pair")
    elif isinstance(value, int):
        if abs(value) > _MAX_INTEGER:
            raise BadValue(where=where, why="an integer beyond 2**53 - 1; JavaScript cannot hold it")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadValue(where=where, why=f"{value} is not JSON")
    elif value is not None:
        raise BadValue(where=where, why=f"{type(value).__name__} is not JSON")

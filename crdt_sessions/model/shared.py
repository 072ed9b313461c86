"""JSON written into shared maps: only what differs, and nested maps in place, so that others keep their bindings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pycrdt import Array, Map, Text, XmlElement, XmlFragment, XmlText

from crdt_sessions.errors import BadValue

_ABSENT = object()
_SHARED = (Array, Text, XmlElement, XmlFragment, XmlText)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON, where true is not 1 but 1 is 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def check_writable(shared: Any, current: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Return if :func:`rewrite` can make *wanted* of *current*; *where* is its name, for the error.

    Raises:
        BadValue: it would put a plain value in the place of a shared list or text.
    """
    for key, value in wanted.items():
        if same(current.get(key, _ABSENT), value):
            continue
        there = shared.get(key)
        if isinstance(there, Map) and isinstance(value, dict):
            check_writable(there, current[key], value, f"{where}.{key}")
        elif isinstance(there, _SHARED):
            raise BadValue(where=f"{where}.{key}", why="is a shared type, which only Yjs peers can change")


def rewrite(shared: Any, current: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Make *wanted* of a shared map that is *current* in JSON."""
    for key, value in wanted.items():
        if same(current.get(key, _ABSENT), value):
            continue
        if isinstance(there := shared.get(key), Map) and isinstance(value, dict):
            rewrite(there, current[key], value)
        else:
            shared[key] = value
    for key in current.keys() - wanted.keys():
        del shared[key]

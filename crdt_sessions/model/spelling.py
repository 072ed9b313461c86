"""How what stands in a document is spelled in JSON: the one way from the CRDT library to everybody who reads JSON.

Any Yjs client may write values that JSON has no word for. Each is spelled as an object with one key that begins with
``$``, or as text; docs/protocol.md has the table. So a value never takes the answer it is part of with it.
"""

from __future__ import annotations

import base64
import math
from typing import Any

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from crdt_sessions.model.checks import MAX_DEPTH, MAX_INTEGER
from crdt_sessions.model.text import join_surrogates
from crdt_sessions.wire import nesting


def spelled(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return *value* as JSON that every reader can take: objects, lists, text, finite numbers, booleans and null.

    Args:
        value: what the document gave: a shared type, or a value within one.
        depth: levels of nesting; what lies deeper is left out, with a mark.
    """
    kind = type(value)
    if kind is str:  # most of what there is: heads of messages are read often
        return _text(value)
    if kind in _AS_IT_IS:
        return value
    if isinstance(value, _OBJECTS):
        if depth == 0:
            return _TOO_DEEP
        return {_text(key): spelled(item, depth - 1) for key, item in value.items()}
    if isinstance(value, _LISTS):
        return _TOO_DEEP if depth == 0 else [spelled(item, depth - 1) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, _TEXTS):
        return _text(str(value))
    if isinstance(value, float):
        if value.is_integer():  # JavaScript has but one kind of number, and the library tells all of them as floats
            return int(value) if abs(value) <= MAX_INTEGER else value
        return value if math.isfinite(value) else {"$number": _NOT_FINITE.get(value, "NaN")}
    if isinstance(value, int):
        return value if abs(value) <= MAX_INTEGER else {"$bigint": str(value)}
    if isinstance(value, bytes | bytearray):
        return {"$bytes": base64.b64encode(value).decode()}
    return {"$subdocument": value.guid} if isinstance(value, Doc) else {"$omitted": type(value).__name__}


def _text(value: str) -> str:
    return value if value.isascii() else join_surrogates(value)


def whole(value: Any) -> int | None:
    """Return a number of the document as an integer; None if it is none, or one that not every peer can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_INTEGER:
        return None
    return int(value) if value == int(value) else None


def json_object(value: Any) -> dict[str, Any] | None:
    """Return a JSON object of the document, spelled; None for anything else, shared types among it."""
    found: dict[str, Any] | None = spelled(value) if isinstance(value, dict) else None
    return found


def nests_deeper(value: Any, depth: int) -> bool:
    """Tell whether *value*, which may be or hold shared types, has more than *depth* levels."""
    return nesting.nests_deeper(value, depth, _OBJECTS, _LISTS)


_AS_IT_IS = (type(None), bool)
_OBJECTS = (dict, Map)
_LISTS = (list, tuple, Array)
_TEXTS = (str, Text, XmlFragment, XmlElement, XmlText)
_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
_TOO_DEEP = {"$omitted": f"nested deeper than {MAX_DEPTH} levels"}

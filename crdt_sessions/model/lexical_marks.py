"""What Lexical says of characters: properties of text nodes, and links around them; here both are marks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pycrdt import Map, XmlText

from crdt_sessions.model.spelling import spelled

Properties = dict[str, Any]
"""By their names, as JSON."""
Around = tuple[tuple[str, str], ...]
"""Elements in a line that something is in, outermost first: their types, and what they say as canonical JSON."""

TYPE_KEY = "__type"
LINE_BREAK = "linebreak"
INLINE = frozenset({"link", "autolink", "mark", "overflow"})
"""Elements that stand in a line; they are marks of these names."""
RESTORED = "restored"
"""In copies that are thrown away, what a text node that was deleted said, as JSON."""
USUAL: Properties = {TYPE_KEY: "text", "__format": 0, "__style": "", "__mode": 0, "__detail": 0}
"""What a text node says that says nothing."""
_FORMATS = (
    *("bold", "italic", "strike", "underline", "code", "subscript", "superscript", "highlight"),
    *("lowercase", "uppercase", "capitalize"),
)
"""The marks that the bits of ``__format`` mean, lowest first."""
_OTHERWISE = "lexical"
"""The mark that has what else is said of a text node."""


def properties_of(node: Map[Any]) -> Properties:
    """Return what a shared text node says."""
    found: Properties = spelled(node)
    if isinstance(restored := found.get(RESTORED), str):
        found = _object(restored)
    return {TYPE_KEY: "text"} | found


def marks_of(node: Properties) -> Properties:
    """Return the marks of what is in a text node."""
    bits = node.get("__format")
    bits = bits if isinstance(bits, int) else 0
    marks: Properties = {name: {} for at, name in enumerate(_FORMATS) if bits >> at & 1}
    other = {key: value for key, value in node.items() if key != "__format" and value != USUAL.get(key)}
    return marks | {_OTHERWISE: other} if other else marks


def node_of(marks: Properties) -> Properties:
    """Return what a text node says of which the characters have *marks*."""
    bits = sum(1 << at for at, name in enumerate(_FORMATS) if name in marks)
    other = marks.get(_OTHERWISE)
    return {**USUAL, "__format": bits, **(other if isinstance(other, dict) else {})}


def map_of(node: Properties) -> Map[Any]:
    """Return a text node, to be put into a document."""
    return Map(
        {key: Map(said) if key == "__state" and isinstance(said, dict) else said for key, said in node.items()}
    )


def around_in(marks: Properties) -> Around:
    """Return in which elements that has to stand which has *marks*."""
    return tuple((name, _json(marks[name])) for name in sorted(INLINE & marks.keys()))


def link_of(shared: XmlText) -> str:
    """Return what an element in a line says."""
    found = {}
    for key, value in shared.attributes:  # type: ignore[attr-defined]
        if key != TYPE_KEY and value not in (None, "", 0):
            found["href" if key == "__url" else key.removeprefix("__")] = spelled(value)
    return _json(found)


def put_link(shared: XmlText, name: str, said: str) -> None:
    """Have a new element in a line say that."""
    shared.attributes[TYPE_KEY] = name
    for key, value in json.loads(said).items():
        shared.attributes["__url" if key == "href" else f"__{key}"] = value


def said_in(marks: Mapping[str, Any] | None) -> Properties:
    """Return *marks* without those that are None, which say that something has them not."""
    return {name: value for name, value in (marks or {}).items() if value is not None}


def _object(text: str) -> Properties:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}  # not of ours
    return found if isinstance(found, dict) else {}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)

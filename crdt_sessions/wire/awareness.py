"""The awareness payload: who is here, as (client id, clock, JSON state).

::

    awareness := varuint(n)  n x ( varuint(client id)  varuint(clock)  string(JSON) )

The state stays the JSON text it came as: the server passes it on byte for byte. ``null`` means "gone".
Source: y-protocols ``awareness.js``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from crdt_sessions.errors import BadText, TruncatedFrame
from crdt_sessions.wire.nesting import nests_deeper
from crdt_sessions.wire.varint import Reader, string, varuint

GONE = "null"
"""The JSON text of a state that says: this client left."""
MAX_DEPTH = 64
"""Levels of a state. Python reads a thousand where its stack is short, and less where somebody reads it again."""


@dataclass(frozen=True, slots=True)
class AwarenessEntry:
    """One client's state at one clock."""

    client_id: int
    clock: int
    state: str
    """JSON text as ``JSON.parse`` reads it; :data:`GONE` if the client left."""

    @property
    def gone(self) -> bool:
        """Whether this entry says that the client left."""
        return self.state == GONE


def decode_awareness(payload: bytes) -> list[AwarenessEntry]:
    """Return the entries of an awareness payload.

    Raises:
        WireError: the payload is truncated, too long, or a state is not JSON, or nested deeper than
            :data:`MAX_DEPTH` levels.
    """
    reader = Reader(payload)
    count = reader.varuint()
    if count > reader.remaining // 3:  # an entry is at least three bytes: refuse before building a list
        raise TruncatedFrame(wanted=count * 3, available=reader.remaining)
    entries = []
    for _ in range(count):
        entry = AwarenessEntry(reader.varuint(), reader.varuint(), _json_text(reader.string()))
        entries.append(entry)
    if reader.remaining:
        raise BadText(what=f"{reader.remaining} bytes after the last awareness entry")
    return entries


def encode_awareness(entries: Iterable[AwarenessEntry]) -> bytes:
    """Return the payload that carries *entries*."""
    parts = [varuint(entry.client_id) + varuint(entry.clock) + string(entry.state) for entry in entries]
    return varuint(len(parts)) + b"".join(parts)


def _json_text(text: str) -> str:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadText(what="an awareness state is not JSON") from error
    if nests_deeper(value, MAX_DEPTH):
        raise BadText(what=f"an awareness state is nested deeper than {MAX_DEPTH} levels")
    return GONE if value is None else text


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # Python reads NaN and Infinity, JSON.parse does not

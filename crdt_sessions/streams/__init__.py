"""Durable streams: what a request does to one. No I/O, no clock; the protocol is that of Electric's Durable Streams.

``changes`` decides about creating, appending, closing and deleting, from what a store has; ``offsets`` spells places
in a stream, ``framing`` what lies between the messages of a JSON stream, and ``cursors`` what keeps caches from
answering the same for ever. ``subscriptions`` says who is woken when something is new, with ``patterns`` of paths.
"""

from crdt_sessions.streams.changes import Append, Appended, Creation, append, create, delete, touch
from crdt_sessions.streams.cursors import next_cursor
from crdt_sessions.streams.framing import array, framed, is_json, media_type, sub_offset
from crdt_sessions.streams.offsets import MAX_INTEGER, NOW, START, integer, place, read_offset, spelled

__all__ = [
    "MAX_INTEGER",
    "NOW",
    "START",
    "Append",
    "Appended",
    "Creation",
    "append",
    "array",
    "create",
    "delete",
    "framed",
    "integer",
    "is_json",
    "media_type",
    "next_cursor",
    "place",
    "read_offset",
    "spelled",
    "sub_offset",
    "touch",
]

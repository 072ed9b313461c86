"""Names for the identifiers that travel through every layer, and the rule for session ids."""

from __future__ import annotations

import re
from typing import NewType

from crdt_sessions.errors import BadSessionId

SessionId = NewType("SessionId", str)
"""A session's name, as it stands in URLs. Made by :func:`session_id`."""

PeerId = NewType("PeerId", int)
"""One attached endpoint (a tab, a device, an agent). Unique within one live session."""

ClientId = NewType("ClientId", int)
"""A Yjs writer id: 53 bits, chosen at random by each replica."""

Seq = NewType("Seq", int)
"""Position of an update in its session's log; the first update is 1."""

Millis = NewType("Millis", int)
"""Milliseconds since the Unix epoch."""

SESSION_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._~:@-]{0,127}$"

_SESSION_ID = re.compile(SESSION_ID_PATTERN)


def session_id(text: str) -> SessionId:
    """Return *text* as a session id.

    A session id is 1 to 128 ASCII letters, digits and ``. _ ~ : @ -``, beginning with a letter or digit:
    what stands in a URL path without being encoded, so that y-websocket (which encodes nothing) and REST
    clients (which do) name the same session.

    Raises:
        BadSessionId: *text* is not of that form.
    """
    if _SESSION_ID.fullmatch(text) is None:
        raise BadSessionId(text=text)
    return SessionId(text)

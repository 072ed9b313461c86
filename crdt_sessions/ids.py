"""Names for the identifiers that travel through every layer, and the rule for session ids."""

from __future__ import annotations

import re
from typing import NewType

from crdt_sessions.errors import BadSessionId, BadTenant

SessionId = NewType("SessionId", str)
"""Names a session everywhere: its name, as it stands in URLs, behind ``<tenant>/`` if it belongs to one.

Made by :func:`session_id`. Names of different tenants have nothing to do with each other."""

PeerId = NewType("PeerId", int)
"""One attached endpoint (a tab, a device, an agent). Unique within one live session."""

ClientId = NewType("ClientId", int)
"""A Yjs writer id: 53 bits, chosen at random by each replica."""

Seq = NewType("Seq", int)
"""Position of an update in its session's log; the first update is 1."""

Millis = NewType("Millis", int)
"""Milliseconds since the Unix epoch."""

SESSION_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._~:@-]{0,127}$"

TENANT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_SESSION_ID, _TENANT = re.compile(SESSION_ID_PATTERN), re.compile(TENANT_PATTERN)


def session_id(text: str, tenant: str = "") -> SessionId:
    """Return the id of the session named *text*, of *tenant* if that is not empty.

    A session id is 1 to 128 ASCII letters, digits and ``. _ ~ : @ -``, beginning with a letter or digit:
    what stands in a URL path without being encoded, so that y-websocket (which encodes nothing) and REST
    clients (which do) name the same session.

    Raises:
        BadSessionId: *text* is not of that form.
        BadTenant: *tenant* is not of its form: 1 to 64 letters, digits and ``. _ -``.
    """
    if _SESSION_ID.fullmatch(text) is None:
        raise BadSessionId(text=text)
    if tenant and _TENANT.fullmatch(tenant) is None:
        raise BadTenant(text=tenant)
    return SessionId(f"{tenant}/{text}" if tenant else text)


def tenant_of(session: SessionId) -> str:
    """Return the tenant that a session belongs to; empty if to none."""
    return session.rpartition("/")[0]


def name_of(session: SessionId) -> str:
    """Return a session's name, as its tenant knows it."""
    return session.rpartition("/")[2]

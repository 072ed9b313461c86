"""Names for the identifiers that travel through every layer, and the rule for session ids."""

from __future__ import annotations

import re
import secrets
from typing import NewType
from urllib.parse import quote, unquote

from crdt_sessions.errors import BadSessionId, BadTenant

SessionId = NewType("SessionId", str)
"""Names a session everywhere: its name, encoded as in URLs, after ``<tenant>/`` if it belongs to one.

Made by :func:`session_id`. Names of different tenants have nothing to do with each other."""

PeerId = NewType("PeerId", int)
"""One attached endpoint (a tab, a device, an agent). Unique within one live session."""

ClientId = NewType("ClientId", int)
"""A Yjs writer id: 53 bits, chosen at random by each replica."""

Seq = NewType("Seq", int)
"""Position of an update in its session's log; the first update is 1."""

Millis = NewType("Millis", int)
"""Milliseconds since the Unix epoch."""

TENANT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_NAME = re.compile(r"[^\u0000-\u001F\u007F-\u009F\ud800-\udfff]{1,200}")
_TENANT = re.compile(TENANT_PATTERN)
_BARE = ":@"
"""What stands in an id as it is, besides letters, digits and ``_.-~``."""


def session_id(text: str, tenant: str = "") -> SessionId:
    """Return the id of the session named *text*, of *tenant* if that is not empty.

    A name is whatever clients make up: 1 to 200 characters, none of them a control character. It may not begin or
    end with a space, nor may ``.`` or ``..`` stand between slashes, since URLs cannot hold that. In the id it is
    percent-encoded as in a segment of a path (:data:`_BARE` is not), so that a name has one id, whichever door it
    comes in by, and ids appear unchanged in URLs, in logs and after a tenant.

    Raises:
        BadSessionId: *text* is not of that form.
        BadTenant: *tenant* is not of its form: 1 to 64 letters, digits and ``. _ -``.
    """
    if _NAME.fullmatch(text) is None or text != text.strip() or not {".", ".."}.isdisjoint(text.split("/")):
        raise BadSessionId(text=text)
    if tenant and _TENANT.fullmatch(tenant) is None:
        raise BadTenant(text=tenant)
    name = quote(text, safe=_BARE)
    return SessionId(f"{tenant}/{name}" if tenant else name)


def check_session_id(session: SessionId) -> None:
    """Return if :func:`session_id` made *session*, or might have: a name that was taken for an id is none.

    Raises:
        BadSessionId: it is none.
    """
    if session_id(name_of(session), tenant_of(session)) != session:
        raise BadSessionId(text=session, made=False)


def tenant_of(session: SessionId) -> str:
    """Return the tenant that a session belongs to; empty if to none."""
    return session.rpartition("/")[0]


def name_of(session: SessionId) -> str:
    """Return a session's name, as its tenant knows it."""
    return unquote(session.rpartition("/")[2])


def lineage_of(generation: int, created_at: int) -> str:
    """Return the lineage of a session that was created before each creation got a random one."""
    return f"{generation}-{created_at}"


def reference() -> str:
    """Return a new reference: people are shown it, and find with it in a log what they are not shown."""
    return secrets.token_hex(4)

"""The request that is being answered: who makes it, and which session it means."""

from __future__ import annotations

from quart import current_app, g

from crdt_sessions.ids import SessionId, session_id
from crdt_sessions_server.auth.admission import Door
from crdt_sessions_server.auth.principal import Principal
from crdt_sessions_server.auth.revalidation import LiveAccess, Visit


def current_door() -> Door:
    """Return the service's door."""
    door: Door = current_app.extensions["door"]
    return door


def live_access() -> LiveAccess:
    """Return what looks after accesses that last."""
    return current_door().live


def current_visit() -> Visit:
    """Return who makes the request, and how they were let in."""
    visit: Visit = g.visit
    return visit


def current_principal() -> Principal:
    """Return who makes the request."""
    return current_visit().principal


def asked_session(name: str) -> SessionId:
    """Return the session that the request names, which is one of its principal's tenant.

    Raises:
        BadSessionId: *name* is none.
    """
    return session_id(name, current_principal().tenant)

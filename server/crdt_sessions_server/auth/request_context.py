"""The request that is being answered: who makes it, and which session it means."""

from __future__ import annotations

from quart import current_app, g

from crdt_sessions.ids import SessionId, session_id
from crdt_sessions_server.auth.admission import Admission
from crdt_sessions_server.auth.principal import Principal
from crdt_sessions_server.auth.revalidation import Admitted, LiveAccess


def current_admission() -> Admission:
    """Return what admits principals to the service."""
    admission: Admission = current_app.extensions["admission"]
    return admission


def live_access() -> LiveAccess:
    """Return what looks after accesses that last."""
    return current_admission().live


def current_admitted() -> Admitted:
    """Return who makes the request, and how they were let in."""
    admitted: Admitted = g.admitted
    return admitted


def current_principal() -> Principal:
    """Return who makes the request."""
    return current_admitted().principal


def asked_session(name: str) -> SessionId:
    """Return the session that the request names, which is one of its principal's tenant.

    Raises:
        BadSessionId: *name* is none.
    """
    return session_id(name, current_principal().tenant)

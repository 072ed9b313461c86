"""Retention: sessions that nobody has changed for long are deleted for good, and streams whose time has come."""

from __future__ import annotations

import logging

from crdt_sessions.errors import CrdtSessionsError, HeldElsewhere, SessionNotFound
from crdt_sessions.ids import SessionId
from crdt_sessions.runtime import SessionRegistry

_log = logging.getLogger("crdt_sessions.expiry")
_EVERY_S = 3600.0
_SWEEP_S = 600.0
_DAY_MS = 24 * 3600 * 1000


async def expire(registry: SessionRegistry, days: float | None) -> None:
    """Delete sessions without a change for *days*, now and every hour, until cancelled; nothing if None."""
    while days is not None:
        try:
            await expire_once(registry, days)
        except CrdtSessionsError as error:  # the list of sessions cannot be read
            _log.error("old sessions are not deleted until the next look, in an hour: %s", error)
        await registry.clock.sleep(_EVERY_S)


async def expire_once(registry: SessionRegistry, days: float) -> list[SessionId]:
    """Delete the sessions that nobody has changed for *days*, and nobody uses; return which.

    Raises:
        StorageError: the list of sessions cannot be read.
    """
    before = registry.clock.now() - days * _DAY_MS
    gone: list[SessionId] = []
    async for record in registry.records():
        if record.updated_at >= before:
            continue
        try:
            if not await registry.expire(record.id, before):
                continue
        except (HeldElsewhere, SessionNotFound):  # the node that has it knows whether somebody uses it
            continue
        except CrdtSessionsError as error:
            _log.error("cannot be deleted: %s", error, extra={"session": record.id})
        else:
            registry.audit.note("session.expire", "retention", record.id)
            gone.append(record.id)
    return gone


async def sweep(registry: SessionRegistry) -> None:
    """Remove the durable streams whose time has come, now and every ten minutes, until cancelled."""
    while True:
        try:
            await registry.streams.sweep()
        except CrdtSessionsError as error:  # whoever asks for one of them is told that it is gone
            _log.error("expired streams are not removed: %s", error)
        await registry.clock.sleep(_SWEEP_S)

"""The audit log: who did what, when, to which session. Append-only; entries are stored soon, in the background.

Beside it, how often which rule was broken: an audit entry for each time would let an attacker fill the disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from crdt_sessions.clock import Clock
from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import StorageError
from crdt_sessions.ids import Millis, SessionId, name_of, tenant_of
from crdt_sessions.signals import Signal
from crdt_sessions.storage import AuditEntry, AuditRecords
from crdt_sessions.sync import Deed, Unreadable, Violation

_log = logging.getLogger("crdt_sessions.audit")
_MAX_WAITING = 10_000
_PAGE = 500
_GATHER_S = 0.05
_RETRY_S = 1.0
_SAME_MS = 10_000
"""How long the same violation by the same principal is only counted."""


class AuditLog:
    """Writes the audit log of a process.

    Args:
        store: where it is kept.
        clock: the only source of time.
    """

    def __init__(self, store: AuditRecords, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[AuditEntry] = []
        self._filled = Signal()
        self._storing = asyncio.Lock()
        self._last: dict[tuple[SessionId, str, str], Millis] = {}
        self.violations: Counter[tuple[str, str]] = Counter()
        """Tenant and rule to how often it was broken."""

    def note(
        self, action: str, principal: str, session: SessionId | None = None, *, tenant: str = "", **detail: Any
    ) -> None:
        """Have it stored soon. A crash within the next moments loses it; see :meth:`record`.

        Args:
            action: the action, such as ``session.join``.
            principal: who did it.
            session: to which session, if to one.
            tenant: whose principal it is, if it was done to no session.
            detail: more about it; JSON.
        """
        self._waiting.append(self._entry(action, principal, session, tenant, detail))
        self._bound()
        self._filled.notify_all()

    async def record(
        self, action: str, principal: str, session: SessionId | None = None, *, tenant: str = "", **detail: Any
    ) -> None:
        """Store it; return once it is durable.

        Raises:
            StorageError: it could not be stored.
        """
        self.note(action, principal, session, tenant=tenant, **detail)
        await self.flush()  # with what was noted before, in that order

    def heard(self, session: SessionId, effect: Violation | Deed | Unreadable) -> None:
        """Take what a session's engine tells of somebody, or of what somebody wrote."""
        if isinstance(effect, Unreadable):
            self.violations[tenant_of(session), "unreadable"] += 1
            _log.warning(
                "%s is not of layout 1, and nothing is made of it: %s",
                f"{effect.where}[{effect.id!r}]" if effect.id else effect.where,
                effect.why,
                extra={"session": session},
            )
        elif isinstance(effect, Deed):
            self.note(effect.action, effect.principal, session, **effect.detail)
        else:
            self._violated(session, effect.principal, effect.what)

    def _violated(self, session: SessionId, principal: str, what: str) -> None:
        """Count a forbidden write of a principal, and note it unless one was noted just now."""
        self.violations[tenant_of(session), what] += 1
        key, now = (session, principal, what), self._clock.now()
        if now - self._last.get(key, Millis(-_SAME_MS)) >= _SAME_MS:
            if len(self._last) > _MAX_WAITING:
                self._last.clear()
            self._last[key] = now
            self.note("violation", principal, session, what=what)

    async def run(self) -> None:
        """Store entries until cancelled."""
        while True:
            await self._filled.wait_for(lambda: bool(self._waiting))
            try:
                await self.flush()
                await asyncio.sleep(_GATHER_S)
            except StorageError as error:
                _log.error("the audit log cannot be written: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def flush(self) -> None:
        """Store the entries now.

        Raises:
            StorageError: it could not be stored; it is kept, as far as there is room, and tried again.
        """
        async with self._storing:
            entries, self._waiting = self._waiting, []
            if entries:
                await to_the_end(self._put(entries))  # they are those of others, too

    async def _put(self, entries: Sequence[AuditEntry]) -> None:
        try:
            await self._store.record(entries)
        except Exception:  # a defect, too, costs no entry
            self._waiting = [*entries, *self._waiting]
            self._bound()
            raise

    def _bound(self) -> None:
        """Drop the oldest entries if there are too many, because the disk is down or too slow."""
        if (lost := len(self._waiting) - _MAX_WAITING) > 0:
            _log.error("%d entries of the audit log are lost", lost)
            del self._waiting[:lost]

    async def entries(self, tenant: str, *, after: int = 0, **wanted: str | None) -> AsyncIterator[AuditEntry]:
        """Yield a tenant's entries after *after*, oldest first; *wanted* is as for :meth:`AuditRecords.audit`."""
        while page := await self._store.audit(tenant, after=after, limit=_PAGE, **wanted):
            for entry in page:
                yield entry
            after = page[-1].id

    def _entry(
        self, action: str, principal: str, session: SessionId | None, tenant: str, detail: dict[str, Any]
    ) -> AuditEntry:
        return AuditEntry(
            self._clock.now(),
            tenant_of(session) if session is not None else tenant,
            name_of(session) if session is not None else "",
            principal,
            action,
            json.dumps({key: value for key, value in detail.items() if value is not None}, ensure_ascii=False),
        )

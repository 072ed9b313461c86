"""Who hears of a session's runs without being connected to it: workers, webhooks for absent people, the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from crdt_sessions.ids import SessionId
from crdt_sessions.model import TERMINAL_STATUSES
from crdt_sessions.runtime.claimants import Claimants
from crdt_sessions.runtime.said import Said
from crdt_sessions.runtime.webhooks import Outbox
from crdt_sessions.storage import Delivery
from crdt_sessions.sync import Records, SessionEngine

_log = logging.getLogger("crdt_sessions.session")


class Notices:
    """Tells of what the steward of one session has decided.

    Args:
        session: its id.
        engine: knows who is here.
        said: knows who takes part.
        outbox: takes notices for people who are absent.
        claimants: the workers to whom ready runs are offered.
    """

    def __init__(
        self, session: SessionId, engine: SessionEngine, said: Said, outbox: Outbox, claimants: Claimants
    ) -> None:
        self._session = session
        self._engine = engine
        self._said = said
        self._outbox = outbox
        self._claimants = claimants

    def deliveries(self, records: Sequence[Records]) -> list[Delivery]:
        """Return what is to be stored for absent people, together with *records*."""
        if not self._outbox:
            return []
        notices = [notice for each in records for notice in each.notices]
        absent = self._absent() if notices else []
        told = [delivery for notice in notices for delivery in self._outbox.deliveries(self._session, notice, absent)]
        return told + self._outbox.pushes_of(self._session, self._engine, self._said, records)

    def announce(self, records: Sequence[Records]) -> None:
        """Tell workers and webhooks of what is durable now."""
        table = self._engine.runs.table
        ready = {run.agent for each in records for id, run in each.runs.items() if table.is_ready(id)}
        if ready:
            self._claimants.announce(self._session, ready)
        notices = [notice for each in records for notice in each.notices]
        for notice in notices:
            if notice.data["status"] in TERMINAL_STATUSES:
                facts = {name: notice.data[name] for name in ("run", "agent", "status", "reason")}
                _log.info("run ends", extra={"session": self._session, **facts})
        if notices:
            self._outbox.look()

    def _absent(self) -> list[str]:
        """Return the people who take part in the session and are not connected."""
        return sorted(self._said.people() - self._engine.roster.principals())

"""How a session's ready runs get to workers: each with a lease, which is stored together with the run."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

from crdt_sessions.clock import Clock
from crdt_sessions.errors import SessionClosed
from crdt_sessions.runtime.allowances import Allowances
from crdt_sessions.runtime.claimants import Assignment, Claimant, Claimants, Offered
from crdt_sessions.runtime.health import StoreHealth
from crdt_sessions.storage import SessionRecord
from crdt_sessions.sync import Effect, Records, SessionEngine

_log = logging.getLogger("crdt_sessions.session")
_TOKEN_BYTES = 24


class Assigning:
    """Assigns the runs of one session.

    Args:
        record: the session's entry in the store.
        engine: decides.
        clock: tells the time.
        claimants: the workers that wait.
        allowances: how much the session's runs may still use.
        health: whether the store takes writes.
    """

    def __init__(
        self,
        record: SessionRecord,
        engine: SessionEngine,
        clock: Clock,
        claimants: Claimants,
        allowances: Allowances,
        health: StoreHealth,
    ) -> None:
        self._record = record
        self._engine = engine
        self._clock = clock
        self._claimants = claimants
        self._allowances = allowances
        self._health = health
        self._offered: list[Offered] = []  # what is not stored yet

    def assign(self, run_id: str, claimant: Claimant) -> tuple[Assignment, list[Effect]]:
        """Give a run to a claimant; return it with its lease, and the effects.

        Raises:
            RunNotClaimable: it is not queued, not its turn yet, or not for this claimant.
            SessionClosed: the session takes no decisions.
        """
        token, now = secrets.token_urlsafe(_TOKEN_BYTES), self._clock.now()
        record, effects = self._engine.decide(lambda runs: claimant.claim(runs, run_id, token, now))
        return Assignment(self._record, record, token), effects

    def offer(self, run_id: str) -> list[Effect]:
        """Offer a ready run to those who wait, so that it and its lease are stored together; return the effects."""
        if self._health.error is not None or self._allowances.limited:
            return []  # workers find it in the store: later, or once it is known whether it may begin
        followed: list[Effect] = []

        def assign(claimant: Claimant) -> Assignment:
            assignment, effects = self.assign(run_id, claimant)
            followed.extend(effects)
            return assignment

        try:
            offered = self._claimants.offer(self._record.id, assign)
            if offered is not None:
                self._offered.append(offered)
        except SessionClosed as error:  # workers will find it in the store, if the session is opened again
            about = {"session": self._record.id, "run": run_id}
            _log.info("the run cannot be assigned yet: %s", error, extra=about)
        return followed

    def stored(self, records: Sequence[Records]) -> None:
        """Tell the workers whose runs are on disk with these records."""
        epochs = {run.id: run.epoch for each in records for run in each.runs.values()} if self._offered else {}
        for offered in list(self._offered):
            run = offered.assignment.run
            if epochs.get(run.id, -1) >= run.epoch:
                self._offered.remove(offered)
                offered.hand_over(stored=True)

    def end(self) -> None:
        """Have the workers look again whose runs will not be stored."""
        offered, self._offered = self._offered, []
        for each in offered:
            each.hand_over(stored=False)

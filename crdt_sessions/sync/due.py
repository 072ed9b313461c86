"""Takes pending updates once what they need has arrived, and asks for what is missing.

What waits is in :mod:`crdt_sessions.sync.waiting`; here is what becomes of it.
"""

from __future__ import annotations

from dataclasses import replace

from crdt_sessions.errors import (
    AccessDenied,
    CrdtSessionsError,
    LeaseLost,
    Overloaded,
    PanickedUpdate,
    StorageError,
    TooLarge,
    TooMany,
    UpdateError,
    WrongLineage,
)
from crdt_sessions.ids import Millis, PeerId, Seq
from crdt_sessions.limits import Timing
from crdt_sessions.model import Later
from crdt_sessions.sync.actor import Actor
from crdt_sessions.sync.admission import Admission, Due
from crdt_sessions.sync.attached import Attached, first_violation, violations
from crdt_sessions.sync.events import Effect, Reload
from crdt_sessions.sync.log import UpdateLog
from crdt_sessions.sync.merge import Merger, Vouched
from crdt_sessions.sync.peers import REMIND_MS
from crdt_sessions.sync.runs import RunSteward
from crdt_sessions.sync.verdicts import Doubt, Judged, Verdicts
from crdt_sessions.sync.waiting import WaitingUpdate, WaitingUpdates
from crdt_sessions.wire import PermissionDenied

_TRIED_MS = 10_000
"""An update whose trial had no outcome for so long is tried again."""


class DueUpdates:
    """What becomes of one session's pending updates.

    Args:
        waiting: the pending updates.
        log: what was written.
        merger: moves the document.
        verdicts: tells which of them may be taken.
        admission: has each take its turn.
        attached: the connections, which are asked for what is missing.
        runs: knows the leases.
        timing: periods.
    """

    def __init__(
        self,
        waiting: WaitingUpdates,
        log: UpdateLog,
        merger: Merger,
        verdicts: Verdicts,
        admission: Admission,
        attached: Attached,
        runs: RunSteward,
        timing: Timing,
    ) -> None:
        self.waiting = waiting
        self._log = log
        self._merger = merger
        self._verdicts = verdicts
        self._admission = admission
        self._attached = attached
        self._runs = runs
        self._timing = timing
        self._looked: Seq | None = None  # the log's last entry when the pending updates were last looked at

    def keep(self, later: Later, author: PeerId, actor: Actor, now: Millis) -> list[Effect]:
        """Keep an update that must wait, and ask its author for what it needs."""
        self._looked = None  # it may be there by now
        return self._attached.ask(author, now) if self.waiting.add(later, author, actor) else []

    def look(self, now: Millis) -> list[Effect]:
        """Queue the waiting updates that can be taken now, and forget those that came by another way."""
        if not self.waiting.clients or self._looked == self._log.head:
            return []
        self._looked = self._log.head
        due, done = self.waiting.ready(self._merger.clocks(), now)
        for each in due:
            self._admission.due(each.number)
        return [effect for each in done for effect in self._attached.release(each.author)]

    def watch(self, now: Millis) -> list[Effect]:
        """Repeat trials without an outcome, ask again for what is missing, forget what is too old."""
        self.waiting.expire(Millis(now - int(self._timing.waiting_s * 1000)))
        effects = self.look(now)
        for each in self.waiting.overdue(Millis(now - _TRIED_MS)) if self._verdicts.writable else ():
            each.tried = now
            self._admission.due(each.number)
        for author in list(self.waiting.authors):
            peer = self._attached.peers.get(author)
            if peer is not None and (not peer.answered or now - peer.asked_at >= REMIND_MS):
                effects += self._attached.ask(author, now)
        return effects

    def take(self, due: Due, now: Millis, judged: Judged | None) -> list[Effect]:
        """Take a waiting update that is due, with its author's present rights."""
        waiting = self.waiting.get(due.number)
        if waiting is None:
            return []
        try:
            verdict = self._verdicts.vouch(waiting.later.update, judged)
            if not self._verdicts.writable or self._admission.outage is not None:
                return []  # it is tried again, in a while
            if verdict is None:
                return self._verdicts.wait(due, Doubt(waiting.later.update, apply=True), now)
            return self._take_due_one(waiting, verdict, now)
        except (StorageError, Overloaded):
            return []  # so is that
        except (UpdateError, WrongLineage) as error:
            self.waiting.take(waiting.number)
            return self._went_on(waiting, self._blame(waiting, error, now), now)

    def _take_due_one(self, waiting: WaitingUpdate, verdict: Vouched, now: Millis) -> list[Effect]:
        self.waiting.take(waiting.number)
        peer = self._attached.peers.get(waiting.author) if waiting.author is not None else None
        try:
            effects = self._merge_waiting(waiting, verdict, peer.actor if peer is not None else waiting.actor, now)
        except (UpdateError, WrongLineage, TooLarge, TooMany, AccessDenied, LeaseLost) as error:
            effects = self._blame(waiting, error, now)
        return self._went_on(waiting, effects, now)

    def _went_on(self, waiting: WaitingUpdate, effects: list[Effect], now: Millis) -> list[Effect]:
        self._looked = None
        return [*effects, *self._attached.release(waiting.author), *self.look(now)]

    def _merge_waiting(
        self, waiting: WaitingUpdate, verdict: Vouched, actor: Actor | None, now: Millis
    ) -> list[Effect]:
        """Take as much of it as possible, and put the rest back.

        Raises:
            UpdateError, AccessDenied, LeaseLost, TooLarge: it is not taken.
        """
        if actor is not None and not actor.rights.write:
            raise AccessDenied(what="this connection is read-only")
        if actor is not None and actor.lease is not None and not self._runs.table.holds(*actor.lease):
            raise LeaseLost(run=actor.lease[0])
        effects, later = self._merger.merge(waiting.later.update, verdict, waiting.author, actor, now)
        if later is not None:
            self.waiting.put(replace(waiting, later=later))
        return effects

    def _blame(self, waiting: WaitingUpdate, error: CrdtSessionsError, now: Millis) -> list[Effect]:
        """Tell the connection that sent a waiting update which was refused, or close it, if it is still there."""
        peer = self._attached.peers.get(waiting.author) if waiting.author is not None else None
        if waiting.author is not None and peer is not None:
            if isinstance(error, AccessDenied) and peer.actor.lease is None:
                peer.refuse_held(waiting.number, PermissionDenied(str(error)))
                return first_violation(peer, error)
            return self._attached.close(waiting.author, peer, error, now)
        effects: list[Effect] = [Reload(error)] if isinstance(error, PanickedUpdate) else []
        return effects if waiting.actor is None else [*effects, *violations(waiting.actor, error)]

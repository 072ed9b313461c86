"""Updates that did not come in a peer's message: each takes its turn, and whoever brought it is answered."""

from __future__ import annotations

from crdt_sessions.errors import CrdtSessionsError, EarlyUpdate, PanickedUpdate
from crdt_sessions.ids import Millis
from crdt_sessions.sync.admission import Admission, Request
from crdt_sessions.sync.attached import violations
from crdt_sessions.sync.due import DueUpdates
from crdt_sessions.sync.events import Answered, Effect, Reload, UpdateBrought
from crdt_sessions.sync.merge import Merger
from crdt_sessions.sync.verdicts import Doubt, Judged, Verdicts


class BroughtUpdates:
    """Takes the updates that callers bring to one session, or compares them with what it holds.

    Args:
        admission: has each take its turn; knows whether the store takes writes.
        verdicts: tells which updates may be taken.
        merger: moves the document.
        due: looks which pending updates can be taken then.
    """

    def __init__(self, admission: Admission, verdicts: Verdicts, merger: Merger, due: DueUpdates) -> None:
        self._admission = admission
        self._verdicts = verdicts
        self._merger = merger
        self._due = due

    def receive(self, brought: UpdateBrought) -> None:
        """Have an update wait for its turn."""
        request = Request(brought.call, brought.update, brought.actor, brought.foreign, brought.compare)
        self._admission.ask(request)

    def take(self, request: Request, now: Millis, judged: Judged | None) -> list[Effect]:
        """Take an update whose turn it is, and answer the caller, unless it must be tried first."""
        update = request.update
        writes = request.actor is None or request.actor.rights.write
        try:
            verdict = self._verdicts.vouch(update, judged)
            if verdict is None:
                can_write = writes and self._verdicts.writable and self._admission.outage is None
                return self._verdicts.wait(request, Doubt(update, apply=can_write and not request.compare), now)
            if request.compare:
                return [Answered(request.call, held=self._merger.holds(update, verdict))]
            merges = self._verdicts.may_merge(update, verdict, judged, writes=writes)
            if isinstance(merges, Doubt):
                if merges.unstorable and self._admission.outage is not None:
                    raise self._admission.outage
                return self._verdicts.wait(request, merges, now)
            if not merges:
                return [Answered(request.call, held=True)]
            effects, later = self._merger.merge(update, verdict, None, request.actor, now, foreign=request.foreign)
        except CrdtSessionsError as error:
            return _refused(request, error)
        early = EarlyUpdate(size=len(later.update)) if later is not None else None
        return [*effects, *self._due.look(now), Answered(request.call, early)]


def _refused(request: Request, error: CrdtSessionsError) -> list[Effect]:
    answer: list[Effect] = [Answered(request.call, error)]
    if request.actor is not None:
        answer += violations(request.actor, error)
    return [*answer, Reload(error)] if isinstance(error, PanickedUpdate) else answer

"""Whether an update may be taken now: because of its shape, because of its trial, or not yet.

An update that nobody can vouch for becomes the effect :class:`~crdt_sessions.sync.events.Try`, and the work that
brought it waits in :mod:`crdt_sessions.sync.admission`.
"""

from __future__ import annotations

from typing import NamedTuple

from crdt_sessions.errors import AccessDenied, SessionClosed
from crdt_sessions.ids import Millis
from crdt_sessions.sync.admission import Admission, Message, Request, Work
from crdt_sessions.sync.events import Effect, Harmless, Refused, Try, Verdict
from crdt_sessions.sync.merge import Merger, Vouched
from crdt_sessions.sync.steward import Steward


class Judged(NamedTuple):
    """The outcome of a trial."""

    verdict: Verdict
    applied: bool
    """Whether the mirror took the update; else it was only compared."""


class Doubt(NamedTuple):
    """Why the rest of a message must wait."""

    update: bytes
    apply: bool
    """Whether the update will be taken; else it is only compared."""
    unstorable: bool = False
    """Whether it waits for the store, and not for a trial."""


class Verdicts:
    """Tells of one session's updates whether they may be taken.

    Args:
        session: the session's id, for errors.
        merger: knows the document.
        admission: holds what must wait; knows whether the store takes writes.
        steward: knows whether the session takes writes.
    """

    def __init__(self, session: str, merger: Merger, admission: Admission, steward: Steward) -> None:
        self._session = session
        self._merger = merger
        self._admission = admission
        self._steward = steward

    @property
    def writable(self) -> bool:
        """Whether the session takes writes."""
        return bool(self._steward.recorded("status") == "active")

    def vouch(self, update: bytes, judged: Judged | None) -> Vouched | None:
        """Return why *update* may be applied; None if it must be tried first.

        Raises:
            UpdateError, WrongLineage, StorageError, Overloaded: it was tried, and may not.
        """
        if judged is not None:
            if isinstance(judged.verdict, Refused):
                raise judged.verdict.error
            return judged.verdict
        return self._merger.passes(update)

    def may_merge(self, update: bytes, verdict: Vouched, judged: Judged | None, *, writes: bool) -> bool | Doubt:
        """Return True to take an update, False if the document has it, or the reason why it must wait.

        Raises:
            StorageError: the store has failed while it was tried: nothing is taken that is not kept.
            AccessDenied, SessionClosed: it is news, and may not be taken.
        """
        outage = self._admission.outage
        if writes and self.writable and outage is None:
            if not isinstance(verdict, Harmless) or judged is None or judged.applied:
                return True
            return False if verdict.held else Doubt(update, apply=True)  # what was compared is no delta
        if self._merger.holds(update, verdict):
            return False
        if not writes:
            raise AccessDenied(what="this connection is read-only")
        if not self.writable:
            raise SessionClosed(session=self._session)
        if outage is not None and judged is not None and judged.applied:
            raise outage
        return Doubt(update, apply=False, unstorable=True)

    def wait(self, work: Work, doubt: Doubt, now: Millis) -> list[Effect]:
        """Let *work* wait until its update was tried, or can be stored."""
        if doubt.unstorable and isinstance(work, Message):
            self._admission.set_aside(work, now)
            return []
        foreign = isinstance(work, Request) and work.foreign
        trial = self._admission.begin(work, doubt.update, apply=doubt.apply)
        return [Try(trial, doubt.update, doubt.apply, foreign)]

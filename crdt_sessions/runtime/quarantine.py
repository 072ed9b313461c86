"""Sessions that are left alone for a while: something of them is damaged, or a defect ends them again and again."""

from __future__ import annotations

import logging

from crdt_sessions.clock import Clock
from crdt_sessions.errors import CrdtSessionsError, DamagedDatabase, DamagedLog, SessionFailed
from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.runtime.recent import Recent

_log = logging.getLogger("crdt_sessions.registry")

_QUARANTINE_MS = 30_000
"""How long a session that cannot be loaded is left alone, though its runs are due or somebody wants to join it."""
_DEFECTS = 4
"""A session that defects of ours ended so often within that time is left alone, too."""
MOST_KNOWN = 1000
"""Of how many sessions something is remembered."""
MOST_UNWELL = 10_000
"""Sessions that cannot be looked after and are remembered; beyond these, the first are tried again earlier."""


class Quarantine:
    """Remembers which sessions not to load.

    Args:
        clock: the only source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: Recent[SessionId, tuple[Millis, CrdtSessionsError]] = Recent(MOST_KNOWN)
        self._defects: Recent[SessionId, list[Millis]] = Recent(MOST_KNOWN)
        self._unwell: Recent[SessionId, Millis] = Recent(MOST_UNWELL)

    @property
    def held(self) -> dict[SessionId, CrdtSessionsError]:
        """The sessions that could not be loaded lately because something of them is damaged, and why."""
        return {session_id: error for session_id, (_, error) in self._held.items()}

    def check(self, session_id: SessionId) -> None:
        """Return if a session may be loaded. Raises what prevented it the last time, if that was a moment ago."""
        until, error = self._held.get(session_id, (Millis(0), None))
        if error is not None and until > self._clock.now():
            raise error

    def hold(self, session_id: SessionId, error: CrdtSessionsError) -> None:
        """Leave a session alone for a while."""
        _log.error("in quarantine: %s", error, extra={"session": session_id})
        self._held.remember(session_id, (self._later(), error))

    def release(self, session_id: SessionId) -> None:
        """Note that a session was loaded, or that there is none any more."""
        self._held.pop(session_id, None)

    def note_end(self, session_id: SessionId, error: CrdtSessionsError) -> None:
        """Note that *error* ended a session, and leave it alone if it would end again."""
        if isinstance(error, DamagedLog | DamagedDatabase) or self._fails_often(session_id, error):
            self.hold(session_id, error)

    def _fails_often(self, session_id: SessionId, error: CrdtSessionsError) -> bool:
        """Note that a defect ended a session; tell whether it happens again and again, whatever is left alone."""
        if not isinstance(error, SessionFailed):
            return False
        now = self._clock.now()
        recent = [at for at in self._defects.pop(session_id, ()) if at > now - _QUARANTINE_MS]
        if len(recent) + 1 < _DEFECTS:
            self._defects.remember(session_id, [*recent, now])
            return False
        return True

    # -- sessions whose runs are due -------------------------------------------------------------------------------

    def may_wake(self, session_id: SessionId) -> bool:
        """Whether a session whose runs are due may be tried: it could be looked after, or that is a while ago."""
        return self._unwell.get(session_id, 0) <= self._clock.now()

    def note_unwell(self, session_id: SessionId) -> None:
        """Note that a session could not be looked after."""
        self._unwell.remember(session_id, self._later())

    def note_well(self, session_id: SessionId) -> None:
        """Note that a session could be looked after."""
        self._unwell.pop(session_id, None)

    def _later(self) -> Millis:
        return Millis(self._clock.now() + _QUARANTINE_MS)

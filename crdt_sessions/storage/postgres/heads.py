"""Where the logs end that this node owns: as a lane knows it, and as the table ``sessions`` says a moment later."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from crdt_sessions.errors import Regressed
from crdt_sessions.ids import Millis, SessionId

_log = logging.getLogger("crdt_sessions.storage")
_MOST_KNOWN = 10_000
"""Sessions of which is remembered where their logs end."""


@dataclass(slots=True)
class Head:
    """Where the log of a session ends that this node owns."""

    sid: int
    seq: int


class Heads:
    """The ends of logs that one lane writes.

    What is known holds for as long as the lane's connection does: another server may take over that has less.
    """

    def __init__(self) -> None:
        self._known: dict[SessionId, Head] = {}
        self._acknowledged: dict[SessionId, int] = {}  # what they were before the connection was lost
        self._behind: dict[SessionId, tuple[int, int, Millis]] = {}

    def __getitem__(self, session: SessionId) -> Head:
        return self._known[session]

    def get(self, session: SessionId) -> Head | None:
        """Return where a log ends, if that is known."""
        return self._known.get(session)

    def lag(self, session: SessionId | None = None) -> bool:
        """Tell whether ``sessions`` does not say yet where a log ends, or any."""
        return bool(self._behind) if session is None else session in self._behind

    def read(self, session: SessionId, head: Head) -> Head:
        """Take note of where a log ends, as the database says.

        Raises:
            Regressed: it had more once, and said that it was durable; until that is :meth:`accepted`.
        """
        acknowledged = self._acknowledged.get(session, 0)
        if head.seq < acknowledged:
            raise Regressed(session=session, acknowledged=acknowledged, found=head.seq)
        self._acknowledged.pop(session, None)
        if len(self._known) > _MOST_KNOWN:
            self._known = {each: known for each, known in self._known.items() if each in self._behind}
        self._known[session] = head
        return head

    def accepted(self, session: SessionId, error: Regressed) -> None:
        """Take note that somebody is told *error*: what is done next goes on from what there is."""
        if self._acknowledged.pop(session, None) is not None:
            _log.error("%s", error, extra={"session": session})

    def appended(self, session: SessionId, head: Head, last: int, now: Millis) -> None:
        """Take note that rows up to *last* are durable since *now*, which ``sessions`` does not say yet."""
        head.seq = last
        self._known[session] = head
        self._acknowledged.pop(session, None)
        self._behind[session] = (head.sid, head.seq, now)

    def behind(self) -> dict[SessionId, tuple[int, int, Millis]]:
        """Return what ``sessions`` does not say yet, for the caller to write it."""
        return dict(self._behind)

    def told(self, behind: dict[SessionId, tuple[int, int, Millis]]) -> None:
        """Take note that ``sessions`` says this; what has come since is newer."""
        self._behind = {session: head for session, head in self._behind.items() if behind.get(session) != head}

    def forget(self, session: SessionId) -> None:
        """Forget where a log ends: the session is gone."""
        known: dict[SessionId, Any]
        for known in (self._known, self._behind, self._acknowledged):
            known.pop(session, None)

    # -- the connection ------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Trust what is known no longer, but remember what was acknowledged: the connection is lost."""
        self._acknowledged.update((session, head.seq) for session, head in self._known.items())
        self._known = {}

    def drop_behind(self) -> None:
        """Have ``sessions`` told nothing of what went before: the server has lost commits."""
        self._behind = {}

    def clear(self) -> None:
        """Begin anew: the process has become another node, which owns nothing yet."""
        self._known, self._acknowledged, self._behind = {}, {}, {}

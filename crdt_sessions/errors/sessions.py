"""Errors of sessions: there or not, of another life, closed, or stopping."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError, session_name


class _SessionError(CrdtSessionsError):
    sentence = ""

    def __init__(self, *, session: str) -> None:
        self.session = session_name(session)
        super().__init__(self.sentence.format(session=self.session))


class SessionNotFound(_SessionError):
    """There is no session of that name."""

    sentence = "there is no session {session!r}"


class SessionDeleted(SessionNotFound):
    """The session existed and was deleted; it does not come back by itself."""

    sentence = "session {session!r} was deleted"


class SessionExists(_SessionError):
    """A session of that name exists already."""

    sentence = "session {session!r} exists already"


class SessionClosed(_SessionError):
    """The session takes no more writes."""

    sentence = "session {session!r} is closed; reopen it to write"


class WrongGeneration(CrdtSessionsError):
    """The client's history belongs to an earlier session of that name; merging would duplicate content."""

    def __init__(self, *, session: str, theirs: int, ours: int) -> None:
        self.session = session_name(session)
        super().__init__(f"session {self.session!r} is generation {ours}, not {theirs}; discard the local copy")
        self.theirs = theirs
        self.ours = ours


class WrongLineage(CrdtSessionsError):
    """The client's history belongs to another session of that name; merging would mix two conversations."""

    def __init__(self, *, session: str, theirs: str, ours: str) -> None:
        self.session = session_name(session)
        super().__init__("this copy is of another session of that name; discard it and join anew")
        self.theirs = theirs
        self.ours = ours


class RunsActive(CrdtSessionsError):
    """Agents are writing in the session, and this change would break their work."""

    def __init__(self, *, runs: list[str]) -> None:
        super().__init__(f"runs are active: {', '.join(runs[:5])}; cancel them, or wait for their end")
        self.runs = runs


class ShuttingDown(CrdtSessionsError):
    """The process is about to stop; come back in a moment."""

    def __init__(self) -> None:
        super().__init__("the server restarts")

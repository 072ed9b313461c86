"""Errors of several nodes on one database."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError, session_name
from crdt_sessions.errors.storage import StorageError


class Fenced(StorageError):
    """Other nodes counted this one as gone, and it commits nothing any more: they may own its sessions by now.

    Args:
        node: the id it had; None if that is not known.
    """

    def __init__(self, *, node: int | None = None) -> None:
        super().__init__("this node was counted as gone, and others may serve its sessions now; come back")
        self.node = node


class Regressed(StorageError):
    """The database has less of a session than it had acknowledged, as after a failover that was not synchronous.

    Args:
        session: whose rows they are.
        acknowledged: the last row that was acknowledged.
        found: the last row there is.
    """

    def __init__(self, *, session: str, acknowledged: int, found: int) -> None:
        self.session = session_name(session)
        super().__init__(
            f"session {self.session!r} ends with row {found} in the database, which had acknowledged row"
            f" {acknowledged}; it goes on from there, and peers bring back what they have"
        )
        self.acknowledged = acknowledged
        self.found = found


class HeldElsewhere(StorageError):
    """Another node serves the session.

    Args:
        session: which.
        node: the other one.
    """

    def __init__(self, *, session: str, node: int) -> None:
        self.session = session_name(session)
        super().__init__(f"session {self.session!r} is served by another node; come back")
        self.node = node


class NodeUnreachable(CrdtSessionsError):
    """Another node does not answer, or another process has its address.

    Args:
        node: which.
        why: what happened.
        refused: whether nobody listens at its address, or somebody else.
    """

    def __init__(self, *, node: int, why: str, refused: bool = False) -> None:
        super().__init__(f"the node that serves this does not answer ({why}); come back")
        self.node = node
        self.why = why
        self.refused = refused


class NodeRefused(CrdtSessionsError):
    """Another node answers with an error what it was asked.

    Args:
        node: which.
        error: what its error is called here.
        detail: what it says.
    """

    def __init__(self, *, node: int, error: str, detail: str) -> None:
        super().__init__(f"another node answered: {detail}")
        self.node = node
        self.error = error
        self.detail = detail

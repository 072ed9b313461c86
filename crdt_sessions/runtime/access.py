"""What a connection may do, for as long as it lasts."""

from __future__ import annotations

from collections.abc import Callable

from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.sync import ALL, Rights

ANONYMOUS = "anonymous"
"""The principal of connections of which nothing is known."""


class Access:
    """A principal's access to a session. Whoever granted it may change it or end it meanwhile.

    Args:
        principal: whose it is.
        rights: what the principal may write.
        creates: whether joining a session that never existed may create it.
    """

    def __init__(self, principal: str = ANONYMOUS, rights: Rights = ALL, *, creates: bool = True) -> None:
        self.principal = principal
        self.rights = rights
        self.creates = creates and rights.write
        self.ended: CrdtSessionsError | None = None
        """The reason why nothing more is sent, if so."""
        self.on_rights: Callable[[Rights], None] | None = None
        """Told of changes, too: where a client has to hear of them."""
        self._on_change: Callable[[Rights], None] | None = None
        self._on_end: Callable[[CrdtSessionsError], None] | None = None

    def watch(self, on_change: Callable[[Rights], None], on_end: Callable[[CrdtSessionsError], None]) -> None:
        """Tell the server of the connection of changes; at once if the access has ended already."""
        self._on_change, self._on_end = on_change, on_end
        if self.ended is not None:
            on_end(self.ended)

    def change(self, rights: Rights) -> None:
        """Let the principal do other things from now on."""
        if rights != self.rights:
            self.rights = rights
            if self._on_change is not None:
                self._on_change(rights)
            if self.on_rights is not None:
                self.on_rights(rights)

    def end(self, why: CrdtSessionsError) -> None:
        """Take the access away; *why* is how its connections are closed. Once."""
        if self.ended is None:
            self.ended = why
            if self._on_end is not None:
                self._on_end(why)

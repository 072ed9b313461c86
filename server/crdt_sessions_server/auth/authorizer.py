"""``Authorizer``, the seam for knowledge of tokens; and two simple ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from crdt_sessions.errors import NotAuthenticated
from crdt_sessions_server.auth.principal import Principal
from crdt_sessions_server.roles import Role


class Authorizer(Protocol):
    """Tells the principal of a token. Called before anything else is done for a request.

    What is common to all (revoked tokens, expiry, names of sessions, members' roles) is not its business.
    """

    async def authorize(self, token: str | None, session: str | None) -> Principal:
        """Return the principal of *token*.

        Args:
            token: as presented; None if there was none.
            session: the name of the session asked for; None for requests about all sessions.

        Raises:
            NotAuthenticated: nobody knows the token.
            AccessDenied: this principal may not use that session.
        """
        ...

    def revision(self) -> int:
        """Return a number that differs once answers given before may not hold any more.

        It is asked several times a second; connections are then authorized anew.
        """
        ...


class Open:
    """Lets everybody in. The service then listens on loopback only."""

    async def authorize(self, token: str | None, session: str | None) -> Principal:
        """See :meth:`Authorizer.authorize`."""
        return Principal("anonymous", role=Role.SERVICE, anonymous=True)

    def revision(self) -> int:
        """See :meth:`Authorizer.revision`."""
        return 0


class Chain:
    """Asks several authorizers, one after the other.

    Args:
        authorizers: the first one that knows a token is taken at its word.
    """

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self._authorizers = authorizers

    async def authorize(self, token: str | None, session: str | None) -> Principal:
        """See :meth:`Authorizer.authorize`."""
        refusal = NotAuthenticated()
        for authorizer in self._authorizers:
            try:
                return await authorizer.authorize(token, session)
            except NotAuthenticated as error:
                refusal = error
        raise refusal

    def revision(self) -> int:
        """See :meth:`Authorizer.revision`."""
        return sum(authorizer.revision() for authorizer in self._authorizers)

"""Who may do what, as far as it is kept: roles in sessions, and revocations of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from crdt_sessions.ids import Millis, SessionId


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens that are not good any more."""

    tenant: str
    kind: Literal["token", "principal"]
    value: str
    """The token's id; or the principal, whose tokens made before *at* are meant."""
    at: Millis


@dataclass(frozen=True, slots=True)
class AccessChanges:
    """What has changed in who may do what, whichever process changed it."""

    mark: int
    """Where to go on from."""
    members: Sequence[tuple[SessionId, str]] = ()
    """Sessions and principals whose role there has changed."""
    revocations: Sequence[Revocation] = ()


class AccessRecords(Protocol):
    """Who may do what: roles in sessions, and tokens that are not good any more."""

    async def members(self, session: SessionId) -> Mapping[str, str]:
        """Return the roles that principals have in a session, where they differ from what their tokens say."""
        ...

    async def set_member(self, session: SessionId, principal: str, role: str | None) -> None:
        """Give a principal a role in a session, or none of its own.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...

    async def revoke(self, revocation: Revocation) -> None:
        """Put a revocation on record; a later one of the same thing replaces it."""
        ...

    async def revocations(self) -> Sequence[Revocation]:
        """Return all that are on record."""
        ...

    async def access_changes(self, after: int | None) -> AccessChanges:
        """Return what other processes, and this one, have changed since the mark *after*; only a mark if it is None.

        A change may be told twice; who goes on from the last mark misses none, for a day. A store that is not
        :attr:`UpdateStore.shared` has none to tell.
        """
        return AccessChanges(0)

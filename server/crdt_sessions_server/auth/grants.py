"""Grants: everything between a token and what its principal may do right now."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from crdt_sessions.clock import Clock
from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import AccessDenied, NotAuthenticated, StorageError, TokenExpired
from crdt_sessions.ids import SessionId, name_of, session_id, tenant_of
from crdt_sessions.model.strings import NOT_AN_ID, is_id
from crdt_sessions.storage import AccessRecords, Revocation
from crdt_sessions_server.auth.authorizer import Authorizer
from crdt_sessions_server.auth.permissions import Permission
from crdt_sessions_server.auth.principal import Principal
from crdt_sessions_server.roles import Role

_log = logging.getLogger("crdt_sessions.access")
_SESSIONS_KEPT = 10_000
_HEAR_EVERY_S = 0.5
_TOLD_FOR_MS = 12 * 3600 * 1000
"""Who has not asked for so long reads everything anew; the store tells of changes for longer than that."""


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody may do has changed; None stands for all there are."""

    tenant: str
    principal: str | None = None
    session: str | None = None
    token_id: str | None = None

    def concerns(self, principal: Principal, session: str | None) -> bool:
        """Whether it may concern a principal in a session."""
        return (
            principal.tenant == self.tenant
            and self.principal in (None, principal.id)
            and self.session in (None, session)
            and self.token_id in (None, principal.token_id)
        )


class Grants:
    """Lets principals in: who a token stands for, unless it is revoked or has expired, and with which role where.

    What it remembers of members and revocations is what holds. Where other processes share the store, it hears of
    their changes within a second (:meth:`follow`).

    Args:
        authorizer: knows tokens.
        store: knows members and revocations.
        clock: the only source of time.
    """

    def __init__(self, authorizer: Authorizer, store: AccessRecords, clock: Clock) -> None:
        self.authorizer = authorizer
        self.on_change: Callable[[Change], None] = lambda _: None
        """Told of every change, at once."""
        self._store = store
        self._clock = clock
        self._revoked: dict[tuple[str, str, str], int] = {}
        self._members: OrderedDict[SessionId, Mapping[str, str]] = OrderedDict()
        self._version = 0
        self._revision = authorizer.revision()
        self._mark = 0
        self._heard_at = clock.now()
        self._missed = False

    async def start(self) -> None:
        """Read the revocations on record."""
        self._mark, self._heard_at = (await self._store.access_changes(None)).mark, self._clock.now()
        for each in await self._store.revocations():
            self._revoked[each.tenant, each.kind, each.value] = each.at

    async def follow(self) -> None:
        """Hear what other processes change, until cancelled."""
        while True:
            await self._clock.sleep(_HEAR_EVERY_S)
            try:
                await self.hear()
            except StorageError as error:
                _log.error("changes of rights cannot be read: %s", error)

    async def hear(self) -> None:
        """Hear what other processes have changed since the last time; connections feel it at once.

        Raises:
            StorageError: the store cannot be read.
        """
        if self._clock.now() - self._heard_at > _TOLD_FOR_MS:
            await self.start()
            self._members.clear()
            self._version += 1
            self._missed = True
            return
        found = await self._store.access_changes(self._mark)
        self._mark, self._heard_at = found.mark, self._clock.now()
        for session, principal in found.members:
            self._member_changed(session, principal)
        for each in found.revocations:
            if self._revoked.get((each.tenant, each.kind, each.value)) != each.at:
                self._revocation_made(each)

    @property
    def state(self) -> int:
        """A number that differs once an answer given before may not hold any more."""
        return self._version + self._revision

    def refresh(self) -> bool:
        """Tell whether answers that were given, to whomever, may not hold any more, as the authorizer says.

        Asked several times a second and not for each request, since an authorizer may look at a file for that.
        """
        before, self._revision = self._revision, self.authorizer.revision()
        missed, self._missed = self._missed, False
        return self._revision != before or missed

    async def authorize(self, token: str | None, session: str | None, needs: Permission | None = None) -> Principal:
        """Return whom a token stands for, with the role that counts in a session.

        Args:
            token: as presented.
            session: the session's name; None for what is done to no session, or to all.
            needs: what they must be allowed to do.

        Raises:
            NotAuthenticated: nobody knows the token, or it is revoked or has expired.
            AccessDenied: they may not use that session, or not do that.
            BadSessionId: *session* is not a name.
        """
        principal = await self.authorizer.authorize(token, session)
        if not is_id(principal.id):
            raise NotAuthenticated(why=f"the token's subject cannot be a principal: {NOT_AN_ID}")
        if session is not None and not principal.anonymous:
            wanted = session_id(session, principal.tenant)
            if not principal.may_enter(session):
                raise AccessDenied(what="this token is not for that session")
            principal = await self.in_session(principal, wanted)
        self._check_still_good(principal)  # last, after whatever took its time
        if needs is not None:
            principal.require(needs)
        return principal

    def _check_still_good(self, principal: Principal) -> None:
        now = self._clock.now()
        if principal.expires_at is not None and now >= principal.expires_at:
            raise TokenExpired
        token = ("token", principal.token_id)
        if principal.token_id is not None and (principal.tenant, *token) in self._revoked:
            raise NotAuthenticated(why="the token was revoked")
        since = self._revoked.get((principal.tenant, "principal", principal.id))
        if since is not None and (principal.issued_at is None or principal.issued_at <= since):
            raise NotAuthenticated(why="the tokens of this principal were revoked")

    # -- members ---------------------------------------------------------------------------------------------------

    async def in_session(self, principal: Principal, session: SessionId) -> Principal:
        """Return a principal with the role that counts in a session."""
        role = (await self.members(session)).get(principal.id)
        return principal if role is None else principal.as_member(Role(role))

    async def set_member(self, session: SessionId, principal: str, role: Role | None) -> None:
        """Give a principal a role in a session, or none of its own; connections feel it at once.

        Raises:
            SessionNotFound: there is no such session.
        """

        async def change() -> None:
            await self._store.set_member(session, principal, role)
            self._member_changed(session, principal)

        await to_the_end(change())

    def _member_changed(self, session: SessionId, principal: str) -> None:
        self._version += 1
        self._members.pop(session, None)
        self.on_change(Change(tenant_of(session), principal, name_of(session)))

    def forget(self, session: SessionId) -> None:
        """Forget who was a member of a session that is gone."""
        self._members.pop(session, None)

    async def members(self, session: SessionId) -> Mapping[str, str]:
        """Return the roles that principals have in a session, where it gives them one."""
        found = self._members.get(session)
        if found is None:
            found = await self._read_members(session)
            self._members[session] = found
            if len(self._members) > _SESSIONS_KEPT:
                self._members.popitem(last=False)
        else:
            self._members.move_to_end(session)
        return found

    async def _read_members(self, session: SessionId) -> Mapping[str, str]:
        while True:
            version = self._version
            found = await self._store.members(session)
            if version == self._version:  # else they may have changed while they were read
                return found

    # -- revocations -----------------------------------------------------------------------------------------------

    async def revoke(self, tenant: str, kind: Literal["token", "principal"], value: str) -> None:
        """Take a token, or all tokens that a principal has so far, out of use; connections feel it at once."""
        revocation = Revocation(tenant, kind, value, self._clock.now())

        async def change() -> None:
            await self._store.revoke(revocation)
            self._revocation_made(revocation)

        await to_the_end(change())

    def _revocation_made(self, each: Revocation) -> None:
        self._version += 1
        self._revoked[each.tenant, each.kind, each.value] = each.at
        by_token = each.kind == "token"
        self.on_change(Change(each.tenant, token_id=each.value) if by_token else Change(each.tenant, each.value))

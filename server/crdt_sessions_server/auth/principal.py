"""Somebody who may do something."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from crdt_sessions.errors import AccessDenied
from crdt_sessions.ids import Millis, SessionId, name_of, tenant_of
from crdt_sessions.model import Author
from crdt_sessions.model.values import Kind
from crdt_sessions.runtime import ANONYMOUS, Access
from crdt_sessions.sync import ALL, Rights
from crdt_sessions_server.auth.permissions import PERMISSIONS, Permission
from crdt_sessions_server.roles import Role

_ANYTHING = ("*",)


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may do something, as a token says.

    Args:
        id: unique within the tenant.
        name: for people.
        kind: human, agent, device or service.
        role: what it may do where a session says nothing else.
        tenant: whose sessions it sees; empty where there are no tenants.
        sessions: patterns of the names of sessions it may use (``*`` and ``?`` as in a shell).
        agents: patterns of the names of agents it may work as.
        expires_at: when the token stops being good.
        issued_at: when it was made.
        token_id: names the token, so that it can be revoked.
        anonymous: whether nothing is known of them but that they were let in.
    """

    id: str
    name: str = ""
    kind: Kind = "human"
    role: Role = Role.OWNER
    tenant: str = ""
    sessions: tuple[str, ...] = _ANYTHING
    agents: tuple[str, ...] = _ANYTHING
    expires_at: Millis | None = None
    issued_at: Millis | None = None
    token_id: str | None = None
    anonymous: bool = False

    def can(self, permission: Permission) -> bool:
        """Whether they may do that."""
        return permission in PERMISSIONS[self.role]

    def require(self, permission: Permission) -> None:
        """Return if they may do that.

        Raises:
            AccessDenied: they may not.
        """
        if not self.can(permission):
            raise AccessDenied(what=f"the role {self.role} may not {permission}")

    def may_enter(self, name: str) -> bool:
        """Whether they may use sessions of that name."""
        return any(fnmatchcase(name, pattern) for pattern in self.sessions)

    @property
    def may_enter_all(self) -> bool:
        """Whether they may use sessions of any name."""
        return "*" in self.sessions

    def may_see(self, session: SessionId) -> bool:
        """Whether a session is their tenant's, and one they may use."""
        return tenant_of(session) == self.tenant and self.may_enter(name_of(session))

    def require_agents(self, names: list[str]) -> None:
        """Return if they may work as all of these agents.

        Raises:
            AccessDenied: they may not.
        """
        for name in names:
            if not any(fnmatchcase(name, pattern) for pattern in self.agents):
                raise AccessDenied(what=f"this token does not work as the agent {name!r}")

    def as_member(self, role: Role) -> Principal:
        """Return them with the role that a session gives them."""
        return replace(self, role=role)

    @property
    def rights(self) -> Rights:
        """What a connection of theirs may write."""
        if self.anonymous:
            return ALL
        return Rights(
            write=self.can(Permission.WRITE),
            ask=self.can(Permission.POST),
            decide=self.can(Permission.DECIDE),
            cancel=self.can(Permission.CANCEL),
            vouch=self.can(Permission.VOUCH),
            verified=True,
        )

    @property
    def access(self) -> Access:
        """Access to a session, for a connection."""
        who = ANONYMOUS if self.anonymous else self.id
        return Access(who, self.rights, creates=self.can(Permission.CREATE))

    @property
    def by(self) -> str | None:
        """Who is recorded as having written something; None where nobody is known, or it is somebody else."""
        return None if self.speaks_for_others else self.id

    @property
    def author(self) -> Author:
        """How they sign messages."""
        return Author(id=self.id, name=self.name or self.id, kind=self.kind)

    @property
    def speaks_for_others(self) -> bool:
        """Whether they may do something in the name of whom they say: backends, and where nobody is known."""
        return self.anonymous or self.can(Permission.VOUCH)

    def speaking_as(self, said: str | None) -> str:
        """Return for whom they do something: themselves, or whom they name.

        Raises:
            AccessDenied: they name somebody else, and may not.
        """
        if said and said != self.id and not self.speaks_for_others:
            raise AccessDenied(what=f"{self.id!r} does not speak for {said!r}")
        return said or self.id

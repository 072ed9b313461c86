"""Tokens in a file, for small installations and tests."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from crdt_sessions.errors import NotAuthenticated
from crdt_sessions.ids import TENANT_PATTERN
from crdt_sessions.model.values import Kind
from crdt_sessions_server.auth.principal import Principal
from crdt_sessions_server.explain import explain, read_json
from crdt_sessions_server.roles import Role

_log = logging.getLogger("crdt_sessions.access")
_ROLES: dict[Kind, Role] = {"agent": Role.AGENT, "service": Role.SERVICE, "human": Role.OWNER, "device": Role.EDITOR}


class _TokenEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, alias_generator=to_camel)

    principal: str = Field(min_length=1, max_length=200)
    name: str = ""
    kind: Kind = "human"
    role: Role | None = None
    can_write: bool = True
    tenant: str = Field("", pattern=rf"^$|{TENANT_PATTERN}")
    sessions: tuple[str, ...] = ("*",)
    agents: tuple[str, ...] = ("*",)


_ENTRIES = TypeAdapter(dict[str, _TokenEntry])


class StaticTokens:
    """Knows the tokens in a JSON file: ``{"<token>": {"principal": "ann", "kind": "human", "role": "editor"}}``.

    Args:
        tokens: token to principal. Kept as digests, and compared as such: how long a look-up takes says
            nothing about a token.
        path: a file that they are read from anew whenever it changes.
    """

    def __init__(self, tokens: dict[str, Principal], path: Path | None = None) -> None:
        self._principals = {_digest(token): principal for token, principal in tokens.items()}
        self._path = path
        self._stamp = _stamp(path)
        self._revision = 0

    @classmethod
    def from_file(cls, path: Path) -> StaticTokens:
        """Read the file.

        Raises:
            ValueError: it cannot be read or is not of that form; the message says what to do and shows no token.
        """
        return cls(_read(path), path)

    async def authorize(self, token: str | None, session: str | None) -> Principal:
        """See :meth:`Authorizer.authorize`."""
        principal = self._principals.get(_digest(token)) if token else None
        if principal is None:
            raise NotAuthenticated
        return principal

    def revision(self) -> int:
        """See :meth:`Authorizer.revision`. A file that cannot be read leaves things as they are."""
        if self._path is not None and (stamp := _stamp(self._path)) != self._stamp:
            self._stamp = stamp
            try:
                self._principals = {_digest(token): who for token, who in _read(self._path).items()}
                self._revision += 1
            except ValueError as error:
                _log.error("%s; the tokens stay as they were", error)
        return self._revision


def _stamp(path: Path | None) -> Any:
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status is not None else None


def _read(path: Path) -> dict[str, Principal]:
    found = read_json(path, "tokens file")
    numbers = {token: number for number, token in enumerate(found, start=1)} if isinstance(found, dict) else {}

    def place(where: Sequence[int | str]) -> str:
        """Name an entry by its number: its key is a token."""
        entry, rest = where[:1], where[1:]
        return ": ".join((f"tokens file {path}", *(f"entry {numbers[each]}" for each in entry), *map(str, rest)))

    try:
        entries = _ENTRIES.validate_python(found)
    except ValidationError as error:
        known = [str(field.alias) for field in _TokenEntry.model_fields.values()]
        raise ValueError("\n".join(explain(error, place, known))) from None
    return {
        token: Principal(
            entry.principal,
            entry.name,
            entry.kind,
            entry.role or (_ROLES[entry.kind] if entry.can_write else Role.VIEWER),
            entry.tenant,
            entry.sessions,
            entry.agents,
        )
        for token, entry in entries.items()
    }


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()

"""Tokens in a file, for small installations and tests."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from crdt_sessions.errors import NotAuthenticated
from crdt_sessions.ids import TENANT_PATTERN
from crdt_sessions.model.values import Kind
from crdt_sessions_server.access.permissions import Role
from crdt_sessions_server.access.principal import Principal

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
    try:
        entries = _ENTRIES.validate_python(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ValueError(f"tokens file {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ValueError(f"tokens file {path}: {error.errors()[0]['msg']}") from None
    except ValueError as error:
        raise ValueError(f"tokens file {path} is not JSON") from error
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

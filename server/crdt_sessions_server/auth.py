"""Who is asking. ``Authorizer`` is the seam; two simple ones are here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from quart import g

from crdt_sessions.errors import AccessDenied, NotAuthenticated
from crdt_sessions.ids import SessionId
from crdt_sessions.model import Author
from crdt_sessions.model.values import Kind


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may do something."""

    id: str
    name: str = ""
    kind: Kind = "human"
    can_write: bool = True
    anonymous: bool = False
    """Whether nothing is known of them but that they were let in."""

    def require_write(self) -> None:
        """Raise :class:`AccessDenied` unless they may write."""
        if not self.can_write:
            raise AccessDenied(what="this token is read-only")

    @property
    def author(self) -> Author:
        """How they sign messages."""
        return Author(id=self.id, name=self.name or self.id, kind=self.kind)


def current_principal() -> Principal:
    """Return who makes the current HTTP request."""
    principal: Principal = g.principal
    return principal


class Authorizer(Protocol):
    """Decides who may come in. Called before anything else is done for a request."""

    async def authorize(self, token: str | None, session: SessionId | None) -> Principal:
        """Return who *token* stands for.

        Args:
            token: as presented; None if there was none.
            session: the session asked for; None for requests about all sessions.

        Raises:
            NotAuthenticated: nobody knows the token.
            AccessDenied: this principal may not use that session.
        """
        ...


class Open:
    """Lets everybody in. The service then listens on loopback only."""

    async def authorize(self, token: str | None, session: SessionId | None) -> Principal:
        """See :meth:`Authorizer.authorize`."""
        return Principal("anonymous", anonymous=True)


class _TokenEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    principal: str = Field(min_length=1)
    name: str = ""
    kind: Kind = "human"
    can_write: bool = Field(True, alias="canWrite")


_ENTRIES = TypeAdapter(dict[str, _TokenEntry])


class StaticTokens:
    """Knows the tokens in a JSON file: ``{"<token>": {"principal": "ann", "kind": "human", "canWrite": true}}``.

    Args:
        tokens: token to principal. Kept as digests, and compared as such: how long a look-up takes says
            nothing about a token.
    """

    def __init__(self, tokens: dict[str, Principal]) -> None:
        self._principals = {_digest(token): principal for token, principal in tokens.items()}

    @classmethod
    def from_file(cls, path: Path) -> StaticTokens:
        """Read the file.

        Raises:
            ValueError: it cannot be read or is not of that form; the message says what to do and shows no token.
        """
        try:
            entries = _ENTRIES.validate_python(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise ValueError(f"tokens file {path}: {error.strerror}") from error
        except ValidationError as error:
            raise ValueError(f"tokens file {path}: {error.errors()[0]['msg']}") from None
        except ValueError as error:
            raise ValueError(f"tokens file {path} is not JSON") from error
        return cls(
            {
                token: Principal(entry.principal, entry.name, entry.kind, entry.can_write)
                for token, entry in entries.items()
            }
        )

    async def authorize(self, token: str | None, session: SessionId | None) -> Principal:
        """See :meth:`Authorizer.authorize`."""
        principal = self._principals.get(_digest(token)) if token else None
        if principal is None:
            raise NotAuthenticated
        return principal


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()

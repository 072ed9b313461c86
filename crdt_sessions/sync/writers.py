"""The owners of Yjs clients, and the clock from which on a client's structs are refused.

A Yjs client id stands for one replica in one process. If principals are known, the client belongs to the first
principal on whose connection a new struct of it arrives; on connections of others, new structs of it are refused. A
holder of a lease is known by its connection, and the clients whose structs arrive there are its own. Once the lease
has ended, their structs that the document does not hold yet are refused on every connection. Deletions name no
author, so they are not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from crdt_sessions.errors import ForeignWriter, LeaseLost
from crdt_sessions.ids import ClientId
from crdt_sessions.model import SessionDoc, authors, sole_author, writes_as
from crdt_sessions.sync.records import Writer
from crdt_sessions.wire.varint import decode_state_vector

MAX_AUTHORS = 32
"""Clients whose new structs one update on a leased connection may hold."""
_MANY = 10_000


class Writers:
    """The writers of one session.

    Args:
        known: the clients on record.
        enforce: whether new structs of another principal's client are refused; otherwise they are only counted.
        announced_by: returns the principal that is present as a client, if there is one. The client is theirs even
            before they write. Otherwise anybody who sees them could write first, and take the client over.
    """

    def __init__(
        self,
        known: Iterable[Writer],
        *,
        enforce: bool = True,
        announced_by: Callable[[ClientId], str | None] = lambda _: None,
    ) -> None:
        self._enforce = enforce
        self._announced_by = announced_by
        self.foreign = 0
        """Number of updates with new structs of another principal's client."""
        self._known = {writer.client: writer for writer in known}
        self._fenced = {writer.client for writer in self._known.values() if writer.fenced_at is not None}

    def check(self, document: SessionDoc, update: bytes) -> None:
        """Refuse an update with new structs of a fenced client. Call it before the update is applied.

        Raises:
            LeaseLost: the update has such structs.
            UpdateError: it cannot be decoded.
        """
        if self._fenced and (client := writes_as(document, update, self._fenced)) is not None:
            raise LeaseLost(run=self._known[client].run)

    def check_authors(self, found: Iterable[ClientId]) -> None:
        """Refuse new structs of a fenced client, given the authors.

        Raises:
            LeaseLost: one of them is fenced.
        """
        for client in found:
            if client in self._fenced:
                raise LeaseLost(run=self._known[client].run)

    def bind(self, document: SessionDoc, update: bytes, *, principal: str, run: str, epoch: int) -> list[Writer]:
        """Take the authors of an update as writers for a lease; return those that are new.

        Raises:
            LeaseLost: one of them writes for another lease, or there are absurdly many.
            UpdateError: it cannot be decoded.
        """
        sole = sole_author(update)
        if sole is not None and (known := self._known.get(sole)) is not None and known.fenced_at is None:
            found = [sole]  # the usual case, without asking the library
        else:
            found = authors(document, update, MAX_AUTHORS + 1)
        return self.bind_authors(found, principal=principal, run=run, epoch=epoch)

    def bind_authors(self, found: Sequence[ClientId], *, principal: str, run: str, epoch: int) -> list[Writer]:
        """Take clients as writers for a lease; return those that are new.

        Raises:
            LeaseLost: one of them writes for another lease, or there are absurdly many.
        """
        mine = Writer(ClientId(0), principal)
        new = [
            Writer(client, principal, run, epoch)
            for client in found
            if replace(self._known.get(client, mine), client=mine.client) == mine
        ]
        if len(found) > MAX_AUTHORS or any(self._other(client, principal, run, epoch) for client in found):
            raise LeaseLost(run=run)
        self._known.update((writer.client, writer) for writer in new)
        return new

    def claim(self, document: SessionDoc, update: bytes, principal: str) -> list[Writer]:
        """Take the authors of an update as *principal*'s; return those that are new.

        Raises:
            ForeignWriter: one of them is somebody else's.
            UpdateError: it cannot be decoded.
        """
        sole = sole_author(update)
        if sole is not None and (known := self._known.get(sole)) is not None and known.principal == principal:
            return []  # the usual case, without asking the library
        return self.claim_authors(authors(document, update, _MANY), principal)

    def claim_authors(self, found: Sequence[ClientId], principal: str) -> list[Writer]:
        """Take clients as *principal*'s; return those that are new.

        Raises:
            ForeignWriter: one of them is somebody else's.
        """
        self.check_owners(found, principal)
        new = [Writer(client, principal) for client in found if client not in self._known]
        self._known.update((writer.client, writer) for writer in new)
        return new

    def check_owners(self, found: Sequence[ClientId], principal: str) -> None:
        """Refuse, or count, new structs of clients that are not *principal*'s.

        Raises:
            ForeignWriter: one of them is somebody else's.
        """
        foreign = [client for client in found if self._owner(client) not in (None, principal)]
        if foreign:
            self.foreign += 1
            if self._enforce:
                raise ForeignWriter(client=foreign[0])

    def _owner(self, client: ClientId) -> str | None:
        return self.principal_of(client) or self._announced_by(client)

    def principal_of(self, client: ClientId) -> str | None:
        """Return the owner of a client, if it is known."""
        known = self._known.get(client)
        return known.principal if known is not None else None

    def all(self) -> list[Writer]:
        """Return all known writers."""
        return list(self._known.values())

    def fence(self, document: SessionDoc, leases: set[tuple[str, int]]) -> list[Writer]:
        """Refuse new structs of the writers of these leases from now on; return those writers."""
        concerned = [
            writer
            for writer in self._known.values()
            if writer.fenced_at is None and (writer.run, writer.epoch) in leases
        ]
        if not concerned:
            return []
        clocks = decode_state_vector(document.state_vector())
        fenced = [replace(writer, fenced_at=clocks.get(writer.client, 0)) for writer in concerned]
        self._known.update((writer.client, writer) for writer in fenced)
        self._fenced.update(writer.client for writer in fenced)
        return fenced

    def _other(self, client: ClientId, principal: str, run: str, epoch: int) -> bool:
        """Whether a client belongs to another lease, or to another principal."""
        known = self._known.get(client)
        own = known is None or (known.principal == principal and not known.run)
        return not own and known is not None and (known.run, known.epoch) != (run, epoch)

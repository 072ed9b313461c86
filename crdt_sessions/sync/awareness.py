"""Awareness states: the rule by which each peer accepts them, and which connection may speak for a client.

The rule is that of y-protocols (``awareness.js``): an entry is accepted if its clock is newer than the known one, or
if a present client is "gone" at the same clock. A client that was never heard of has clock 0. One rule is added: a
clock of ``MAX_CLOCK`` or more is never news, since whoever is believed to have the highest clock that can be written
could say nothing any more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from crdt_sessions.ids import ClientId, Millis, PeerId
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.sync.actor import Actor
from crdt_sessions.wire import AwarenessEntry, AwarenessFrame, Shared, encode_awareness
from crdt_sessions.wire.awareness import GONE
from crdt_sessions.wire.update_v1 import MAX_CLOCK

_MAX_SHARED_BYTES = 1024 * 1024
"""Bytes of frames that readers share. If many are present, each frame may be large, and each reader may lag by
another amount."""

_BEGINS_BELOW = 2**30
"""A client of which nothing is known has a lower clock: half of what there is, so that there is room above it."""
_AHEAD = 2**16
"""How far a client's clock may be ahead of one in each millisecond: a device that was away tells of hours at once."""


@dataclass(slots=True)
class _Course:
    """How a client's clock has gone."""

    begin: int
    since: Millis
    said_by: PeerId
    """Which connection has said the newest."""


@dataclass(slots=True)
class _Known:
    entry: AwarenessEntry
    heard: Millis
    version: int


class AwarenessTable:
    """The clock and state of every client, and when it was last heard.

    ``version`` counts accepted changes; so a reader needs only a cursor.
    """

    def __init__(self) -> None:
        self._known: dict[ClientId, _Known] = {}
        self.version = 0

    def accept(self, entry: AwarenessEntry, now: Millis) -> bool:
        """Accept *entry* if the rule allows it; tell whether it was accepted."""
        if not self.news(entry):
            return False
        self.version += 1
        self._known[ClientId(entry.client_id)] = _Known(entry, now, self.version)
        return True

    def touch(self, client_id: ClientId, now: Millis) -> None:
        """Note that a client repeated its known state."""
        if client_id in self._known:
            self._known[client_id].heard = now

    def remove(self, client_id: ClientId, now: Millis) -> bool:
        """Mark a client as gone; tell whether it was present.

        That keeps the client's own clock: if it were raised, peers would ignore the client's return.
        """
        known = self._known.get(client_id)
        return known is not None and self.accept(AwarenessEntry(client_id, known.entry.clock, GONE), now)

    def silent_since(self, moment: Millis) -> list[ClientId]:
        """Return the present clients that were last heard before *moment*."""
        return [client for client, known in self._known.items() if known.heard < moment and not known.entry.gone]

    def oldest(self) -> Millis | None:
        """Return when the longest-silent present client was last heard; None if nobody is here."""
        return min((known.heard for known in self._known.values() if not known.entry.gone), default=None)

    def forget(self, before: Millis) -> list[ClientId]:
        """Drop clients that are gone and were last heard before that moment; return them."""
        left = [client for client, known in self._known.items() if known.entry.gone and known.heard < before]
        for client in left:
            del self._known[client]
        return left

    def news(self, entry: AwarenessEntry) -> bool:
        """Tell whether the rule accepts *entry*."""
        known = self._known.get(ClientId(entry.client_id))
        clock = known.entry.clock if known else 0
        return clock < entry.clock < MAX_CLOCK or (
            entry.clock == clock and entry.gone and known is not None and not known.entry.gone
        )

    def repeats(self, entry: AwarenessEntry) -> bool:
        """Tell whether *entry* says of somebody who is here what is known."""
        known = self._known.get(ClientId(entry.client_id))
        return known is not None and not entry.gone and entry.state == known.entry.state

    def version_of(self, client_id: ClientId) -> int:
        """Return the version at which a client's entry was accepted; 0 if the client was never heard of."""
        known = self._known.get(client_id)
        return known.version if known else 0

    def clock(self, client_id: ClientId) -> int:
        """Return a client's known clock, 0 if it was never heard of."""
        known = self._known.get(client_id)
        return known.entry.clock if known else 0

    def present(self) -> dict[ClientId, str]:
        """Return the JSON states of everybody who is here."""
        return {client: known.entry.state for client, known in self._known.items() if not known.entry.gone}

    def changed_since(self, version: int) -> list[AwarenessEntry]:
        """Return the latest entry of every client that changed after *version*."""
        if version >= self.version:
            return []
        return [known.entry for known in self._known.values() if known.version > version]

    def __len__(self) -> int:
        return len(self._known)


class Roster:
    """The server's view: who is here, and which connection speaks for which client.

    Stock clients send back every entry that they accept from others, including entries from us and from tabs beside
    them. So a connection that mentions a client may not be that client:

    * An entry that the connection was sent before is an echo, and means nothing.
    * A connection may speak for a client that no connection speaks for, if it mentions the client first or says
      something new. That is the peer itself, or a tab beside it without a connection of its own.
    * While one connection speaks for a client, others may not, with one exception: a connection of the same principal
      that speaks for nobody yet. It is a device that is back before its old socket is known to be dead. It is the
      *heir*, and goes on when the other connection ends.
    * As long as a client is remembered, only the principal that first announced it may speak for it.
    * A clock goes no faster than any client's could, whoever says it: another device of the same principal may speak
      for a client, and must not leave it without clocks to say anything with
      (``docs/decisions/0082-a-presences-clock-goes-no-faster-than-time.md``).
    """

    def __init__(self, limits: Limits, timing: Timing) -> None:
        self._table = AwarenessTable()
        self._limits = limits
        self._expiry = Millis(int(timing.presence_expiry_s * 1000))
        self._grace = Millis(int(timing.leave_grace_s * 1000))
        self._clients: dict[PeerId, set[ClientId]] = {}
        """The clients that each connection speaks for, or would inherit."""
        self._speakers: dict[ClientId, PeerId] = {}
        self._heirs: dict[ClientId, PeerId] = {}
        self._principals: dict[ClientId, str] = {}
        self._courses: dict[ClientId, _Course] = {}
        self._here: dict[PeerId, str] = {}
        self._leaving: dict[ClientId, Millis] = {}
        self._shared: dict[tuple[int, int], Shared] = {}
        self._shared_bytes = 0
        self.ignored = 0
        """Number of entries dropped as echoes, for their clock, or as the connection may not speak for the client."""
        self.overheard = 0
        """Number of those that were new: the peer hears of others in another way than from us."""
        self.forged = 0
        """Number of entries that were dropped because they named another user."""

    @property
    def version(self) -> int:
        """Count of accepted changes."""
        return self._table.version

    def present(self) -> dict[ClientId, str]:
        """Return the JSON states of everybody who is here."""
        return self._table.present()

    def clock(self, client: ClientId) -> int:
        """Return a client's known clock, 0 if it was never heard of."""
        return self._table.clock(client)

    def principals(self) -> set[str]:
        """Return the principals of the connections, and the users that their states name."""
        said = map(_user_id, self.present().values())
        return set(self._here.values()) | {user for user in said if user is not None}

    def announces(self, peer: PeerId) -> bool:
        """Whether *peer* has ever announced a presence."""
        return peer in self._clients

    def speaks_for_several(self, peer: PeerId) -> bool:
        """Whether *peer* speaks for several clients: there are tabs beside it without a connection."""
        clients = self._clients.get(peer, ())
        return len(clients) > 1 and sum(self._speakers.get(client) == peer for client in clients) > 1

    def announced_by(self, client: ClientId) -> str | None:
        """Return the principal whose connection speaks for a client, or did lately; None if there is none."""
        return self._principals.get(client)

    def hear(
        self, peer: PeerId, actor: Actor, entries: Iterable[AwarenessEntry], now: Millis, *, told: int = 0
    ) -> None:
        """Accept what *peer* announces. Entries are counted and dropped if it may not speak for their client or user.

        Args:
            peer: the connection.
            actor: the actor at its other end.
            entries: the entries that it sent.
            now: the time.
            told: the version of the roster that it was sent; repetitions of that are echoes.
        """
        principal, bound = actor.principal, actor.rights.bound
        for entry in entries:
            client = ClientId(entry.client_id)
            may_speak = self._can_have_come(entry, now) and self._may_speak(peer, principal, client)
            if may_speak and bound and not entry.gone and _user_id(entry.state) not in (None, principal):
                self.forged += 1
            elif not may_speak or not self._says_something(peer, entry, told):
                self.ignored += 1
                self.overheard += self._table.news(entry)
            elif self._table.accept(entry, now):
                self._speak(peer, principal, client)
                self._courses.setdefault(client, _Course(entry.clock, now, peer)).said_by = peer
            elif not entry.gone:
                self._speak(peer, principal, client)
                self._table.touch(client, now)

    def renews(self, peer: PeerId, entry: AwarenessEntry, *, told: int) -> bool:
        """Tell whether *entry* says nothing new: that the only client of *peer* is still here, or it is an echo.

        Args:
            peer: the connection.
            entry: what it sent.
            told: the version of the roster that it was sent.
        """
        client = ClientId(entry.client_id)
        if self._speakers.get(client) == peer:
            return len(self._clients[peer]) == 1 and self._table.repeats(entry)
        return not self._table.news(entry) and 0 < self._table.version_of(client) <= told

    def leave(self, peer: PeerId, now: Millis, *, abrupt: bool) -> None:
        """Remove the presences of a connection that ended: at once, or after a grace period if it broke."""
        self._here.pop(peer, None)
        for client in self._clients.pop(peer, ()):
            if self._heirs.get(client) == peer:
                del self._heirs[client]
            elif (heir := self._heirs.pop(client, None)) is not None:
                self._speakers[client] = heir
            else:
                del self._speakers[client]
                if self._table.version_of(client) == 0:
                    self._forget(client)  # it announced itself, and nobody was told
                elif abrupt:
                    self._leaving[client] = Millis(now + self._grace)
                else:
                    self._table.remove(client, now)

    def forget(self, principal: str, now: Millis) -> int:
        """Remove the presence of a principal on all connections; return the number of clients concerned."""
        found = [client for client, text in self.present().items() if self._whose(client, text) == principal]
        for client in found:
            self._table.remove(client, now)
        return len(found)

    def _whose(self, client: ClientId, text: str) -> str | None:
        return _user_id(text) or self._principals.get(client)

    def tick(self, now: Millis) -> None:
        """Remove clients that did not come back in time, or did not renew their presence."""
        for client in [client for client, due in self._leaving.items() if due <= now]:
            del self._leaving[client]
            self._table.remove(client, now)
        for client in self._table.silent_since(Millis(now - self._expiry)):
            self._table.remove(client, now)
        for client in self._table.forget(Millis(now - 10 * self._expiry)):
            if client not in self._speakers:
                self._forget(client)

    def _forget(self, client: ClientId) -> None:
        del self._principals[client]
        self._courses.pop(client, None)

    @property
    def waiting(self) -> bool:
        """Whether a client whose connection broke may still come back."""
        return bool(self._leaving)

    def rests_until(self, now: Millis) -> Millis:
        """Return the earliest time at which :meth:`tick` has something to do, if nobody leaves."""
        oldest = self._table.oldest()
        return Millis((now if oldest is None else oldest) + self._expiry)

    def changed_since(self, version: int) -> list[AwarenessEntry]:
        """Return the latest entry of every client that changed after *version*, those that left included."""
        return self._table.changed_since(version)

    def frame_since(self, version: int, reader: PeerId) -> Shared | None:
        """Return the changes after *version* as one frame, or None if *reader* knows them all."""
        entries = self._table.changed_since(version)
        own = self._clients.get(reader, ())
        if all(entry.client_id in own and self._was_said_by(reader, entry) for entry in entries):
            return None
        key = (version, self.version)
        if key not in self._shared:
            outdated = any(current != self.version for _, current in self._shared)
            if outdated or len(self._shared) > 64 or self._shared_bytes > _MAX_SHARED_BYTES:
                self._shared.clear()
                self._shared_bytes = 0
            payload = encode_awareness(entries)
            self._shared[key] = Shared(AwarenessFrame(payload))
            self._shared_bytes += 2 * len(payload)  # the payload, and the encoded frame
        return self._shared[key]

    def _was_said_by(self, reader: PeerId, entry: AwarenessEntry) -> bool:
        """Tell whether a connection knows of an entry since it said so. It goes on from what others said of it."""
        return not entry.gone and self._courses[ClientId(entry.client_id)].said_by == reader

    def _can_have_come(self, entry: AwarenessEntry, now: Millis) -> bool:
        """Tell whether a client's clock can have come to where an entry says that it is."""
        client = ClientId(entry.client_id)
        course = self._courses.get(client)
        if course is None:
            return entry.clock < _BEGINS_BELOW
        return entry.clock <= min(course.begin + _AHEAD + max(0, now - course.since), MAX_CLOCK - 1)

    def _may_speak(self, peer: PeerId, principal: str, client: ClientId) -> bool:
        if self._principals.get(client, principal) != principal:
            return False
        clients = self._clients.get(peer, ())
        if client in clients:
            return True
        if client in self._speakers:
            return not clients and client not in self._heirs
        room = client in self._principals or len(self._principals) < self._limits.max_presences
        return room and len(clients) < self._limits.max_presences_per_connection

    def _says_something(self, peer: PeerId, entry: AwarenessEntry, told: int) -> bool:
        """Tell whether an entry is more than an echo of an entry that the connection was sent."""
        client = ClientId(entry.client_id)
        if client in self._clients.get(peer, ()):
            return entry.clock >= self._table.clock(client)
        if entry.gone:
            return False  # only its own connection may say that a client is gone; others may guess so too soon
        if self._table.news(entry):
            return True
        return entry.clock == self._table.clock(client) and not 0 < self._table.version_of(client) <= told

    def _speak(self, peer: PeerId, principal: str, client: ClientId) -> None:
        self._here[peer] = self._principals[client] = principal
        self._clients.setdefault(peer, set()).add(client)
        if self._speakers.setdefault(client, peer) != peer:
            self._heirs[client] = peer
        self._leaving.pop(client, None)


def _user_id(text: str) -> str | None:
    """Return the id of the user that a state names, if it names one."""
    state = json.loads(text)
    user = state.get("user") if isinstance(state, dict) else None
    return user["id"] if isinstance(user, dict) and isinstance(user.get("id"), str) else None

"""Presences of participants without a socket: a request announces one, and it stays until its time is over.

To the roster each is the only client of a connection of its own, so whatever holds for presences from sockets holds
for them. Stock clients drop a presence that is not renewed; one that stays longer is renewed from here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from crdt_sessions.errors import AccessDenied, TooLarge, TooMany
from crdt_sessions.ids import ClientId, Millis, PeerId
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.sync.actor import Actor
from crdt_sessions.sync.awareness import Roster
from crdt_sessions.wire import AwarenessEntry

_CLIENT = "\x00"
"""Begins the names of clients that have a clock of their own: no other name can begin so."""
_RENEWALS = 2
"""How often a presence is renewed in the time after which it would be dropped."""


@dataclass(slots=True)
class _Guest:
    peer: PeerId
    actor: Actor
    entry: AwarenessEntry
    until: Millis
    renew_at: Millis


class Guests:
    """Those who are present without a connection, each known by principal and name.

    Args:
        roster: who is here.
        limits: sizes.
        timing: periods.
    """

    def __init__(self, roster: Roster, limits: Limits, timing: Timing) -> None:
        self._roster = roster
        self._limits = limits
        self._renewal = Millis(int(timing.presence_expiry_s * 1000 / _RENEWALS))
        self._guests: dict[tuple[str, str], _Guest] = {}
        self._peers = itertools.count(-1, -1)  # those of connections are positive

    def __len__(self) -> int:
        return len(self._guests)

    def announce(self, actor: Actor, name: str, client: ClientId, state: str, until: Millis, now: Millis) -> ClientId:
        """Announce a presence, or another state of it; return its client.

        Args:
            actor: who is present.
            name: tells several presences of one principal apart.
            client: the client it is shown as, if it is new.
            state: as JSON.
            until: when it ends if it is not announced again.
            now: the time.

        Raises:
            TooLarge: the state exceeds its limit.
            TooMany: the principal has too many presences, or the session.
        """
        if len(state) > self._limits.max_presence_bytes:
            raise TooLarge(what="a presence", size=len(state), limit=self._limits.max_presence_bytes)
        key = (actor.principal, name)
        guest = self._guests.get(key)
        if guest is None:
            self._check_room(actor.principal)
            guest = _Guest(
                PeerId(next(self._peers)),
                actor,
                AwarenessEntry(client, self._roster.clock(client), state),
                until,
                now,
            )
        guest.actor, guest.entry, guest.until = actor, replace(guest.entry, state=state), until
        self._renew(guest, now)
        if not self._roster.announces(guest.peer):
            raise TooMany(what="presences of the session", limit=self._limits.max_presences)
        self._guests[key] = guest
        return ClientId(guest.entry.client_id)

    def relay(self, actor: Actor, entry: AwarenessEntry, until: Millis, now: Millis) -> None:
        """Take what a Yjs client without a connection says of itself: it has a clock of its own, and renews itself.

        Args:
            actor: whose client it is.
            entry: the client, its clock and its state.
            until: when its presence ends if nothing more is heard of it.
            now: the time.

        Raises:
            TooLarge: the state exceeds its limit.
            TooMany: the principal has too many presences, or the session.
            AccessDenied: the client is somebody else's, or says that it is.
        """
        if len(entry.state) > self._limits.max_presence_bytes:
            raise TooLarge(what="a presence", size=len(entry.state), limit=self._limits.max_presence_bytes)
        name = f"{_CLIENT}{entry.client_id}"
        guest = self._guests.get((actor.principal, name))
        if guest is None:
            if entry.gone:
                return
            self._check_room(actor.principal)
            guest = _Guest(PeerId(next(self._peers)), actor, entry, until, until)
        elif entry.gone:
            self.withdraw(actor.principal, name, now)
            return
        forged = self._roster.forged
        self._roster.hear(guest.peer, actor, [entry], now)
        theirs = self._roster.announced_by(ClientId(entry.client_id)) not in (None, actor.principal)
        if self._roster.forged > forged or theirs:
            raise AccessDenied(what=f"{actor.principal!r} is not present as somebody else")
        if not self._roster.announces(guest.peer):
            raise TooMany(what="presences of the session", limit=self._limits.max_presences)
        guest.actor, guest.entry, guest.until, guest.renew_at = actor, entry, until, until
        self._guests[actor.principal, name] = guest

    def withdraw(self, principal: str, name: str, now: Millis) -> None:
        """End a presence, if there is one."""
        guest = self._guests.pop((principal, name), None)
        if guest is not None:
            self._roster.leave(guest.peer, now, abrupt=False)

    def forget(self, principal: str | None, now: Millis) -> None:
        """End the presences of a principal; of everybody, if None."""
        for key in [key for key in self._guests if principal in (None, key[0])]:
            self.withdraw(*key, now)

    def tick(self, now: Millis) -> None:
        """End what is over, and renew what goes on."""
        for key, guest in list(self._guests.items()):
            if guest.until <= now:
                self.withdraw(*key, now)
            elif guest.renew_at <= now:
                self._renew(guest, now)

    def due(self) -> Iterator[Millis]:
        """Yield the times at which :meth:`tick` has something to do."""
        return (min(guest.until, guest.renew_at) for guest in self._guests.values())

    def _check_room(self, principal: str) -> None:
        limit = self._limits.max_presences_per_connection
        if sum(holder == principal for holder, _ in self._guests) >= limit:
            raise TooMany(what="presences of one principal", limit=limit)

    def _renew(self, guest: _Guest, now: Millis) -> None:
        guest.entry = replace(guest.entry, clock=guest.entry.clock + 1)
        guest.renew_at = Millis(now + self._renewal)
        self._roster.hear(guest.peer, guest.actor, [guest.entry], now)

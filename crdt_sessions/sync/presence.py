"""Presence in a session: of peers with a connection, and of guests without one. Each change is an effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from crdt_sessions.errors import TooLarge
from crdt_sessions.ids import ClientId, Millis, PeerId
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.sync.actor import Actor
from crdt_sessions.sync.attached import Attached
from crdt_sessions.sync.awareness import Roster
from crdt_sessions.sync.events import Effect, Ready, Violation
from crdt_sessions.sync.guests import Guests
from crdt_sessions.sync.merge import moved
from crdt_sessions.sync.peers import Peer
from crdt_sessions.wire import AwarenessEntry, decode_awareness

_TABS_MS = 5_000
"""How often a peer is asked again while tabs beside it have no connection of their own. It passes on their presence
by itself, and their writes only when it is asked. It is asked once more after they have gone."""


class Presence:
    """Who is present in one session.

    Args:
        roster: who is here.
        attached: the connections.
        limits: sizes.
        timing: periods.
    """

    def __init__(self, roster: Roster, attached: Attached, limits: Limits, timing: Timing) -> None:
        self._roster = roster
        self._attached = attached
        self._limits = limits
        self.guests = Guests(roster, limits, timing)
        """Those who are present without a connection."""

    def hear(self, peer_id: PeerId, peer: Peer, payload: bytes, now: Millis) -> list[Effect]:
        """Take what a peer says about who is present.

        Raises:
            WireError: it cannot be read.
            TooLarge: a state exceeds its limit.
        """
        entries = decode_awareness(payload)
        for entry in entries:
            if len(entry.state) > self._limits.max_presence_bytes:
                raise TooLarge(what="a presence", size=len(entry.state), limit=self._limits.max_presence_bytes)
        forged, overheard, version = self._roster.forged, self._roster.overheard, peer.presence_version
        effects = self._moved(lambda: self._roster.hear(peer_id, peer.actor, entries, now, told=version))
        if self._roster.forged > forged:
            effects.append(Violation(peer.actor.principal, "presence"))
        peer.tabs = peer.tabs or self._roster.overheard > overheard
        if self._roster.speaks_for_several(peer_id):
            peer.tabs = True
            if now >= peer.asked_at + _TABS_MS:
                effects += self._attached.ask(peer_id, now)
        return effects

    def leave(self, peer_id: PeerId, now: Millis, *, abrupt: bool) -> list[Effect]:
        """Note that a connection has ended; *abrupt* if it broke."""
        return self._moved(lambda: self._roster.leave(peer_id, now, abrupt=abrupt))

    def forget(self, principal: str, now: Millis) -> tuple[int, list[Effect]]:
        """Remove the presence of a principal; return the number of its clients, and the effects."""
        found: list[int] = []

        def forget() -> None:
            found.append(self._roster.forget(principal, now))
            self.guests.forget(principal, now)

        effects = self._moved(forget)
        return found[0], effects

    def forget_guests(self, principal: str | None, now: Millis) -> list[Effect]:
        """End what a principal, or anybody if None, announced without a connection."""
        return self._told(lambda: self.guests.forget(principal, now))

    def announce(
        self, actor: Actor, name: str, client: ClientId, state: str, until: Millis, now: Millis
    ) -> tuple[ClientId, list[Effect]]:
        """Announce the presence of somebody without a connection; as :meth:`Guests.announce`, with the effects."""
        clients: list[ClientId] = []
        effects = self._told(lambda: clients.append(self.guests.announce(actor, name, client, state, until, now)))
        return clients[0], effects

    def relay(self, actor: Actor, entry: AwarenessEntry, until: Millis, now: Millis) -> list[Effect]:
        """Take what a Yjs client without a connection says of itself; as :meth:`Guests.relay`, with the effects."""
        return self._told(lambda: self.guests.relay(actor, entry, until, now))

    def withdraw(self, principal: str, name: str, now: Millis) -> list[Effect]:
        """End a presence that was announced without a connection, if there is one; return the effects."""
        return self._told(lambda: self.guests.withdraw(principal, name, now))

    def tick(self, now: Millis) -> list[Effect]:
        """End what is over."""

        def tick() -> None:
            self.guests.tick(now)
            self._roster.tick(now)

        return self._moved(tick)

    def due(self, now: Millis) -> Iterator[Millis]:
        """Yield the times at which :meth:`tick` has something to do."""
        yield from self.guests.due()
        yield self._roster.rests_until(now)

    def _told(self, change: Callable[[], None]) -> list[Effect]:
        return told(self._roster, change)

    @moved
    def _moved(self, change: Callable[[], None]) -> list[Effect]:
        """Make a change that nothing refuses any more."""
        return told(self._roster, change)


def told(roster: Roster, change: Callable[[], None]) -> list[Effect]:
    """Make a change; return the effects, if the roster is another one then."""
    before = roster.version
    change()
    return [Ready(None)] if roster.version != before else []

"""Awareness states: the acceptance rule every peer applies, and on the server who may speak for whom.

The rule is y-protocols' (``awareness.js``): an entry is taken if its clock is newer than the known one, or
if it says "gone" at the same clock of a client that is present. A client never heard of has clock 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from crdt_sessions.ids import ClientId, Millis, PeerId
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.sync.actor import Actor
from crdt_sessions.wire import AwarenessEntry, AwarenessFrame, encode, encode_awareness
from crdt_sessions.wire.awareness import GONE


@dataclass(slots=True)
class _Known:
    entry: AwarenessEntry
    heard: Millis
    version: int


class AwarenessTable:
    """What is known of every client: clock, state, when last heard.

    ``version`` counts accepted changes, so that a reader needs only a cursor into it.
    """

    def __init__(self) -> None:
        self._known: dict[ClientId, _Known] = {}
        self.version = 0

    def accept(self, entry: AwarenessEntry, now: Millis) -> bool:
        """Take *entry* if the rule says so; tell whether it was taken."""
        client_id = ClientId(entry.client_id)
        known = self._known.get(client_id)
        clock = known.entry.clock if known else 0
        present = known is not None and not known.entry.gone
        if entry.clock < clock or (entry.clock == clock and not (entry.gone and present)):
            return False
        self.version += 1
        self._known[client_id] = _Known(entry, now, self.version)
        return True

    def touch(self, client_id: ClientId, now: Millis) -> None:
        """Note that a client said again what is known already."""
        if client_id in self._known:
            self._known[client_id].heard = now

    def remove(self, client_id: ClientId, now: Millis) -> bool:
        """Mark a client as gone, at its own clock: a raised clock would outlive its return."""
        known = self._known.get(client_id)
        return known is not None and self.accept(AwarenessEntry(client_id, known.entry.clock, GONE), now)

    def silent_since(self, moment: Millis) -> list[ClientId]:
        """Return the present clients that were last heard before *moment*."""
        return [client for client, known in self._known.items() if known.heard < moment and not known.entry.gone]

    def oldest(self) -> Millis | None:
        """Return when the present client was last heard that has been silent for longest; None if nobody is here."""
        return min((known.heard for known in self._known.values() if not known.entry.gone), default=None)

    def forget(self, before: Millis) -> None:
        """Drop clients that left before that moment."""
        left = [client for client, known in self._known.items() if known.entry.gone and known.heard < before]
        for client in left:
            del self._known[client]

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
    """The server's view: a connection speaks for one client id, the first it announces.

    Clients relay states they received, so "mentioned first by" does not mean "owned by"; only the first
    announcement of a connection claims an id, and relayed or forged entries are ignored.
    """

    def __init__(self, limits: Limits, timing: Timing) -> None:
        self._table = AwarenessTable()
        self._limits = limits
        self._expiry = Millis(int(timing.presence_expiry_s * 1000))
        self._grace = Millis(int(timing.leave_grace_s * 1000))
        self._claims: dict[PeerId, ClientId] = {}
        self._owners: dict[ClientId, PeerId] = {}
        self._principals: dict[PeerId, str] = {}
        self._leaving: dict[ClientId, Millis] = {}
        self._shared: dict[tuple[int, int], bytes] = {}
        self.ignored = 0
        """Entries dropped because the connection does not own the client id."""
        self.forged = 0
        """Entries dropped because they said to be somebody else."""

    @property
    def version(self) -> int:
        """Count of accepted changes."""
        return self._table.version

    def present(self) -> dict[ClientId, str]:
        """Return the JSON states of everybody who is here."""
        return self._table.present()

    def principals(self) -> set[str]:
        """Return who is here: the principals of the connections, and who they say they are."""
        said = map(_user_id, self.present().values())
        return set(self._principals.values()) | {user for user in said if user is not None}

    def announces(self, peer: PeerId) -> bool:
        """Whether *peer* has ever announced a presence."""
        return peer in self._claims

    def hear(self, peer: PeerId, actor: Actor, entries: Iterable[AwarenessEntry], now: Millis) -> None:
        """Take what *peer* announces; entries it may not speak for, or as somebody else, are counted and dropped."""
        principal, bound = actor.principal, actor.rights.bound
        for entry in entries:
            client = ClientId(entry.client_id)
            may_speak = self._may_speak(peer, principal, client)
            if may_speak and bound and not entry.gone and _user_id(entry.state) not in (None, principal):
                self.forged += 1
            elif not may_speak or (len(self._table) >= self._limits.max_presences and self._table.clock(client) == 0):
                self.ignored += 1
            elif self._table.accept(entry, now):
                self._own(peer, principal, client)
            elif not entry.gone and entry.clock == self._table.clock(client):
                self._own(peer, principal, client)
                self._table.touch(client, now)

    def leave(self, peer: PeerId, now: Millis, *, abrupt: bool) -> None:
        """Remove the presence of a connection that ended: at once, or after a grace if it broke."""
        client = self._claims.pop(peer, None)
        self._principals.pop(peer, None)
        if client is None or self._owners.get(client) != peer:
            return
        del self._owners[client]
        if abrupt:
            self._leaving[client] = Millis(now + self._grace)
        else:
            self._table.remove(client, now)

    def forget(self, principal: str, now: Millis) -> int:
        """Remove the presence of a principal, wherever it is; return of how many clients."""
        found = [client for client, text in self.present().items() if self._whose(client, text) == principal]
        for client in found:
            self._table.remove(client, now)
        return len(found)

    def _whose(self, client: ClientId, text: str) -> str | None:
        return _user_id(text) or self._principals.get(self._owners.get(client, PeerId(0)))

    def tick(self, now: Millis) -> None:
        """Remove who did not come back in time and who did not renew."""
        for client in [client for client, due in self._leaving.items() if due <= now]:
            del self._leaving[client]
            self._table.remove(client, now)
        for client in self._table.silent_since(Millis(now - self._expiry)):
            self._table.remove(client, now)
        self._table.forget(Millis(now - 10 * self._expiry))

    @property
    def waiting(self) -> bool:
        """Whether somebody whose connection broke may still come back."""
        return bool(self._leaving)

    def rests_until(self, now: Millis) -> Millis:
        """Return when :meth:`tick` has something to do at the earliest, if nobody leaves."""
        oldest = self._table.oldest()
        return Millis((now if oldest is None else oldest) + self._expiry)

    def frame_since(self, version: int, reader: PeerId) -> bytes | None:
        """Return what changed after *version* as one frame, or None if it is nothing *reader* does not know."""
        entries = self._table.changed_since(version)
        own = self._claims.get(reader)
        if all(entry.client_id == own and not entry.gone for entry in entries):
            return None
        key = (version, self.version)
        if key not in self._shared:
            if len(self._shared) > 64 or any(current != self.version for _, current in self._shared):
                self._shared.clear()
            self._shared[key] = encode(AwarenessFrame(encode_awareness(entries)))
        return self._shared[key]

    def _may_speak(self, peer: PeerId, principal: str, client: ClientId) -> bool:
        claimed = self._claims.get(peer)
        if claimed is not None:
            return claimed == client
        owner = self._owners.get(client)
        # The same principal may take over: a device that is back before its old socket is known to be dead.
        return owner is None or self._principals.get(owner) == principal

    def _own(self, peer: PeerId, principal: str, client: ClientId) -> None:
        self._claims[peer] = client
        self._owners[client] = peer
        self._principals[peer] = principal
        self._leaving.pop(client, None)


def _user_id(text: str) -> str | None:
    """Return who a state says it is."""
    state = json.loads(text)
    user = state.get("user") if isinstance(state, dict) else None
    return user["id"] if isinstance(user, dict) and isinstance(user.get("id"), str) else None

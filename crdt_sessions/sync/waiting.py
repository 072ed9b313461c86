"""Pending updates: their authors, the changes that they wait for, their number, and how long they are kept.

A pending update is only bytes. No document and no mirror has seen it, and nothing of it is stored, sent on or
acknowledged. When its time comes, its changes are its author's, no matter who brought the missing changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crdt_sessions.errors import TooMany
from crdt_sessions.ids import Millis, PeerId
from crdt_sessions.limits import Limits
from crdt_sessions.model import Later
from crdt_sessions.sync.actor import Actor

_ENTRY_BYTES, _CLOCK_BYTES = 1024, 256
"""Memory of an update in addition to its bytes, and of each clock that it names."""


@dataclass(slots=True, eq=False)
class WaitingUpdate:
    """One pending update."""

    number: int
    """Counts pending updates in the order in which they came."""
    later: Later
    author: PeerId | None
    """The connection that brought it, which may have ended; None if the update was on record."""
    actor: Actor | None
    """The author, as known when the connection ended; None if the update was on record."""
    since: Millis | None = None
    """When the connection ended; None if it has not."""
    tried: Millis | None = None
    """When its trial was asked for; None if it was not."""

    @property
    def cost(self) -> int:
        """Memory that it takes, about."""
        later = self.later
        return len(later.update) + _ENTRY_BYTES + _CLOCK_BYTES * (len(later.wakes) + len(later.reach))


class WaitingUpdates:
    """The pending updates of one session.

    Args:
        limits: how many there may be, and how much memory they may take; one connection may use half of each.
    """

    def __init__(self, limits: Limits) -> None:
        self.clients: dict[int, int] = {}
        """For each Yjs client whose changes are missing, a clock below which no pending update can become ready.

        It is empty if no update waits except those being tried. It is always the same dictionary.
        """
        self._most, self._most_bytes = limits.max_waiting, limits.max_waiting_bytes
        self._known: dict[int, WaitingUpdate] = {}
        self._of: dict[PeerId, set[int]] = {}
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def bytes(self) -> int:
        """Memory that they take, about."""
        return self._bytes

    @property
    def authors(self) -> Iterable[PeerId]:
        """The open connections that have brought pending updates."""
        return self._of.keys()

    # -- coming ------------------------------------------------------------------------------------------------

    def check_room(self, later: Later, author: PeerId) -> None:
        """Make room for one more: updates of connections that have ended are dropped, the oldest first.

        Raises:
            TooMany: there is no room. The peer still has the update, and should sync again.
        """
        cost = WaitingUpdate(0, later, author, None).cost
        own = [self._known[number] for number in self._of.get(author, ())]
        if 2 * (len(own) + 1) > self._most or 2 * (sum(each.cost for each in own) + cost) > self._most_bytes:
            raise TooMany(what="updates, or bytes of them, that need others first", limit=self._most // 2)
        for each in [each for each in self._known.values() if each.since is not None]:
            if self._fits(cost):
                return
            self.take(each.number)
        if not self._fits(cost):
            raise TooMany(what="updates, or bytes of them, that need others first", limit=self._most)

    def _fits(self, cost: int) -> bool:
        return len(self._known) < self._most and self._bytes + cost <= self._most_bytes

    def add(self, later: Later, author: PeerId | None, actor: Actor | None) -> bool:
        """Keep an update; tell whether it is new. An update that the same author brought before is not kept twice."""
        known = next((each for each in self._known.values() if self._same(each, later, author, actor)), None)
        if known is not None:
            self._own(known, author)
            return False
        self._count += 1
        self.put(WaitingUpdate(self._count, later, author, actor))
        return True

    def put(self, waiting: WaitingUpdate) -> None:
        """Keep an update again that was taken out, perhaps with less in it."""
        waiting.tried = None
        self._known[waiting.number] = waiting
        self._bytes += waiting.cost
        if waiting.author is not None and waiting.since is None:
            self._of.setdefault(waiting.author, set()).add(waiting.number)
        self._note(waiting)

    def _same(self, known: WaitingUpdate, later: Later, author: PeerId | None, actor: Actor | None) -> bool:
        mine = known.author == author or (known.since is not None and _name(known.actor) == _name(actor))
        return mine and known.later.update == later.update

    def _own(self, known: WaitingUpdate, author: PeerId | None) -> None:
        known.since = None
        known.author = author
        if author is not None:
            self._of.setdefault(author, set()).add(known.number)

    def _note(self, waiting: WaitingUpdate) -> None:
        for client, clock in waiting.later.wakes.items():
            self.clients[client] = min(clock, self.clients.get(client, clock))

    # -- going -------------------------------------------------------------------------------------------------

    def ready(self, clocks: Mapping[int, int], now: Millis) -> tuple[list[WaitingUpdate], list[WaitingUpdate]]:
        """Return the updates to try now that the document has *clocks*, and those that it holds already.

        The former count as being tried from *now* on; the latter are taken out.
        """
        if not any(clocks.get(client, 0) >= clock for client, clock in self.clients.items()):
            return [], []
        due: list[WaitingUpdate] = []
        done: list[WaitingUpdate] = []
        self.clients.clear()
        for each in list(self._known.values()):
            later = each.later
            if not later.deletes and all(clocks.get(client, 0) >= clock for client, clock in later.reach.items()):
                done.append(self._taken(each))
            elif each.tried is None and any(clocks.get(client, 0) >= clock for client, clock in later.wakes.items()):
                each.tried = now
                due.append(each)
            elif each.tried is None:
                self._note(each)
        return due, done

    def overdue(self, before: Millis) -> list[WaitingUpdate]:
        """Return the updates whose trial was asked for at *before* or earlier and has no outcome yet."""
        return [each for each in self._known.values() if each.tried is not None and each.tried <= before]

    def get(self, number: int) -> WaitingUpdate | None:
        """Return the update with this number, if it still waits."""
        return self._known.get(number)

    def take(self, number: int) -> WaitingUpdate | None:
        """Take the update with this number out, if it still waits; return it."""
        known = self._known.get(number)
        return self._taken(known) if known is not None else None

    def _taken(self, known: WaitingUpdate) -> WaitingUpdate:
        del self._known[known.number]
        self._bytes -= known.cost
        if known.author is not None and (own := self._of.get(known.author)) is not None:
            own.discard(known.number)
            if not own:
                del self._of[known.author]
        if not self._known:
            self.clients.clear()
        return known

    # -- those who brought them --------------------------------------------------------------------------------

    def first_of(self, author: PeerId) -> int | None:
        """Return the number of the first pending update of a connection."""
        return min(self._of[author]) if author in self._of else None

    def last_of(self, author: PeerId) -> int | None:
        """Return the number of the last pending update of a connection."""
        return max(self._of[author]) if author in self._of else None

    def left(self, author: PeerId, actor: Actor, now: Millis) -> int:
        """Note that a connection has ended, and its *actor*; return how many pending updates it leaves."""
        numbers = self._of.pop(author, set())
        for number in numbers:
            self._known[number].actor, self._known[number].since = actor, now
        return len(numbers)

    def drop(self, author: PeerId) -> None:
        """Forget the pending updates of a connection."""
        for number in list(self._of.get(author, ())):
            self.take(number)

    def forget(self, principal: str | None) -> None:
        """Forget the pending updates that a principal, or anybody if None, left on connections that have ended."""
        for each in [each for each in self._known.values() if each.since is not None]:
            if principal in (None, _name(each.actor)):
                self.take(each.number)

    def expire(self, before: Millis) -> int:
        """Forget the updates of connections that ended at *before* or earlier; return how many there were."""
        old = [each for each in self._known.values() if each.since is not None and each.since <= before]
        for each in old:
            self.take(each.number)
        return len(old)


def _name(actor: Actor | None) -> str | None:
    return actor.principal if actor is not None else None

"""Updates that wait: whose they are, what they wait for, how many there may be, and for how long.

They are bytes and nothing else. No document and no mirror has seen them, nothing of them is stored, sent on or
acknowledged, and what they do is their author's doing when their time has come, whoever brought what they waited for.
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
"""What an update costs beside its bytes, and each clock that it names."""


@dataclass(slots=True, eq=False)
class WaitingUpdate:
    """One of them."""

    number: int
    """In the order in which they came."""
    later: Later
    author: PeerId | None
    """The connection that brought it, which may have gone; None if it was on record."""
    actor: Actor | None
    """Whose it is, as of when the connection ended; None if it was on record."""
    since: Millis | None = None
    """When the connection ended."""
    tried: Millis | None = None
    """Since when it is being tried."""

    @property
    def cost(self) -> int:
        """Bytes of memory, about."""
        later = self.later
        return len(later.update) + _ENTRY_BYTES + _CLOCK_BYTES * (len(later.wakes) + len(later.reach))


class WaitingUpdates:
    """Those of one session.

    Args:
        limits: how many there may be, and how much memory they may take; a connection may have half of that.
    """

    def __init__(self, limits: Limits) -> None:
        self.clients: dict[int, int] = {}
        """For each Yjs client of which something is waited for, a clock before which nothing has become ready.

        Empty if nothing waits, but for what is being tried; always the same dictionary.
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
        """The connections, of those that are still there, that have brought some of them."""
        return self._of.keys()

    # -- coming ------------------------------------------------------------------------------------------------

    def check_room(self, later: Later, author: PeerId) -> None:
        """Return if there is room for one more. What those have left who are gone makes room, the oldest first.

        Raises:
            TooMany: there is not; whoever brings it has it still, and had better sync again.
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
        """Keep an update; tell whether it is new. One that its author left or brought before is not kept twice."""
        known = next((each for each in self._known.values() if self._same(each, later, author, actor)), None)
        if known is not None:
            self._own(known, author)
            return False
        self._count += 1
        self.put(WaitingUpdate(self._count, later, author, actor))
        return True

    def put(self, waiting: WaitingUpdate) -> None:
        """Keep one that was taken out again, perhaps with less in it."""
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
        """Return what is to be tried now that a document has these clocks, and what has come by another way.

        The former counts as being tried from now on; the latter is taken out.
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
        """Return those of which one has not heard since that moment what became of them."""
        return [each for each in self._known.values() if each.tried is not None and each.tried <= before]

    def get(self, number: int) -> WaitingUpdate | None:
        """Return one of them, if it is still there."""
        return self._known.get(number)

    def take(self, number: int) -> WaitingUpdate | None:
        """Take one of them out, if it is still there."""
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
        """Return the number of the first that waits on a connection."""
        return min(self._of[author]) if author in self._of else None

    def last_of(self, author: PeerId) -> int | None:
        """Return the number of the last that waits on a connection."""
        return max(self._of[author]) if author in self._of else None

    def left(self, author: PeerId, actor: Actor, now: Millis) -> int:
        """Note that a connection has ended, whose was *actor*'s at last; return how many it has left."""
        numbers = self._of.pop(author, set())
        for number in numbers:
            self._known[number].actor, self._known[number].since = actor, now
        return len(numbers)

    def drop(self, author: PeerId) -> None:
        """Forget what a connection has brought."""
        for number in list(self._of.get(author, ())):
            self.take(number)

    def forget(self, principal: str | None) -> None:
        """Forget what a principal, or anybody if None, has left on connections that have ended."""
        for each in [each for each in self._known.values() if each.since is not None]:
            if principal in (None, _name(each.actor)):
                self.take(each.number)

    def expire(self, before: Millis) -> int:
        """Forget what was left before that moment; return how many that were."""
        old = [each for each in self._known.values() if each.since is not None and each.since <= before]
        for each in old:
            self.take(each.number)
        return len(old)


def _name(actor: Actor | None) -> str | None:
    return actor.principal if actor is not None else None

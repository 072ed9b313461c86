"""What an update needs that may not have arrived, read without the library.

A struct can be integrated once everything its client wrote before it is there, and what it stands beside or in. The
library keeps what cannot be integrated yet inside the document, out of sight, where hostile structs do their harm as
soon as somebody else brings what they waited for. So updates are taken apart before it sees them: what can be
integrated *now*, all of it, and what must wait until *later*, with the clocks it waits for.

A client of the same library that inserts at a byte within a character says that the text stands before itself. That
could never be integrated, and would be lost with everything its client writes from then on; so it stands before
nothing. What the client inserts behind that text it says to stand behind and before one and the same thing. Each
replica would put that where its pieces of text happen to end; so it stands before nothing, too.
Source of the rule: Yjs ``encoding.js`` and ``Item.getMissing``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from crdt_sessions.errors import MalformedUpdate
from crdt_sessions.ids import ClientId
from crdt_sessions.wire.update_v1 import Parsed, Ranges, Struct, parse, select, without_astray

Clocks = Mapping[int, int]
"""A state vector: by client, the number of its structs that are there."""


class Later(NamedTuple):
    """What of an update must wait."""

    update: bytes
    wakes: dict[int, int]
    """Clocks by client: as soon as one of them is reached, it is worth while to look again."""
    reach: dict[int, int]
    """The clocks after its structs, by client. A replica that has reached them has everything it inserts."""
    deletes: bool
    """Whether it deletes something, too."""

    @property
    def authors(self) -> tuple[ClientId, ...]:
        """The clients that it holds structs of."""
        return tuple(map(ClientId, self.reach))


class Split(NamedTuple):
    """An update, taken apart."""

    now: bytes
    """What can be integrated; the empty update if that is nothing."""
    clocks: dict[int, int]
    """The clocks of the clients in it afterwards."""
    later: Later | None
    """What must wait; None if nothing must."""


def split(update: bytes, clocks: Clocks) -> Split:
    """Take an update apart into what can be integrated into a document of that state vector, and what must wait.

    Raises:
        MalformedUpdate: it cannot be read, names clocks that no client reaches, or waits for itself.
    """
    parsed = parse(update)
    if any(struct.astray for listed in parsed.inserted.values() for struct in listed):
        update = without_astray(update, parsed)
        parsed = parse(update)
    known = {client: clocks.get(client, 0) for client in parsed.inserted}
    taken = _integrate(parsed.inserted, clocks, known)
    whole = all(taken[client] == len(listed) for client, listed in parsed.inserted.items())
    if whole and all(_reached(ranges, client, known, clocks) for client, ranges in parsed.deleted.items()):
        return Split(update, known, None)
    return _apart(update, parsed, taken, known, clocks)


def _integrate(inserted: dict[int, list[Struct]], clocks: Clocks, known: dict[int, int]) -> dict[int, int]:
    """Return how many structs of each client can be integrated; *known* moves with them."""
    taken = dict.fromkeys(inserted, 0)
    blocked: dict[int, list[int]] = {}  # by client, the clients that wait for one of its structs
    to_do = list(inserted)
    while to_do:
        client = to_do.pop()
        at, listed, moved = taken[client], inserted[client], False
        while at < len(listed):
            struct = listed[at]
            if not struct.skip:
                if struct.clock > known[client]:
                    break
                lacks = next(
                    (who for who, clock in struct.needs if clock >= known.get(who, clocks.get(who, 0))), None
                )
                if lacks is not None:
                    blocked.setdefault(lacks, []).append(client)
                    break
                if (end := struct.clock + struct.size) > known[client]:
                    known[client], moved = end, True
            at += 1
        taken[client] = at
        if moved:
            to_do += blocked.pop(client, ())
    return taken


def _apart(update: bytes, parsed: Parsed, taken: dict[int, int], known: dict[int, int], clocks: Clocks) -> Split:
    now = {client: _trimmed(listed[: taken[client]]) for client, listed in parsed.inserted.items()}
    later = {client: _trimmed(listed[taken[client] :]) for client, listed in parsed.inserted.items()}
    gone: dict[int, Ranges] = {}
    kept: dict[int, Ranges] = {}
    for client, ranges in parsed.deleted.items():
        reach = known.get(client, clocks.get(client, 0))
        for clock, size in ranges:
            there = min(max(reach - clock, 0), size)
            if there:
                gone.setdefault(client, []).append((clock, there))
            if there < size:
                kept.setdefault(client, []).append((clock + there, size - there))
    wakes = _wakes(later, kept, lambda client: known.get(client, clocks.get(client, 0)))
    if not wakes:
        raise MalformedUpdate(size=len(update))  # in a circle: nothing that could come would help
    after = {client: max(each.clock + each.size for each in listed) for client, listed in later.items() if listed}
    return Split(
        select(update, now, gone), known, Later(select(update, later, kept), wakes, after, deletes=bool(kept))
    )


def _trimmed(listed: list[Struct]) -> list[Struct]:
    """Return *listed* without what says at its beginning, or at its end, that something lacks."""
    found = [at for at, struct in enumerate(listed) if not struct.skip]
    return listed[found[0] : found[-1] + 1] if found else []


def _wakes(
    later: dict[int, list[Struct]], deleted: dict[int, Ranges], reached: Callable[[int], int]
) -> dict[int, int]:
    """Return for what waits which clock it waits for first; nothing if it waits for nothing but itself."""
    wakes: dict[int, int] = {}
    outside = False

    def wait(client: int, clock: int) -> None:
        nonlocal outside
        wakes[client] = min(clock, wakes.get(client, clock))
        outside = outside or not any(each.clock < clock <= each.clock + each.size for each in later.get(client, ()))

    for client, listed in later.items():
        if listed and listed[0].clock > reached(client):
            wait(client, listed[0].clock)
        elif listed:
            wait(*next((who, clock + 1) for who, clock in listed[0].needs if clock >= reached(who)))
    for client, ranges in deleted.items():
        wait(client, min(clock for clock, _ in ranges) + 1)
    return wakes if outside else {}


def _reached(ranges: Ranges, client: int, known: dict[int, int], clocks: Clocks) -> bool:
    reach = known.get(client, clocks.get(client, 0))
    return all(clock + size <= reach for clock, size in ranges)

"""Many nodes over one database, simulated in memory: each write can be slow, lost, or come from a node that is gone.

:class:`SharedDatabase` keeps what a PostgreSQL database would, and remembers in which order things happened;
:class:`NodeStore` is the store of one node. :func:`check` holds a history against what nodes promise.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from crdt_sessions.errors import Fenced, HeldElsewhere, SessionNotFound, StoreUnavailable
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.storage import NO_ENTRIES, Entries, MemoryStore, Row, SessionRecord, StoredSession, UpdateStore
from crdt_sessions.storage.integrity import checksum

Result = TypeVar("Result")

_ENDED = frozenset({"completed", "failed", "cancelled", "interrupted"})
_SLOWEST = 6
"""Turns of the event loop that a write may take on its way, and its answer back."""


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that happened in the database, in its order."""

    what: str
    """``join``, ``own``, ``commit``, ``run`` or ``fence``."""
    node: int
    session: str = ""
    seq: int = 0
    content: int = 0
    """Checksum of a row."""
    run: str = ""
    epoch: int = 0
    status: str = ""


class SharedDatabase:
    """What nodes share.

    Args:
        rng: source of all trouble.
        lost: how often a write, or its answer, is lost: from 0 to 1.
    """

    def __init__(self, rng: random.Random, *, lost: float = 0.0) -> None:
        self.rng = rng
        self.lost = lost
        self.content = MemoryStore()
        """What is stored."""
        self.history: list[Happened] = []
        self.owners: dict[SessionId, int] = {}
        self.fenced: set[int] = set()
        self._nodes = 0

    def join(self) -> int:
        """Return the id of a new node."""
        self._nodes += 1
        self.history.append(Happened("join", self._nodes))
        return self._nodes

    def fence(self, node: int) -> None:
        """Have a node commit nothing any more: what it owned is free."""
        if node not in self.fenced:
            self.fenced.add(node)
            self.history.append(Happened("fence", node))

    def own(self, session: SessionId, node: int) -> None:
        """Make a session a node's.

        Raises:
            HeldElsewhere: it is another's that lives.
        """
        owner = self.owners.get(session)
        if owner == node:
            return
        if owner is not None and owner not in self.fenced:
            raise HeldElsewhere(session=session, node=owner)
        self.owners[session] = node
        self.history.append(Happened("own", node, session))


class NodeStore:
    """The store of one node. What changes nothing is read as it is; see :meth:`store` for its type.

    Args:
        database: the one that it shares.
        fenced: called when it finds out that it was counted as gone.
    """

    shared = True

    def __init__(self, database: SharedDatabase, fenced: Callable[[], None]) -> None:
        self._database = database
        self._fenced = fenced
        self._awake = asyncio.Event()
        self._awake.set()
        self._turns: dict[str, asyncio.Lock] = {}
        self.node = database.join()
        self.dead = False
        """Whether its process was killed: nothing of it arrives any more, and it joins no more."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database.content, name)

    @property
    def store(self) -> UpdateStore:
        """This, as what it is."""
        return cast(UpdateStore, self)

    def freeze(self) -> None:
        """Have what is on its way stay there until :meth:`thaw`."""
        self._awake.clear()

    def thaw(self) -> None:
        """Go on."""
        self._awake.set()

    # -- what changes something ----------------------------------------------------------------------------------

    async def create(self, session: SessionId, seed: bytes, **facts: Any) -> SessionRecord:
        """See :meth:`UpdateStore.create`."""

        async def create() -> SessionRecord:
            return await self._database.content.create(session, seed, **facts)

        return await self._write(session, create, [Row(Seq(1), seed)], new=True)

    async def load(self, session: SessionId) -> StoredSession | None:
        """See :meth:`UpdateStore.load`."""
        if await self._database.content.get(session) is None:
            return None

        async def load() -> StoredSession | None:
            return await self._database.content.load(session)

        return await self._write(session, load)

    async def append(
        self, session: SessionId, rows: Sequence[Row], *, entries: Entries = NO_ENTRIES, now: Millis
    ) -> None:
        """See :meth:`UpdateStore.append`."""

        async def append() -> None:
            await self._database.content.append(session, rows, entries=entries, now=now)

        await self._write(session, append, rows, entries)

    async def replace_with_snapshot(self, session: SessionId, snapshot: Row, **facts: Any) -> None:
        """See :meth:`UpdateStore.replace_with_snapshot`."""

        async def fold() -> None:
            await self._database.content.replace_with_snapshot(session, snapshot, **facts)

        await self._write(session, fold)

    async def describe(self, session: SessionId, **facts: Any) -> None:
        """See :meth:`UpdateStore.describe`."""

        async def describe() -> None:
            await self._database.content.describe(session, **facts)

        await self._write(session, describe)

    async def take_due(self, now: Millis, *, limit: int) -> Sequence[SessionId]:
        """See :meth:`UpdateStore.take_due`."""
        due = await self._database.content.take_due(now, limit=limit)
        return [each for each in due if self._takes(each)]

    def _takes(self, session: SessionId) -> bool:
        if self.dead or self.node in self._database.fenced or not self._awake.is_set():
            return False
        try:
            self._database.own(session, self.node)
        except HeldElsewhere:
            return False
        return True

    async def _write(
        self,
        session: SessionId,
        do: Callable[[], Awaitable[Result]],
        rows: Sequence[Row] = (),
        entries: Entries = NO_ENTRIES,
        *,
        new: bool = False,
    ) -> Result:
        async with self._turns.setdefault(session, asyncio.Lock()):
            await self._under_way()
            self._lose()
            if self.dead or self.node in self._database.fenced:
                self._find_out()
            if not new and await self._database.content.get(session) is None:
                raise SessionNotFound(session=session)
            self._database.own(session, self.node)
            result = await do()  # which waits for nothing
            self._remember(session, rows, entries)
            await self._under_way()
            self._lose()
            return result

    async def _under_way(self) -> None:
        for _ in range(self._database.rng.randrange(_SLOWEST)):
            await asyncio.sleep(0)
        await self._awake.wait()

    def _lose(self) -> None:
        if self._database.rng.random() < self._database.lost:
            raise StoreUnavailable("the connection is lost; what was being written may be stored")

    def _find_out(self) -> None:
        gone = self.node
        if not self.dead:
            self.node = self._database.join()
            self._fenced()
        raise Fenced(node=gone)

    def _remember(self, session: SessionId, rows: Sequence[Row], entries: Entries) -> None:
        history = self._database.history
        history += [Happened("commit", self.node, session, row.seq, checksum(session, row)) for row in rows]
        for each in entries.runs:
            epoch = json.loads(each.data)["epoch"]
            history.append(Happened("run", self.node, session, run=each.id, epoch=epoch, status=each.status))


def check(history: Sequence[Happened]) -> None:
    """Hold a history against what nodes promise, whatever happens to them.

    Raises:
        AssertionError: it breaks a promise: the message says which, and where.
    """
    fenced: set[int] = set()
    owners: dict[str, int] = {}
    logs: dict[tuple[str, int], int] = {}
    ends: dict[str, int] = {}
    runs: dict[tuple[str, str], Happened] = {}
    for each in history:
        assert each.node not in fenced or each.what == "fence", f"a commit behind the fence: {each}"
        if each.what == "fence":
            fenced.add(each.node)
        elif each.what == "own":
            owner = owners.get(each.session)
            assert owner is None or owner in fenced, f"two owners: {owner} and {each}"
            owners[each.session] = each.node
        elif each.what == "commit":
            assert owners.get(each.session) == each.node, f"a commit of somebody who is not the owner: {each}"
            known = logs.setdefault((each.session, each.seq), each.content)
            assert known == each.content, f"two rows of one number: {each}"
            assert each.seq == ends.get(each.session, 0) + 1, f"a gap, or a row twice: {each}"
            ends[each.session] = each.seq
        elif each.what == "run":
            _check_run(runs.get((each.session, each.run)), each)
            runs[each.session, each.run] = each


def _check_run(before: Happened | None, now: Happened) -> None:
    if before is None:
        return
    assert now.epoch >= before.epoch, f"an epoch that shrinks: {before}, {now}"
    if before.status in _ENDED:
        assert (now.status, now.epoch) == (before.status, before.epoch), f"a run ends twice: {before}, {now}"

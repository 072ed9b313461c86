"""Which nodes live: this one says so every second, watches the others, and fences those that are gone.

A node is one start of a process. Who is fenced commits nothing any more, so it never matters for what is stored
whether a node was really gone, or whose clock is right: the beats only say when somebody may take over.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

from crdt_sessions.clock import steady_ns
from crdt_sessions.errors import StorageError
from crdt_sessions.storage.defects import defect
from crdt_sessions.storage.peers import Peer
from crdt_sessions.storage.postgres.connection import Connection, application_name, close
from crdt_sessions.storage.postgres.errors import translated
from crdt_sessions.storage.postgres.fencing import fence, is_disconnected
from crdt_sessions.storage.postgres.server_time import ServerTime

_log = logging.getLogger("crdt_sessions.storage")

_NODE_BITS = 63
_BEAT = "UPDATE beats SET n = n + 1, at = now(), live = $2, connections = $3, passed_on = $4 WHERE node = $1"
_LOOK = (
    "SELECT nodes.node, nodes.name, nodes.address, nodes.draining, beats.n,"
    " EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'crdt-sessions/' || nodes.node)"
    " FROM nodes JOIN beats USING (node) WHERE NOT gone"
)
_JOIN = (
    "WITH node AS (INSERT INTO nodes (node, name, version, address) VALUES ($1, $2, $3, $5)),"
    " beat AS (INSERT INTO beats (node) VALUES ($1))"
    " INSERT INTO lanes (node, lane) SELECT $1, generate_series(0, $4::int - 1)"
)
_DRAIN = "UPDATE nodes SET draining = true WHERE node = $1"
_FORGET = (
    "WITH gone AS (DELETE FROM nodes WHERE gone AND started < now() - interval '7 days' RETURNING node),"
    " beat AS (DELETE FROM beats USING gone WHERE beats.node = gone.node)"
    " DELETE FROM lanes USING gone WHERE lanes.node = gone.node"
)
"""A lane that is not there is as good as one that is fenced."""

_FENCE_S = 60.0
"""For how long a fence may wait for what its node had under way; then another look is taken first."""


@dataclass(frozen=True, slots=True)
class Lease:
    """When a node counts as gone. None of it matters for what is stored."""

    beat_s: float = 1.0
    """How often a node says that it lives."""
    silent_s: float = 5.0
    """After how long a node is gone that is connected and says nothing."""
    absent_s: float = 1.5
    """After how long one is that says nothing and has no connection to the server."""


@dataclass(slots=True)
class _Seen:
    beats: int
    since: float
    present: bool
    """Whether it has a connection to the server."""
    peer: Peer


class Nodes:
    """This process as a node, and the others.

    Args:
        connect: makes a connection of a name.
        lanes: how many connections of a node write.
        version: the release, for people who look at the table.
        address: where this node listens for the others; empty if it does not.
        lease: when a node counts as gone.
        fenced: called when this node was fenced; it is another one from then on, which owns nothing.
    """

    def __init__(
        self,
        connect: Callable[[str], Awaitable[Connection]],
        *,
        lanes: int,
        version: str,
        address: str,
        lease: Lease,
        fenced: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._lanes = lanes
        self._version = version
        self._address = address
        self._lease = lease
        self._fenced = fenced
        self._joining = asyncio.Lock()
        self._changed = asyncio.Event()
        self._seen: dict[int, _Seen] = {}
        self._beating: asyncio.Task[None] | None = None
        self._fencing: dict[int, asyncio.Task[None]] = {}
        self._connection: Connection | None = None
        self.time = ServerTime()
        """What the database's clock says."""
        self.me = 0
        """This node's id; 0 if it has none."""
        self.draining = False
        """Whether this node is about to stop, and takes no sessions any more."""
        self.others: list[Peer] = []
        """The other nodes that live, as far as this one has last seen."""
        self._heard_at = 0.0  # when the last beat began that the server took
        self._serves_until = 0.0
        self._answered = False  # whether the server answered at the last beat, whatever came of the rest
        self._suspecting = asyncio.Lock()
        self._freed: set[int] = set()
        """Nodes that were found to have died since the others were looked at."""
        self.on_look: Callable[[Collection[int]], None] = _nothing_seen
        """Called with all nodes that live, whenever they have been looked at."""
        self.is_cut_off: Callable[[], Awaitable[bool]] = _nobody_to_ask
        """Called while the server has not heard of this node for too long: whether it hears of others."""
        self.on_silence: Callable[[], None] = _nothing_to_leave
        """Called when the server says nothing for so long that others count this node as gone."""
        self.figures: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
        """Returns what people are shown of this node: sessions in memory, connections, and sockets for others."""

    def start(self) -> None:
        """Begin to say that this node lives."""
        self._beating = asyncio.create_task(self._beat(), name="postgres beat")

    async def joined(self) -> int:
        """Return this node's id; a new one if it has none, or was fenced."""
        if self.me == 0:
            async with self._joining:
                if self.me == 0:
                    begun = _steady()
                    self.me = await self._join()
                    self._note_heard(begun)
        return self.me

    def _note_heard(self, begun: float) -> None:
        """Note that the server took what was begun at a time: nobody has counted this node as gone before."""
        self._heard_at, self._serves_until = begun, begun + self._lease.silent_s

    def lost(self, node: int) -> None:
        """Take note that the node *node* was fenced, if this process is that one."""
        if node == self.me:
            _log.error("this node was counted as gone and is fenced: its sessions are loaded anew")
            self.me = 0
            self._seen.clear()
            self._fenced()

    @property
    def reaches(self) -> bool:
        """Whether the database has heard of this node lately, so that nobody counts it as gone."""
        return _steady() < self._heard_at + self._lease.silent_s

    @property
    def serves(self) -> bool:
        """Whether this node may tell anybody what it has: else another one may have gone on from there.

        It knows by a clock that goes on while the process or the machine sleeps, without asking anybody.
        """
        return _steady() < self._serves_until

    async def drain(self) -> None:
        """Tell the others that this node is about to stop.

        Raises:
            StorageError: the server cannot be told.
        """
        self.draining = True
        async with self._separately() as connection:
            with translated():
                await connection.execute(_DRAIN, self.me)

    async def suspect(self, node: int) -> None:
        """Have the sessions of a node be free if it has no connection to the server, since nobody is at its address.

        Raises:
            StorageError: the server cannot be asked.
        """
        async with self._suspecting:  # many may have come for its sessions at once
            if node in self._freed or node == self.me:
                return
            async with self._separately() as connection:
                if await is_disconnected(connection, node):
                    _log.warning("node %d is not there any more: it is fenced, and its sessions are free", node)
                    await fence(connection, node)
                    self._freed.add(node)
                    self._forget(node)

    async def leave(self) -> None:
        """Have everything that this node owns be free at once."""
        if self._beating is not None:
            ending = {self._beating, *self._fencing.values()}
            for task in ending:
                task.cancel()
            await asyncio.wait(ending)
        await close(self._connection)
        if self.me:
            try:
                async with asyncio.timeout(self._lease.silent_s):
                    await self._fence(self.me)
            except (StorageError, TimeoutError) as error:
                _log.warning("others will wait for the node's end: %s", error or "no answer")

    def silent(self, node: int) -> bool:
        """Tell whether another node missed its last beats, and may be gone soon."""
        seen = self._seen.get(node)
        if seen is None or not seen.present:
            return True
        return asyncio.get_running_loop().time() - seen.since > 2 * self._lease.beat_s

    async def looked(self) -> None:
        """Return when the other nodes have been looked at once more."""
        self._changed.clear()
        await self._changed.wait()

    @property
    def patience_s(self) -> float:
        """After how long a silent node is gone, at the latest."""
        return self._lease.silent_s + 2 * self._lease.beat_s

    async def _join(self) -> int:
        node = secrets.randbits(_NODE_BITS) or 1
        connection = await self._connect(application_name(node))
        try:
            with translated():
                await connection.execute(_FORGET)
                await connection.execute(_JOIN, node, socket.gethostname(), self._version, self._lanes, self._address)
            await self.time.look(connection)
        finally:
            await close(connection)
        return node

    async def _beat(self) -> None:
        while True:
            try:
                await self._try_to_look()
            except Exception as error:  # noqa: BLE001 - a node that beats no more would soon count as gone
                defect(error, "a defect while nodes were looked at")
            self._changed.set()
            await asyncio.sleep(self._lease.beat_s)

    async def _try_to_look(self) -> None:
        try:
            async with asyncio.timeout(self._lease.silent_s):
                await self._look()
        except (StorageError, TimeoutError) as error:
            _log.warning("this node cannot say that it lives: %s", error or "no answer")
            self._seen.clear()  # whatever others have said meanwhile was not heard
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            if isinstance(error, TimeoutError) and not self._answered:
                self.on_silence()
            await self._doubt()

    async def _doubt(self) -> None:
        """Find out whether others go on without this node. If the server is away for all, it shows what it has."""
        if self._serves_until > _steady() + self._lease.beat_s:
            return
        cut_off = await self.is_cut_off()
        if not self._serves_until:
            return
        if not cut_off:
            self._serves_until = _steady() + 3 * self._lease.beat_s
        elif not await self._is_heard_again():
            _log.error("other nodes reach the database and this one does not: its sessions are dropped")
            self._serves_until = 0.0
            self._fenced()

    async def _is_heard_again(self) -> bool:
        """Tell whether the server is back for this node, too: after an outage some node is always the first."""
        try:
            async with asyncio.timeout(self._lease.beat_s):
                await self._look()
        except (StorageError, TimeoutError):
            return False
        return True

    async def _look(self) -> None:
        self._answered = False
        me = await self.joined()
        connection = await self._connected(me)
        begun = _steady()
        with translated():
            await connection.execute(_BEAT, me, *self.figures())
            found = {row["node"]: row for row in await connection.fetch(_LOOK)}
        self._freed.clear()
        if me not in found:
            self.lost(me)
            return
        self._note_heard(begun)
        await self.time.look(connection)
        self._answered = True  # what follows may wait for others
        now = asyncio.get_running_loop().time()
        before, self._seen = self._seen, {}
        for node, row in found.items():
            seen = before.get(node)
            since = seen.since if seen is not None and seen.beats == row["n"] else now
            peer = Peer(node, row["address"], row["draining"], row["name"])
            self._seen[node] = seen = _Seen(row["n"], since, row["exists"], peer)
            patience_s = self._lease.silent_s if seen.present else self._lease.absent_s
            if node != me and now - seen.since >= patience_s:
                self._begin_fencing(node)
        self.others = [seen.peer for node, seen in self._seen.items() if node != me]
        self.on_look([*self._seen])

    def _begin_fencing(self, node: int) -> None:
        """Fence a silent node beside the beats: it may take longer than this one may be silent itself."""
        if node not in self._fencing:
            self._fencing[node] = asyncio.create_task(self._fence_silent(node), name=f"fence {node}")

    async def _fence_silent(self, node: int) -> None:
        _log.warning("node %d has not been heard of: it is fenced, and its sessions are free then", node)
        try:
            async with asyncio.timeout(_FENCE_S):
                await self._fence(node)
            self._forget(node)
        except (StorageError, TimeoutError) as error:
            _log.warning("node %d is not fenced yet: %s", node, error or "no answer")
        except Exception as error:  # noqa: BLE001 - it is tried again at the next look
            defect(error, "a defect while a node was fenced")
        finally:
            del self._fencing[node]

    def _forget(self, node: int) -> None:
        """Take note that a node is fenced."""
        self._seen.pop(node, None)
        self.others = [peer for peer in self.others if peer.node != node]
        self.on_look([*self._seen])
        self._changed.set()

    async def _connected(self, me: int) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._seen.clear()
            self._connection = await self._connect(application_name(me))
            with translated():
                await self._connection.execute("SET synchronous_commit = off")
        return self._connection

    async def _fence(self, node: int) -> None:
        async with self._separately() as connection:
            await fence(connection, node)

    @asynccontextmanager
    async def _separately(self) -> AsyncIterator[Connection]:
        """Have a connection that is nobody's: it does not end with those of a node."""
        connection = await self._connect("crdt-sessions")
        try:
            yield connection
        finally:
            await close(connection)


def _nothing_seen(living: Collection[int]) -> None:
    pass


def _nothing_to_leave() -> None:
    pass


async def _nobody_to_ask() -> bool:
    return False


def _steady() -> float:
    return steady_ns() / 1e9

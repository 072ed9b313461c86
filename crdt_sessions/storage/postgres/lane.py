"""A lane: what one connection writes, and what waits for it.

Whatever rows wait while a commit is under way go into the next one together, as one statement. What becomes of a
statement whose answer is lost is the business of ``lane_connection``; ``heads`` remembers where logs end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import asyncpg

from crdt_sessions import failpoints
from crdt_sessions.errors import (
    CrdtSessionsError,
    Fenced,
    HeldElsewhere,
    Regressed,
    SessionNotFound,
    StorageError,
    StoreUnavailable,
)
from crdt_sessions.ids import SessionId
from crdt_sessions.storage.defects import defect
from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.postgres.errors import Again, Refused
from crdt_sessions.storage.postgres.heads import Head, Heads
from crdt_sessions.storage.postgres.lane_connection import LaneConnection, Membership
from crdt_sessions.storage.postgres.records import Append, statement_for
from crdt_sessions.storage.postgres.statements import NOTHING, fenced

_log = logging.getLogger("crdt_sessions.storage")
Result = TypeVar("Result")

_ATTEMPTS = 5
_MAX_REST_S = 0.001
_CATCH_UP_S = 1.0
"""How far ``sessions`` may lag behind the rows."""

_LOOK = (
    "SELECT id, sid, owner, EXISTS (SELECT FROM nodes WHERE node = owner AND NOT gone),"
    " greatest((SELECT max(seq) FROM updates WHERE updates.sid = sessions.sid),"
    " (SELECT max(seq) FROM snapshots WHERE snapshots.sid = sessions.sid), 0)"
    " FROM sessions WHERE id = ANY($1::text[]) AND deleted_at IS NULL"
)
_TAKE = fenced(
    "taken",
    free="SELECT sessions.sid FROM sessions JOIN unnest($4::bigint[], $5::bigint[]) AS seen (sid, owner)"
    " ON sessions.sid = seen.sid WHERE deleted_at IS NULL AND sessions.owner IS NOT DISTINCT FROM seen.owner"
    " ORDER BY sessions.sid FOR NO KEY UPDATE OF sessions",
    taken="UPDATE sessions SET owner = $2 FROM free WHERE sessions.sid = free.sid",
)
"""Only from the owners that were read: whether those live is older than a wait for the sessions' rows.

All nodes lock rows in the same order.
"""
_CATCH_UP = fenced(
    heads="UPDATE sessions SET last_seq = head.last, updated_at = head.at"
    " FROM unnest($4::bigint[], $5::bigint[], $6::bigint[]) AS head (sid, last, at)"
    " WHERE sessions.sid = head.sid AND owner = $2 AND deleted_at IS NULL"
)
_RELEASE = fenced(released="UPDATE sessions SET owner = NULL WHERE id = ANY($4::text[]) AND owner = $2")


@dataclass(slots=True)
class Own:
    """Has a session belong to this node; the result is its ``sid``. Many are acquired by one statement."""

    session: SessionId


@dataclass(slots=True)
class Release:
    """Has a session be nobody's. Those of many sessions are one statement."""

    session: SessionId


@dataclass(slots=True)
class _Queued:
    job: Append | Own | Release | Callable[[Lane], Awaitable[Any]]
    done: asyncio.Future[Any]


class Lane:
    """Writes for as long as the store is open.

    Args:
        number: which of the node's lanes it is.
        membership: says which node this is.
        connect: makes a connection of a name.
    """

    def __init__(self, number: int, membership: Membership, connect: Callable[[str], Awaitable[Connection]]) -> None:
        self._heads = Heads()
        self._connection = LaneConnection(number, membership, connect, self._heads)
        self._catching_up: asyncio.TimerHandle | None = None
        self._queue: asyncio.Queue[_Queued | None] = asyncio.Queue()
        self._doing: list[_Queued] = []
        self._task = asyncio.create_task(self._run(), name=f"postgres lane {number}")
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Finish the writes that wait, then close the connection."""
        if self._catching_up is not None:
            self._catching_up.cancel()
        if self._heads.lag():
            self._catch_up()
        self._queue.put_nowait(None)
        await asyncio.wait({self._task})
        await self._connection.close()

    def leave(self) -> None:
        """See :meth:`LaneConnection.leave`."""
        self._connection.leave()

    # -- from outside --------------------------------------------------------------------------------------------

    def submit(self, job: Append | Own | Release | Callable[[Lane], Awaitable[Result]]) -> asyncio.Future[Result]:
        """Have *job* done in its turn; return what ends with its result once that is durable.

        A job may be done again from the start, if nothing of what it wrote last is stored.
        """
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._task.done():
            done.set_exception(StorageError("the store is closed"))
        else:
            self._queue.put_nowait(_Queued(job, done))
        return done

    def lags(self, session: SessionId | None = None) -> bool:
        """Tell whether ``sessions`` does not say yet where a log ends, or any."""
        return self._heads.lag(session)

    # -- for jobs ------------------------------------------------------------------------------------------------

    @property
    def node(self) -> int:
        """The node that it has written for last."""
        return self._connection.node

    async def owned(self, session: SessionId) -> int:
        """Return the ``sid`` of a session that belongs to this node from now on.

        Raises:
            SessionNotFound: there is none.
            HeldElsewhere: it belongs to another node that lives.
            StorageError: it cannot be taken.
        """
        try:
            return (await self._head(session)).sid
        except Regressed as error:
            self._heads.accepted(session, error)
            raise

    def fetch(self, statement: str, *values: Any) -> Awaitable[list[asyncpg.Record]]:
        """Return what a statement finds that changes nothing; see :meth:`LaneConnection.fetch`."""
        return self._connection.fetch(statement, *values)

    def write(self, statement: str, *values: Any) -> Awaitable[None]:
        """Return once a statement is durable; see :meth:`LaneConnection.write`."""
        return self._connection.write(statement, *values)

    def forget(self, session: SessionId) -> None:
        """Forget where a log ends: the session is gone."""
        self._heads.forget(session)

    # -- inside --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        free_at = 0.0
        closing = False
        while not closing:
            group = [await self._queue.get()]
            await asyncio.sleep(max(0.0, free_at - loop.time()))  # what comes in this turn of the loop may join
            while not self._queue.empty():
                group.append(self._queue.get_nowait())
            closing = None in group
            begun = loop.time()
            self._doing = [queued for queued in group if queued is not None]
            await self._do(self._doing)
            if self._heads.lag() and self._catching_up is None:
                self._catching_up = loop.call_later(_CATCH_UP_S, self._catch_up)
            now = loop.time()
            free_at = now + min(now - begun, _MAX_REST_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting, should the lane ever fail in a way that is not PostgreSQL's."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        failed = defect(error, "a lane failed")
        for queued in [*self._doing, *(self._queue.get_nowait() for _ in range(self._queue.qsize()))]:
            if queued is not None and not queued.done.done():
                queued.done.set_exception(failed)

    async def _do(self, jobs: Sequence[_Queued]) -> None:
        for kind, run in groupby(jobs, lambda queued: type(queued.job)):
            queue = list(run)
            if kind is Append:
                await self._append(queue)
            elif kind is Release:
                await self._perform(queue, _releasing(queue))
            elif kind is Own:
                await self._own(queue)
            else:
                for queued in queue:
                    await self._perform([queued], queued.job)

    async def _perform(self, queue: Sequence[_Queued], job: Any) -> None:
        """Do a job, and tell whoever waits for it."""

        async def do() -> Any:
            await self._tell()
            return await job(self)

        try:
            result = await _persisting(do)
        except CrdtSessionsError as error:
            for queued in queue:
                _fail(queued, error)
        else:
            for queued in queue:
                if not queued.done.done():
                    queued.done.set_result(result)

    async def _append(self, queue: Sequence[_Queued]) -> None:
        """Append what can be: one that fails leaves the others alone, but for those behind it."""
        if not queue:
            return
        refused: dict[int, CrdtSessionsError] = {}

        async def do() -> None:
            refused.clear()
            appends = await self._that_follow([queued.job for queued in queue], refused)
            if appends:
                await self._insert(appends)

        try:
            await _persisting(do)
        except CrdtSessionsError as error:
            if _is_of_one(error, queue):
                for queued in queue:
                    await self._append([queued])
                return
            refused = {at: refused.get(at, error) for at in range(len(queue))}
        for at, queued in enumerate(queue):
            if at in refused:
                self._refuse(queued, refused[at])
            elif not queued.done.done():
                queued.done.set_result(None)

    async def _that_follow(self, appends: Sequence[Any], refused: dict[int, CrdtSessionsError]) -> list[Append]:
        """Return what follows the ends of logs; put the others into *refused* by their place."""
        ends: dict[SessionId, int] = {}
        good: list[Append] = []
        for at, each in enumerate(appends):
            try:
                end = ends.get(each.session) or (await self._head(each.session)).seq
                if each.rows[0].seq != end + 1:
                    raise StorageError(f"rows for {each.session!r} do not follow row {end}")
            except (StoreUnavailable, Fenced):
                raise
            except CrdtSessionsError as error:
                refused[at] = error
                continue
            ends[each.session] = each.rows[-1].seq
            good.append(each)
        return good

    async def _insert(self, appends: Sequence[Append]) -> None:
        for _ in appends:
            failpoints.reach("before-append")
        heads = [self._heads[each.session] for each in appends]  # they are forgotten where the connection is lost
        statement, values = statement_for([(head.sid, each) for head, each in zip(heads, appends, strict=True)])
        failpoints.reach("before-commit")
        await self.write(statement, *values)
        failpoints.reach("after-commit")
        for head, each in zip(heads, appends, strict=True):
            self._heads.appended(each.session, head, each.rows[-1].seq, each.now)

    async def _head(self, session: SessionId) -> Head:
        await self._connection.connected()
        head = self._heads.get(session) or (await self._take([session]))[session]
        if isinstance(head, CrdtSessionsError):
            raise head
        return head

    async def _own(self, queue: Sequence[_Queued]) -> None:
        """Have sessions belong to this node; one that cannot be had leaves the others alone."""
        names = [queued.job.session for queued in queue if isinstance(queued.job, Own)]

        async def do() -> dict[SessionId, Head | CrdtSessionsError]:
            await self._tell()
            await self._connection.connected()
            wanted = set(names)
            known = {session: head for session in wanted if (head := self._heads.get(session)) is not None}
            return {**known, **await self._take(wanted - known.keys())}

        try:
            found = await _persisting(do)
        except CrdtSessionsError as error:
            if _is_of_one(error, queue):
                for queued in queue:
                    await self._own([queued])
                return
            found = dict.fromkeys(names, error)
        for session, queued in zip(names, queue, strict=True):
            head = found[session]
            if isinstance(head, CrdtSessionsError):
                self._refuse(queued, head)
            elif not queued.done.done():
                queued.done.set_result(head.sid)

    def _refuse(self, queued: _Queued, error: CrdtSessionsError) -> None:
        """Fail what was to be done with one session."""
        if isinstance(error, Regressed) and isinstance(queued.job, Append | Own):
            self._heads.accepted(queued.job.session, error)
        _fail(queued, error)

    async def _take(self, sessions: Collection[SessionId]) -> dict[SessionId, Head | CrdtSessionsError]:
        """Acquire sessions, then read where their logs end: two statements, so that the second sees all of it.

        Returns where each log ends, or why this node cannot have it.
        """
        found: dict[SessionId, Head | CrdtSessionsError] = {}
        for _ in range(_ATTEMPTS):
            left = [session for session in sessions if session not in found]
            if not left:
                return found
            looked = {row["id"]: row for row in await self.fetch(_LOOK, left)}
            free = []
            for session in left:
                try:
                    head = self._had(session, looked.get(session))
                except CrdtSessionsError as error:
                    found[session] = error
                    continue
                if head is None:
                    free.append(looked[session])
                else:
                    found[session] = head
            if free:
                await self._acquire(free)
                for _ in free:
                    failpoints.reach("acquired")
        unsteady = {session: StoreUnavailable(f"the session {session!r} changes hands") for session in sessions}
        return {**unsteady, **found}

    async def _acquire(self, free: Sequence[asyncpg.Record]) -> None:
        """Take sessions that belong to nobody who lives, but for those where somebody else is faster."""
        try:
            await self.write(_TAKE, [row["sid"] for row in free], [row["owner"] for row in free])
        except Refused as error:
            if error.why != NOTHING:
                raise

    def _had(self, session: SessionId, looked: asyncpg.Record | None) -> Head | None:
        """Return where the log of a session ends, by what :data:`_LOOK` says of it; None if it is to be acquired.

        Raises:
            SessionNotFound: there is none.
            HeldElsewhere: it belongs to another node that lives.
            Regressed: it has less than was acknowledged.
        """
        if looked is None:
            raise SessionNotFound(session=session)
        _, sid, owner, lives, seq = looked
        if owner == self.node:
            return self._heads.read(session, Head(sid, seq))
        if owner is not None and lives:
            raise HeldElsewhere(session=session, node=owner)
        return None

    def _catch_up(self) -> None:
        self._catching_up = None
        trying = self.submit(nothing)
        trying.add_done_callback(lambda done: done.cancelled() or done.exception())  # the next one tries again

    async def _tell(self) -> None:
        """Have ``sessions`` say where logs end."""
        if self._heads.lag():
            await self._connection.connected()  # to a server that may have lost what there was to tell
            if behind := self._heads.behind():
                await self.write(_CATCH_UP, *map(list, zip(*behind.values(), strict=True)))
                self._heads.told(behind)


async def nothing(lane: Lane) -> None:
    """Do nothing; whatever is done tells ``sessions`` where logs end first."""


def _releasing(queue: Sequence[Any]) -> Callable[[Lane], Awaitable[None]]:
    sessions = [queued.job.session for queued in queue]

    async def job(lane: Lane) -> None:
        await lane.write(_RELEASE, sessions)
        for session in sessions:
            lane.forget(session)

    return job


async def _persisting(do: Callable[[], Awaitable[Result]]) -> Result:
    """Return what *do* does, which is tried again if it may be.

    Raises:
        CrdtSessionsError: it cannot be done, be it for a defect.
    """
    last: Again | None = None
    for _ in range(_ATTEMPTS):
        try:
            return await do()
        except Again as error:
            _log.warning("%s; it is tried again", error)
            last = error
        except CrdtSessionsError:
            raise
        except Exception as error:
            raise defect(error, "a defect in what a lane does") from error
    raise StoreUnavailable(str(last)) from last


def _is_of_one(error: CrdtSessionsError, queue: Sequence[_Queued]) -> bool:
    """Tell whether one of many may have failed them all: each is to be done by itself then."""
    return len(queue) > 1 and not isinstance(error, StoreUnavailable | Fenced)


def _fail(queued: _Queued, error: CrdtSessionsError) -> None:
    if not queued.done.done():  # the caller may have been cancelled
        queued.done.set_exception(error)

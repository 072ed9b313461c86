"""Foreign updates are applied in another process first: what kills or hangs that one cannot hurt the service.

A *mirror* of each session's document that gets unusual updates is kept there. What an update changes there is
written anew by the library and applied here; one on which that process dies, hangs or runs out of memory is refused,
and a new process takes its place. Two of them judge: the quick one, and one that takes over sessions in which
something went wrong, so that those who send such things wait for each other and not the rest of us. A third one folds
rows into snapshots.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from crdt_sessions.errors import EarlyUpdate, MalformedUpdate, PanickedUpdate, StorageError
from crdt_sessions.ids import ClientId
from crdt_sessions.model import Folded
from crdt_sessions.runtime.sandbox_process import (
    DIED,
    EARLY,
    FINE,
    FOLD,
    FORGET,
    GIVE_UP,
    HARMFUL,
    LOAD,
    LOOK,
    MALFORMED,
    OPEN,
    TASTE,
    WAY_BACK,
    patience_for,
    request,
)
from crdt_sessions.sync import Tasted
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import Reader

_PROGRAM = "from crdt_sessions.runtime.sandbox_process import main; main()"

_log = logging.getLogger("crdt_sessions.sandbox")
_QUICK_S, _PATIENT_S, _FOLD_S, _START_S, _FUNERAL_S = 1.0, 5.0, 300.0, 60.0, 1.0
_STARVED = 10
"""How many times its patience a request may take by the clock: on a machine with too much to do, others' work counts
there as well, and a peer is closed for good for what is taken for harm."""
_STRIKES, _BARRED = 3, 200
_MAX_MIRRORS_BYTES = 64 * 1024 * 1024


class _Died(Exception):
    """The process did not survive the request, or did not answer in time."""


class _Process:
    """One process, started when it is first needed and again after each death. Requests are taken one by one."""

    def __init__(self, name: str, memory_bytes: int, patience_s: float, program: str) -> None:
        self._name = name
        self._program = program
        self._memory = memory_bytes
        self._patience = patience_s
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self.mirrors: dict[str, int] = {}
        """Bytes of each mirror, the one used last at the end."""
        self.deaths = 0

    async def ask(self, prepare: Callable[[], Sequence[bytes]]) -> tuple[int, bytes]:
        """Return the answer to the last of the requests that *prepare* returns.

        It is called when it is their turn: who had it before may have been the end of all mirrors.

        Raises:
            _Died: there is none.
        """
        async with self._turn:
            child = await self._started()
            assert child.stdin is not None
            assert child.stdout is not None
            requests = prepare()
            answer = bytes([DIED])
            try:
                async with asyncio.timeout(_STARVED * patience_for(self._patience, sum(map(len, requests)))):
                    for each in requests:
                        child.stdin.write(each)
                        await child.stdin.drain()
                        answer = await _read(child.stdout)
                        if answer[0] == DIED:
                            break
            except TimeoutError:
                answer = await self._give_up(child)
            except (OSError, asyncio.IncompleteReadError):
                await self._bury()
            except asyncio.CancelledError:
                await self._bury()  # an answer that nobody reads would be taken for the next one
                raise
            if answer[0] == DIED:
                self.mirrors.clear()
                self.deaths += 1
                _log.warning("the %s process of the sandbox did not survive a request", self._name)
                raise _Died
            return answer[0], answer[1:]

    async def _give_up(self, child: asyncio.subprocess.Process) -> bytes:
        """Let the process die that does not come back; return what it said at last."""
        assert child.stdout is not None
        try:
            child.send_signal(GIVE_UP)
            async with asyncio.timeout(_FUNERAL_S):
                return await _read(child.stdout)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            await self._bury()
            return bytes([DIED])

    async def _started(self) -> asyncio.subprocess.Process:
        if self._child is None or self._child.returncode is not None:
            self.mirrors.clear()
            self._child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", self._program, str(self._memory), str(self._patience),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert self._child.stdout is not None
            try:
                async with asyncio.timeout(_START_S):
                    await _read(self._child.stdout)
            except (TimeoutError, asyncio.IncompleteReadError) as error:
                await self._bury()
                raise StorageError("the sandbox process does not start; the log of the system may say why") from error
        return self._child

    async def start(self) -> None:
        """Start it, to have it ready."""
        async with self._turn:
            await self._started()

    async def stop(self) -> None:
        """End it."""
        async with self._turn:
            await self._bury()

    async def _bury(self) -> None:
        child, self._child = self._child, None
        self.mirrors.clear()
        if child is None:
            return
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()  # as long as it has no group
                os.killpg(child.pid, signal.SIGKILL)
        if child.stdin is not None:
            child.stdin.close()
        await child.wait()


async def _read(stream: asyncio.StreamReader) -> bytes:
    return await stream.readexactly(int.from_bytes(await stream.readexactly(4), "big"))


@dataclass(slots=True, eq=False)
class Mirrored:
    """What the sandbox must know of a session to keep its mirror. The session notes here what its document takes.

    Args:
        key: its id.
        whole: returns its document as an update.
    """

    key: str
    whole: Callable[[], bytes]
    suspect: bool = False
    """Whether something in it has harmed the quick process."""
    strikes: int = 0
    """How many of its updates in a row the patient process did not survive either."""
    barred: int = 0
    """How many of its updates are refused unseen: its document may be spoiled, and each look at it costs seconds."""
    missed: list[bytes] = field(default_factory=list)
    """What the document has taken since the mirror was last told."""
    missed_bytes: int = 0
    gate: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from the test of an update until the document has taken it: both must see the same things in between."""
    stale: bool = True
    """Whether the mirror is to be made anew."""
    ahead: list[set[bytes]] = field(default_factory=list)
    """What the mirror has taken and the document has not, yet; as it came, and as it was written anew."""

    def took(self, update: bytes) -> None:
        """Note that the document has taken *update*, or that it is on its way to the store."""
        for each in self.ahead:
            if update in each:
                self.ahead.remove(each)
                return
        if not self.stale:
            self.missed.append(update)
            self.missed_bytes += len(update)
            if len(self.missed) > _MAX_MISSED or self.missed_bytes > _MAX_MISSED_BYTES:
                self.spoil()

    def settle(self) -> None:
        """Have the mirror made anew if it holds something that the document was not given after all."""
        if self.ahead:
            self.spoil()

    def spoil(self) -> None:
        """Have the mirror made anew before it is used again."""
        self.caught_up()
        self.ahead.clear()
        self.stale = True

    def caught_up(self) -> list[bytes]:
        """Note that the mirror is about to have everything; return what it has missed."""
        missed, self.missed, self.missed_bytes = self.missed, [], 0
        return missed


_MAX_MISSED, _MAX_MISSED_BYTES = 1000, 1024 * 1024


class Sandbox:
    """The other processes. Use it as a context manager.

    Args:
        memory_bytes: address space of each.
        patience_s: seconds of computing that the quick process may spend on a small update; the patient one spends
            five times that. By the clock it may take ten times as long.
        program: what the processes run; for tests.
    """

    def __init__(
        self, *, memory_bytes: int = 2 * 1024**3, patience_s: float = _QUICK_S, program: str = _PROGRAM
    ) -> None:
        self._quick = _Process("quick", memory_bytes, patience_s, program)
        self._patient = _Process("patient", memory_bytes, patience_s * _PATIENT_S, program)
        self._folding = _Process("folding", memory_bytes, _FOLD_S, program)
        self._starting: asyncio.Task[None] | None = None
        self.refused = 0
        """Updates that a process did not survive, or on which the library panicked."""

    async def __aenter__(self) -> Sandbox:
        self._starting = asyncio.create_task(self._quick.start(), name="start the sandbox")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        for process in (self._quick, self._patient, self._folding):
            await process.stop()

    @property
    def deaths(self) -> int:
        """How often one of the processes had to be replaced."""
        return self._quick.deaths + self._patient.deaths + self._folding.deaths

    async def taste(self, session: Mirrored, update: bytes, *, apply: bool = True) -> Tasted:
        """Return what *update* makes of the session's mirror, which then holds it.

        Args:
            session: its gate is held by the caller.
            update: foreign bytes.
            apply: False if the update is not going to be taken, only compared.

        Raises:
            MalformedUpdate: it cannot be decoded.
            PanickedUpdate: the library did not survive it, or what it made of the document.
            EarlyUpdate: it needs one that has not arrived.
        """
        kind = TASTE if apply else LOOK
        if session.barred:
            session.barred -= 1
            raise PanickedUpdate(size=len(update))
        if not session.suspect:
            try:
                return await self._judge(self._quick, session, kind, update)
            except _Died:
                session.suspect = True
                session.spoil()
                _log.warning("the sandbox did not survive an update; a patient one looks again", extra=_of(session))
        try:
            tasted = await self._judge(self._patient, session, kind, update)
        except _Died as error:
            session.spoil()
            session.strikes += 1
            if session.strikes >= _STRIKES:
                session.barred = _BARRED
            self.refused += 1
            raise PanickedUpdate(size=len(update)) from error
        session.strikes = 0
        return tasted

    async def vouch(self, updates: Sequence[bytes]) -> tuple[bytes, bytes]:
        """Return what *updates*, one after the other, make of an empty document, and what of them waits.

        Raises:
            MalformedUpdate: one of them cannot be decoded.
            PanickedUpdate: the library did not survive them.
        """
        size = sum(map(len, updates))
        try:
            verdict, answer = await self._patient.ask(lambda: [request(LOAD, "", list(updates))])
        except _Died as error:
            raise PanickedUpdate(size=size) from error
        _raise_for(verdict, size)
        reader = Reader(answer)
        return reader.buffer(), reader.buffer()

    async def fold(self, updates: Sequence[bytes]) -> Folded:
        """Return the smallest update that holds everything in *updates*, verified; see ``model.fold``.

        Raises:
            StorageError: that cannot be done.
        """
        reader = Reader(await self._work(request(FOLD, "", list(updates)), "folded"))
        waits = bool(reader.varuint())
        return Folded(reader.take(reader.remaining), waits)

    async def way_back(self, document: bytes, earlier: bytes, client_id: int) -> bytes:
        """Return the update that makes *document* look as it did *earlier*; see ``model.way_back``.

        Raises:
            StorageError: that cannot be done.
        """
        return await self._work(request(WAY_BACK, str(client_id), [document, earlier]), "taken back")

    async def _work(self, work: bytes, what: str) -> bytes:
        try:
            verdict, answer = await self._folding.ask(lambda: [work])
        except _Died as error:
            raise StorageError(f"the rows cannot be {what}: the process did not survive it") from error
        if verdict != FINE:
            raise StorageError(f"the rows cannot be {what}")
        return answer

    async def _judge(self, process: _Process, session: Mirrored, kind: int, update: bytes) -> Tasted:
        verdict, answer = await process.ask(lambda: self._requests(process, session, kind, update))
        process.mirrors[session.key] = process.mirrors.pop(session.key, 0) + len(update)
        if verdict == HARMFUL:
            session.spoil()
            self.refused += 1
        _raise_for(verdict, len(update))
        tasted = _read_report(Reader(answer))
        if kind == TASTE and not tasted.held:
            session.ahead.append({update, *([tasted.delta] if tasted.delta is not None else [])})
        return tasted

    def _requests(self, process: _Process, session: Mirrored, kind: int, update: bytes) -> list[bytes]:
        """Return what tells the mirror all that the document has now; what it takes from here on counts as missed."""
        requests: list[bytes] = []
        missed = session.caught_up()
        if session.stale or session.key not in process.mirrors:
            missed = []
            document = session.whole()
            requests += self._make_room(process, session.key, len(document))
            requests.append(request(OPEN, session.key, [document]))
            session.stale = False
        requests.append(request(kind, session.key, [*missed, update]))
        return requests

    def _make_room(self, process: _Process, key: str, size: int) -> list[bytes]:
        forget: list[bytes] = []
        process.mirrors.pop(key, None)
        while process.mirrors and sum(process.mirrors.values()) + size > _MAX_MIRRORS_BYTES:
            oldest = next(iter(process.mirrors))
            del process.mirrors[oldest]
            forget.append(request(FORGET, oldest, []))
        process.mirrors[key] = size
        return forget


def _raise_for(verdict: int, size: int) -> None:
    if verdict == MALFORMED:
        raise MalformedUpdate(size=size)
    if verdict == HARMFUL:
        raise PanickedUpdate(size=size)
    if verdict == EARLY:
        raise EarlyUpdate(size=size)


def _read_report(reader: Reader) -> Tasted:
    held, delta = bool(reader.varuint()), reader.buffer()
    found = tuple(ClientId(reader.varuint()) for _ in range(reader.varuint()))
    return Tasted(delta if delta != EMPTY_UPDATE else None, held, found)


def _of(session: Mirrored) -> dict[str, str]:
    return {"session": session.key}

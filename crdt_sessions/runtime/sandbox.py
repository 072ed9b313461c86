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

from crdt_sessions.errors import MalformedUpdate, Overloaded, PanickedUpdate, StorageError, WrongLineage
from crdt_sessions.ids import ClientId
from crdt_sessions.model import Folded, Later
from crdt_sessions.runtime import sandbox_process
from crdt_sessions.runtime.sandbox_process import (
    DIED,
    FINE,
    FOLD,
    FOREIGN,
    FORGET,
    GIVE_UP,
    HARMFUL,
    LOAD,
    LOOK,
    MALFORMED,
    OPEN,
    REVERT_UPDATE,
    TASTE,
    patience_for,
    request,
)
from crdt_sessions.sync import Harmless
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import Reader, decode_state_vector

PROGRAM = f"import runpy; runpy.run_path({sandbox_process.__file__!r}, run_name='__main__')"
"""What its processes run. As a module of this package it would import all the others first, and needs none."""

_log = logging.getLogger("crdt_sessions.sandbox")
_QUICK_S, _PATIENT_S, _FOLD_S, _START_S, _FUNERAL_S = 1.0, 5.0, 300.0, 60.0, 1.0
_STARVED = 10
"""How many times its patience a request may take by the clock: on a machine with too much to do, others' work counts
there as well, and a peer is closed for good for what is taken for harm."""
_NICE = 10
"""Of folding: where there are few cores, those who write and read go first."""
_STRIKES, _BARRED = 3, 200
_MAX_MIRRORS_BYTES = 64 * 1024 * 1024


class _Died(Exception):
    """The process did not survive the request, or did not answer in time."""


class _Process:
    """One process, started when it is first needed and again after each death. Requests are taken one by one."""

    def __init__(self, name: str, memory_bytes: int, patience_s: float, program: str, *, niceness: int = 0) -> None:
        self._name = name
        self._niceness = niceness
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
                sys.executable, "-c", self._program, str(self._memory), str(self._patience), str(self._niceness),
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
class ShadowDocument:
    """What the sandbox must know of a session to keep its mirror. The session notes here what its document takes.

    Args:
        key: its id.
        whole: returns its document as an update.
        lineage: what its document's beginning is known by; empty if any will do.
    """

    key: str
    whole: Callable[[], bytes]
    lineage: str = ""
    suspect: bool = False
    """Whether something in it has harmed the quick process."""
    strikes: int = 0
    """How many of its updates in a row the patient process did not survive either."""
    barred: int = 0
    """How many of its updates are refused unseen: its document may be spoiled, and each look at it costs seconds."""
    missed: list[bytes] = field(default_factory=list)
    """What the document has taken since the mirror was last told."""
    missed_bytes: int = 0
    size: int = 0
    """Of the document, when the mirror was made."""
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
            self.missed_bytes += len(update) + _MISSED_BYTES
            if self.missed_bytes > max(self.size, _LEAST_MISSED):  # making it anew is as cheap
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


_LEAST_MISSED = 64 * 1024
_MISSED_BYTES = 64
"""What an update costs in memory beside its bytes."""


class Sandbox:
    """The other processes. Use it as a context manager.

    Args:
        memory_bytes: address space of each.
        patience_s: seconds of computing that the quick process may spend on a small update; the patient one spends
            five times that. By the clock it may take ten times as long.
        program: what the processes run; for tests.
    """

    def __init__(
        self, *, memory_bytes: int = 2 * 1024**3, patience_s: float = _QUICK_S, program: str = PROGRAM
    ) -> None:
        self._quick = _Process("quick", memory_bytes, patience_s, program)
        self._patient = _Process("patient", memory_bytes, patience_s * _PATIENT_S, program)
        self._folding = _Process("folding", memory_bytes, _FOLD_S, program, niceness=_NICE)
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

    async def try_update(
        self, session: ShadowDocument, update: bytes, *, apply: bool = True, foreign: bool = False
    ) -> Harmless:
        """Return what *update* makes of the session's mirror, which then holds it.

        Args:
            session: whose update it is. Nothing else of it is tried before the document has taken this.
            update: foreign bytes.
            apply: False if the update is not going to be taken, only compared.
            foreign: whether it may bring the beginning of another session along.

        Raises:
            WrongLineage: it does, and may not.
            MalformedUpdate: it cannot be decoded.
            PanickedUpdate: the library did not survive it, or what it made of the document, as it was made anew.
            Overloaded: updates of this session are not looked at for a while.
        """
        kind, lineage = TASTE if apply else LOOK, "" if foreign else session.lineage
        if session.barred:
            session.barred -= 1
            raise Overloaded(what="looking at updates of this session has cost too much")
        if not session.suspect:
            verdict, answer = await self._judge(self._quick, session, kind, lineage, update)
            if verdict != DIED:
                return self._told(verdict, answer, session, kind, update)
            session.suspect = True
            session.spoil()
            _log.warning("the sandbox did not survive an update; a patient one looks again", extra=_of(session))
        verdict, answer = await self._judge(self._patient, session, kind, lineage, update)
        if verdict == DIED:
            session.spoil()
            session.strikes += 1
            if session.strikes >= _STRIKES:
                session.barred = _BARRED
            self.refused += 1
            raise PanickedUpdate(size=len(update))
        session.strikes = 0
        return self._told(verdict, answer, session, kind, update)

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

    async def revert_update(self, document: bytes, earlier: bytes, client_id: int) -> bytes:
        """Return the update, by *client_id*, that makes *document* look as it did *earlier*.

        See ``model.revert_update``.

        Raises:
            StorageError: that cannot be done.
        """
        return await self._work(request(REVERT_UPDATE, str(client_id), [document, earlier]), "taken back")

    async def _work(self, work: bytes, what: str) -> bytes:
        try:
            verdict, answer = await self._folding.ask(lambda: [work])
        except _Died as error:
            raise StorageError(f"the rows cannot be {what}: the process did not survive it") from error
        if verdict != FINE:
            raise StorageError(f"the rows cannot be {what}")
        return answer

    async def _judge(
        self, process: _Process, session: ShadowDocument, kind: int, lineage: str, update: bytes
    ) -> tuple[int, bytes]:
        """Return what becomes of an update. Before it is blamed it is tried on a mirror that was made anew.

        The quick process leaves it to the patient one to find out whether it was the update that killed it.
        """
        verdict, answer, anew = await self._ask(process, session, kind, lineage, update)
        if not anew and (verdict == HARMFUL or (verdict == DIED and process is self._patient)):
            session.spoil()
            verdict, answer, _ = await self._ask(process, session, kind, lineage, update)
        return verdict, answer

    async def _ask(
        self, process: _Process, session: ShadowDocument, kind: int, lineage: str, update: bytes
    ) -> tuple[int, bytes, bool]:
        anew = False

        def requests() -> list[bytes]:
            nonlocal anew
            anew = session.stale or session.key not in process.mirrors
            return self._requests(process, session, kind, lineage, update)

        try:
            verdict, answer = await process.ask(requests)
        except _Died:
            return DIED, b"", anew
        process.mirrors[session.key] = process.mirrors.pop(session.key, 0) + len(update)
        return verdict, answer, anew

    def _told(self, verdict: int, answer: bytes, session: ShadowDocument, kind: int, update: bytes) -> Harmless:
        if verdict == HARMFUL:
            session.spoil()
            self.refused += 1
        if verdict == FOREIGN:
            raise WrongLineage(session=session.key, theirs=answer.decode(), ours=session.lineage)
        _raise_for(verdict, len(update))
        report = _read_report(Reader(answer))
        session.ahead += ({each} for each in report.before)
        if kind == TASTE and report.delta is not None:
            session.ahead.append({update, report.delta})
        return report

    def _requests(
        self, process: _Process, session: ShadowDocument, kind: int, lineage: str, update: bytes
    ) -> list[bytes]:
        """Return what tells the mirror all that the document has now; what it takes from here on counts as missed."""
        requests: list[bytes] = []
        missed = session.caught_up()
        if session.stale or session.key not in process.mirrors:
            missed = []
            document = session.whole()
            session.size = len(document)
            requests += self._make_room(process, session.key, len(document))
            requests.append(request(OPEN, session.key, [document]))
            session.stale = False
        requests.append(request(kind, session.key, [lineage.encode(), *missed, update]))
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


def _read_report(reader: Reader) -> Harmless:
    held = bool(reader.varuint())
    before = tuple(reader.buffer() for _ in range(reader.varuint()))
    delta = reader.buffer()
    found = tuple(ClientId(reader.varuint()) for _ in range(reader.varuint()))
    later = _read_later(reader) if reader.remaining else None
    return Harmless(delta if delta != EMPTY_UPDATE else None, held, found, later, before)


def _read_later(reader: Reader) -> Later:
    update, deletes = reader.buffer(), bool(reader.varuint())
    return Later(update, decode_state_vector(reader.buffer()), decode_state_vector(reader.buffer()), deletes)


def _of(session: ShadowDocument) -> dict[str, str]:
    return {"session": session.key}

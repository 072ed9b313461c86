"""Applies foreign updates in another process first, so that an update that kills or hangs it cannot hurt the service.

That process keeps a *mirror* of the document of each session that gets unusual updates. The library there writes anew
what an update changes, and the service applies only that. An update on which the process dies, hangs or runs out of
memory is refused, and a new process takes its place. Two processes judge updates: a quick one, and a patient one that
takes over sessions in which something went wrong. So peers that send harmful updates wait for each other, and nobody
else waits for them. A third process folds rows into snapshots.
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
"""The code that the processes run. As a module of this package it would first import the whole package."""

_log = logging.getLogger("crdt_sessions.sandbox")
_QUICK_S, _PATIENT_S, _FOLD_S, _START_S, _FUNERAL_S = 1.0, 5.0, 300.0, 60.0, 1.0
_STARVED = 10
"""How many times its patience a request may take by the clock. On a busy machine the clock also counts the work of
others, and a peer whose update is judged harmful is closed for good."""
_NICE = 10
"""The niceness of folding: where there are few cores, writers and readers go first."""
_STRIKES, _BARRED = 3, 200
_MAX_MIRRORS_BYTES = 64 * 1024 * 1024


class _Died(Exception):
    """The process did not survive the request, or did not answer in time."""


class _Process:
    """One process, started when it is first needed and again after each death. It takes one request at a time."""

    def __init__(self, name: str, memory_bytes: int, patience_s: float, program: str, *, niceness: int = 0) -> None:
        self._name = name
        self._niceness = niceness
        self._program = program
        self._memory = memory_bytes
        self._patience = patience_s
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self.mirrors: dict[str, int] = {}
        """Bytes of each mirror; the one used last is at the end."""
        self.deaths = 0

    async def ask(self, prepare: Callable[[], Sequence[bytes]]) -> tuple[int, bytes]:
        """Return the answer to the last of the requests that *prepare* returns.

        *prepare* is called when it is their turn: an earlier request may have ended the process and all mirrors.

        Raises:
            _Died: the process did not answer.
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
                await self._bury()  # its answer would be read as the answer to the next request
                raise
            if answer[0] == DIED:
                self.mirrors.clear()
                self.deaths += 1
                _log.warning("the %s process of the sandbox did not survive a request", self._name)
                raise _Died
            return answer[0], answer[1:]

    async def _give_up(self, child: asyncio.subprocess.Process) -> bytes:
        """Have a process killed that does not answer; return its last words."""
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
                raise StorageError("the sandbox process does not start; see the system's log") from error
        return self._child

    async def start(self) -> None:
        """Start the process now, so that the first request need not wait for it."""
        async with self._turn:
            await self._started()

    async def stop(self) -> None:
        """End the process, once it has answered the request under way."""
        async with self._turn:
            await self._bury()

    async def _bury(self) -> None:
        child, self._child = self._child, None
        self.mirrors.clear()
        if child is None:
            return
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()  # it may not have a process group yet
                os.killpg(child.pid, signal.SIGKILL)
        if child.stdin is not None:
            child.stdin.close()
        await child.wait()


async def _read(stream: asyncio.StreamReader) -> bytes:
    return await stream.readexactly(int.from_bytes(await stream.readexactly(4), "big"))


@dataclass(slots=True, eq=False)
class ShadowDocument:
    """What the sandbox needs to keep the mirror of a session. The session notes here each update that it takes.

    Args:
        key: the session's id.
        whole: returns the session's document as an update.
        lineage: the lineage that updates must have; empty if any will do.
    """

    key: str
    whole: Callable[[], bytes]
    lineage: str = ""
    suspect: bool = False
    """Whether something in it has harmed the quick process."""
    strikes: int = 0
    """How many of its updates in a row killed the patient process, too."""
    barred: int = 0
    """How many of its next updates are refused without a trial: its document may be spoiled, and each trial costs
    seconds."""
    missed: list[bytes] = field(default_factory=list)
    """Updates that the document has taken and the mirror has not been told of."""
    missed_bytes: int = 0
    size: int = 0
    """Size of the document when the mirror was made."""
    stale: bool = True
    """Whether the mirror must be made anew."""
    ahead: list[set[bytes]] = field(default_factory=list)
    """Updates that the mirror has taken and the document has not taken yet: each as it came, and as written anew."""

    def took(self, update: bytes) -> None:
        """Note that the document has taken *update*."""
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
        """Have the mirror made anew if it holds an update that the document did not take."""
        if self.ahead:
            self.spoil()

    def spoil(self) -> None:
        """Have the mirror made anew before it is used again."""
        self.caught_up()
        self.ahead.clear()
        self.stale = True

    def caught_up(self) -> list[bytes]:
        """Return the updates that the mirror has missed; from now on they count as taken."""
        missed, self.missed, self.missed_bytes = self.missed, [], 0
        return missed


_LEAST_MISSED = 64 * 1024
_MISSED_BYTES = 64
"""Memory that an update takes in addition to its bytes."""


class Sandbox:
    """Runs the other processes. Use it as a context manager.

    Args:
        memory_bytes: address space of each process.
        patience_s: processor seconds that the quick process may spend on a small update; the patient process may
            spend five times as many. By the clock each may take ten times as long.
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
        """Number of updates that killed a process, or on which the library panicked."""

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
        """How often a process had to be replaced."""
        return self._quick.deaths + self._patient.deaths + self._folding.deaths

    async def try_update(
        self, session: ShadowDocument, update: bytes, *, apply: bool = True, foreign: bool = False
    ) -> Harmless:
        """Apply *update* to the session's mirror; return what it changed there.

        Args:
            session: the session that the update is for. The document must take the result before the next update of
                this session is tried.
            update: foreign bytes.
            apply: False to only compare the update with the mirror.
            foreign: whether the update may bring the beginning of another session along.

        Raises:
            WrongLineage: it does, and may not.
            MalformedUpdate: it cannot be decoded.
            PanickedUpdate: the library panicked, hung or died on it, or on the document that it led to, even on a
                mirror that was made anew.
            Overloaded: no updates of this session are tried for a while.
        """
        kind, lineage = TASTE if apply else LOOK, "" if foreign else session.lineage
        if session.barred:
            session.barred -= 1
            raise Overloaded(what="trials of this session's updates have cost too much")
        if not session.suspect:
            verdict, answer = await self._judge(self._quick, session, kind, lineage, update)
            if verdict != DIED:
                return self._told(verdict, answer, session, kind, update)
            session.suspect = True
            session.spoil()
            _log.warning("an update killed the quick sandbox process; the patient one tries it", extra=_of(session))
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
        """Apply *updates* in order to an empty document; return the document, and what of them is still pending.

        Raises:
            MalformedUpdate: one of them cannot be decoded.
            PanickedUpdate: the library panicked, hung or died on them.
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
            StorageError: they cannot be folded.
        """
        reader = Reader(await self._work(request(FOLD, "", list(updates)), "folded"))
        waits = bool(reader.varuint())
        return Folded(reader.take(reader.remaining), waits)

    async def revert_update(self, document: bytes, earlier: bytes, client_id: int) -> bytes:
        """Return the update, by *client_id*, that makes *document* look as it did *earlier*.

        See ``model.revert_update``.

        Raises:
            StorageError: it cannot be made.
        """
        return await self._work(request(REVERT_UPDATE, str(client_id), [document, earlier]), "taken back")

    async def _work(self, work: bytes, what: str) -> bytes:
        try:
            verdict, answer = await self._folding.ask(lambda: [work])
        except _Died as error:
            raise StorageError(f"the rows cannot be {what}: the sandbox process died on it") from error
        if verdict != FINE:
            raise StorageError(f"the rows cannot be {what}")
        return answer

    async def _judge(
        self, process: _Process, session: ShadowDocument, kind: int, lineage: str, update: bytes
    ) -> tuple[int, bytes]:
        """Return the verdict on an update. Before it is blamed, it is tried on a mirror that was made anew.

        If the quick process dies, the patient one finds out whether the update was the cause.
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
        """Return requests that bring the mirror up to date, then try *update*. Later updates count as missed."""
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

"""Applies foreign updates in another process first, so that an update that kills or hangs it cannot hurt the service.

That process keeps a *mirror* of the document of each session that gets unusual updates. The library there writes anew
what an update changes, and the service applies only that. An update on which the process dies, hangs or runs out of
memory is refused, and a new process takes its place. Two processes judge updates: a quick one, and a patient one that
takes over sessions in which something went wrong. So peers that send harmful updates wait for each other, and nobody
else waits for them. A third process folds rows into snapshots.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType

from crdt_sessions.errors import MalformedUpdate, Overloaded, PanickedUpdate, StorageError, WrongLineage
from crdt_sessions.ids import ClientId
from crdt_sessions.model import Folded, Later
from crdt_sessions.runtime import sandbox_process
from crdt_sessions.runtime.child_process import ChildDied, ChildProcess
from crdt_sessions.runtime.sandbox_process import (
    DIED,
    FINE,
    FOLD,
    FOREIGN,
    FORGET,
    HARMFUL,
    LOAD,
    LOOK,
    MALFORMED,
    OPEN,
    REVERT_UPDATE,
    TASTE,
    request,
)
from crdt_sessions.runtime.shadow import ShadowDocument
from crdt_sessions.sync import Harmless
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import Reader, decode_state_vector

_LEISURE_S = 5.0
"""A process that nobody has asked loads what it needs after so long: by then the service has started."""


def _program(leisure_s: float = _LEISURE_S) -> str:
    """Return the code that a process runs: it waits to be asked, for *leisure_s* seconds at most, and loads the rest.

    A process group of its own: it can be killed together with its forks, and Ctrl-C reaches only the service. Not a
    session of its own: Linux shares the processor among sessions, and one may wait for seconds if others are busy.
    The rest is not imported as a module of this package, which would first import the whole package.
    """
    return (
        "import os, select; os.setpgid(0, 0); os.environ['PYDANTIC_DISABLE_PLUGINS'] = '__all__'; "
        f"select.select([0], [], [], {leisure_s}); "
        f"import runpy; runpy.run_path({sandbox_process.__file__!r}, run_name='__main__')"
    )


PROGRAM = _program()
"""The code that the processes run."""

_log = logging.getLogger("crdt_sessions.sandbox")
_QUICK_S, _PATIENT_S, _FOLD_S = 1.0, 5.0, 300.0
_NICE = 10
"""The niceness of folding: where there are few cores, writers and readers go first."""
_STRIKES, _BARRED = 3, 200
_MAX_MIRRORS_BYTES = 64 * 1024 * 1024


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
        self._quick = ChildProcess("quick", memory_bytes, patience_s, program)
        self._patient = ChildProcess("patient", memory_bytes, patience_s * _PATIENT_S, program)
        self._folding = ChildProcess("folding", memory_bytes, _FOLD_S, program, niceness=_NICE)
        self._starting: asyncio.Task[None] | None = None
        self.refused = 0
        """Number of updates that killed a process, or on which the library panicked."""

    async def __aenter__(self) -> Sandbox:
        return self

    def prepare(self) -> None:
        """Start the process that is asked first, if it was not: somebody may soon bring an update."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._quick.start(), name="start the sandbox")

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
        except ChildDied as error:
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
        except ChildDied as error:
            raise StorageError(f"the rows cannot be {what}: the sandbox process died on it") from error
        if verdict != FINE:
            raise StorageError(f"the rows cannot be {what}")
        return answer

    async def _judge(
        self, process: ChildProcess, session: ShadowDocument, kind: int, lineage: str, update: bytes
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
        self, process: ChildProcess, session: ShadowDocument, kind: int, lineage: str, update: bytes
    ) -> tuple[int, bytes, bool]:
        anew = False

        def requests() -> list[bytes]:
            nonlocal anew
            anew = session.stale or session.key not in process.mirrors
            return self._requests(process, session, kind, lineage, update)

        try:
            verdict, answer = await process.ask(requests)
        except ChildDied:
            return DIED, b"", anew
        except asyncio.CancelledError:
            session.spoil()  # the mirror may take an update that the document does not
            raise
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
        self, process: ChildProcess, session: ShadowDocument, kind: int, lineage: str, update: bytes
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
        process.mirrors[session.key] = process.mirrors.pop(session.key) + len(update)
        requests.append(request(kind, session.key, [lineage.encode(), *missed, update]))
        return requests

    def _make_room(self, process: ChildProcess, key: str, size: int) -> list[bytes]:
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

"""The other process: keeps mirrors of documents, and applies updates to them before the service does.

A mirror is two documents. The *rough* one takes the foreign bytes. The *clean* one takes what the service will take:
not those bytes, but what the library wrote anew of their changes. Structs that cannot be integrated yet reach neither
(:mod:`crdt_sessions.model.causality`); they are given back. A hostile update could otherwise hide its harm after a
gap, and do it when somebody else fills the gap. So the service never applies a stranger's bytes, it applies only
updates that were tried, and each author is judged for their own update.

The service survives whatever kills this process. It is two processes: a worker, and the parent that forked it. The
parent waits for the worker's death, reports it, and forks the next one, which takes milliseconds. Requests and
answers are frames on standard input and output: a length of four bytes, then lib0 values. Requests are answered one
by one, in order; more may wait in the pipe, where the next worker finds them.
:mod:`crdt_sessions.runtime.sandbox` starts the process.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from crdt_sessions.errors import (
    BadDocument,
    CrdtSessionsError,
    MalformedUpdate,
    PanickedUpdate,
    UpdateError,
    WrongLineage,
)
from crdt_sessions.model import (
    ROOT_NAMES,
    Later,
    Pairs,
    SessionDoc,
    SessionView,
    check_change,
    check_whole,
    encode_verified,
    fold,
    lineage_in,
    merge,
    revert_update,
    split,
)
from crdt_sessions.model.spelling import nests_deeper
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import Reader, buffer, decode_state_vector, encode_state_vector, varuint

OPEN, TASTE, LOOK, FORGET, LOAD, FOLD, REVERT_UPDATE = range(7)
"""The requests. OPEN makes a mirror of a document, TASTE applies an update to it, LOOK tells whether it holds one,
and FORGET drops it. Without a mirror, LOAD makes a document of rows, FOLD folds rows, and REVERT_UPDATE finds the
update that restores an earlier state. TASTE and LOOK carry the lineage that the update must have, then the update."""
FINE, MALFORMED, HARMFUL, DIED, FOREIGN = range(5)
"""The answers. DIED comes from the parent; FOREIGN carries the lineage of the update."""
WAKE = bytes(4)
"""A frame that asks for nothing. Its coming has a process load what it needs."""
LENGTH_BYTES = 4
"""Size of the length before each frame."""

_IN, _OUT = 0, 1

_ORPHAN_S = 600
_S_PER_BYTE = 5 / 1_000_000
"""Additional time for large updates: a megabyte of edits takes the library a second."""
_SMALL = 64 * 1024
_DEEP = 100
"""Levels of nesting that are accepted. Readers of JSON are shown fewer."""
_LIST, _OBJECT = b"\x75", b"\x76"
"""How a list and an object begin in an update. Source: lib0 ``encoding.writeAny``."""
_ROUGH, _CLEAN = 1, 2
"""Client ids of the two documents; nothing is ever written under them."""


@dataclass(slots=True)
class _Mirror:
    rough: SessionDoc = field(default_factory=lambda: SessionDoc(_ROUGH))
    clean: SessionDoc = field(default_factory=lambda: SessionDoc(_CLEAN))
    size: int = 0
    pairs: Pairs = field(init=False)
    readable: bool = True
    """Whether the whole document could be read when the mirror was made. If not, later updates are not blamed."""

    def __post_init__(self) -> None:
        self.pairs = Pairs(self.rough)

    def close(self) -> None:
        self.rough.close()
        self.clean.close()


def request(kind: int, key: str, updates: list[bytes]) -> bytes:
    """Return a request as a frame."""
    body = varuint(kind) + buffer(key.encode()) + varuint(len(updates)) + b"".join(map(buffer, updates))
    return framed(body)


def framed(body: bytes) -> bytes:
    """Return *body* with its length before it."""
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def patience_for(patience_s: float, size: int) -> float:
    """Return the processor seconds that requests of *size* bytes may take, if small ones may take *patience_s*."""
    return patience_s + size * _S_PER_BYTE


def main() -> None:
    """Answer requests until standard input ends, and replace the worker whenever it dies."""
    os.nice(int(sys.argv[3]))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the library prints its panics
    _write(varuint(FINE))  # ready: no request is charged with the time it took to start
    reading = mmap.mmap(-1, 1)  # shared with each worker: whether it has read a part of a request
    while True:
        worker = os.fork()
        if worker == 0:
            _limit_memory(int(sys.argv[1]))
            _work(float(sys.argv[2]), reading)
            os._exit(0)
        _, status = os.waitpid(worker, 0)
        if status == 0:
            return
        _write(varuint(DIED))
        if reading[0]:
            return  # nobody could tell where the next request begins


def _work(patience_s: float, reading: mmap.mmap) -> None:
    mirrors: dict[str, _Mirror] = {}
    while head := os.read(_IN, LENGTH_BYTES):
        reading[0] = 1
        body = _read(int.from_bytes(head + _read(LENGTH_BYTES - len(head)), "big"))
        reading[0] = 0
        if not body:
            continue  # WAKE
        signal.setitimer(signal.ITIMER_PROF, patience_for(patience_s, len(body)))  # when it expires, the worker dies
        signal.alarm(_ORPHAN_S)  # ends the worker if the service is gone; it would have ended us long ago
        _write(_answer(mirrors, Reader(body)))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def _limit_memory(most: int) -> None:
    if sys.platform != "win32":  # Windows has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(size: int) -> bytes:
    """Read exactly *size* bytes and no more: the next worker must find the next request at its beginning."""
    body = bytearray()
    while len(body) < size:
        part = os.read(_IN, size - len(body))
        if not part:
            os._exit(0)  # the service is gone
        body += part
    return bytes(body)


def _write(body: bytes) -> None:
    frame = memoryview(framed(body))
    while frame:
        frame = frame[os.write(_OUT, frame) :]


def _answer(mirrors: dict[str, _Mirror], reader: Reader) -> bytes:
    kind, key = reader.varuint(), reader.string()
    updates = [reader.buffer() for _ in range(reader.varuint())]
    actions: dict[int, Callable[[], bytes]] = {
        OPEN: lambda: _open(mirrors, key, updates[0]),
        TASTE: lambda: _taste(mirrors[key], *updates),
        LOOK: lambda: _look(mirrors[key], *updates),
        FORGET: lambda: _forget(mirrors, key),
        LOAD: lambda: _load(updates),
        FOLD: lambda: _fold(updates),
        REVERT_UPDATE: lambda: revert_update(updates[0], updates[1], int(key)),
    }
    try:
        return varuint(FINE) + actions[kind]()
    except MalformedUpdate:
        return varuint(MALFORMED)
    except WrongLineage as error:
        return varuint(FOREIGN) + error.theirs.encode()
    except Exception:  # noqa: BLE001 - the service would have met the same error
        _forget(mirrors, key)
        return varuint(HARMFUL)


def _open(mirrors: dict[str, _Mirror], key: str, document: bytes) -> bytes:
    _forget(mirrors, key)
    mirrors[key] = mirror = _Mirror(size=len(document))
    mirror.clean.apply(document)
    mirror.clean.take_touched()
    mirror.rough.apply(document)
    mirror.readable = mirror.size < _SMALL and _is_readable(mirror.clean)
    return b""


def _follow(mirror: _Mirror, missed: Sequence[bytes]) -> None:
    for update in missed:
        mirror.clean.apply(update)
        mirror.rough.apply(update)
        mirror.size += len(update)
    mirror.clean.take_touched()


def _check_lineage(mirror: _Mirror, lineage: bytes, update: bytes) -> None:
    """Raise WrongLineage if *update* brings another session's beginning along; an empty *lineage* allows that."""
    theirs = lineage_in(update, mirror.rough.state_vector()) if lineage else None
    if theirs is not None and theirs != lineage.decode():
        raise WrongLineage(session="", theirs=theirs, ours=lineage.decode())


def _look(mirror: _Mirror, lineage: bytes, *updates: bytes) -> bytes:
    *missed, update = updates
    _follow(mirror, missed)
    _check_lineage(mirror, lineage, update)
    return _report(None, held=mirror.rough.contains(update), found=(), later=None)


def _taste(mirror: _Mirror, lineage: bytes, *updates: bytes) -> bytes:
    """Do with the last of *updates* everything that the service would do with it; return the report."""
    *missed, update = updates
    _follow(mirror, missed)
    _check_lineage(mirror, lineage, update)
    rough, clean = mirror.rough, mirror.clean
    known = decode_state_vector(rough.state_vector())
    now, clocks, later = split(update, known)
    held = later is None and rough.contains(now)
    before, now = ((), now) if held else mirror.pairs.mended(now)
    for each in before:
        clean.apply(each)
        rough.apply(each)
    known = decode_state_vector(rough.state_vector()) if before else known
    delta = rough.apply(now)
    after = decode_state_vector(rough.state_vector())
    if rough.waiting != EMPTY_UPDATE or any(after.get(client, 0) != clock for client, clock in clocks.items()):
        raise UpdateError(size=len(update))  # the library did not integrate what the update says
    found = [client for client, clock in after.items() if clock != known.get(client, 0)]
    if delta is not None and clean.apply(delta) is None:
        delta = None
    if clean.waiting != EMPTY_UPDATE:
        raise UpdateError(size=len(update))  # the library wrote an update that lacks something
    if delta is not None:
        check_change(delta, rough, after)
        merge((delta, EMPTY_UPDATE, delta))
        _read_what_changed(clean)
        mirror.size += len(delta)
        if mirror.size < _SMALL and mirror.readable:
            _read_all(clean, values=_may_nest(delta))
    return _report(delta, held=held, found=found, later=later, before=before)


def _report(
    delta: bytes | None, *, held: bool, found: Sequence[int], later: Later | None, before: Sequence[bytes] = ()
) -> bytes:
    return (
        varuint(held)
        + varuint(len(before))
        + b"".join(map(buffer, before))
        + buffer(delta if delta is not None else EMPTY_UPDATE)
        + varuint(len(found))
        + b"".join(map(varuint, found))
        + (_report_later(later) if later is not None else b"")
    )


def _report_later(later: Later) -> bytes:
    return (
        buffer(later.update)
        + varuint(later.deletes)
        + buffer(encode_state_vector(later.wakes))
        + buffer(encode_state_vector(later.reach))
    )


def _read_what_changed(document: SessionDoc) -> None:
    view, touched = SessionView(document), document.take_touched()
    for message_id in touched.messages:
        view.messages.value(message_id)
    for run_id in touched.runs:
        view.runs.value(run_id)


def _read_all(document: SessionDoc, *, values: bool) -> None:
    """Encode, load and read the whole document, and write it as JSON: at the latest this shows harm done to it.

    For large documents that costs too much; there only what changed is read. Most of the work is turning the document
    into *values*, so this is done only if an update may nest values too deep; see :func:`_may_nest`.
    """
    try:
        encode_verified(document)
    except MalformedUpdate as error:  # the update could be decoded, but the document cannot be loaded
        raise PanickedUpdate(size=error.size) from error
    if values:
        with contextlib.suppress(BadDocument):  # the steward corrects what is not as layout 1 says
            json.dumps(SessionView(document).export().to_json(), allow_nan=False)
        if any(nests_deeper(getattr(document.roots, name), _DEEP) for name in ROOT_NAMES):
            raise PanickedUpdate(size=0)


def _may_nest(delta: bytes) -> bool:
    """Tell whether an update could nest values deeper than :data:`_DEEP`.

    It may say yes too often: a list or an object in JSON begins with a byte that text may hold, too. A shared type
    takes at least eight bytes.
    """
    return len(delta) >= 8 * _DEEP or delta.count(_LIST) + delta.count(_OBJECT) >= _DEEP


def _is_readable(document: SessionDoc) -> bool:
    try:
        _read_all(document, values=True)
    except (CrdtSessionsError, RecursionError):
        return False
    return True


def _load(updates: Sequence[bytes]) -> bytes:
    document = SessionDoc(_ROUGH)
    try:
        pairs = Pairs(document)
        for update in updates:
            before, whole = pairs.mended(update)
            for each in (*before, whole):
                document.apply(each)
        whole = document.encode()
        check_whole(whole, document, decode_state_vector(document.state_vector()))
        return buffer(whole) + buffer(document.waiting)
    finally:
        document.close()


def _fold(updates: Sequence[bytes]) -> bytes:
    folded = fold(updates)
    return varuint(folded.waits) + folded.update


def _forget(mirrors: dict[str, _Mirror], key: str) -> bytes:
    mirror = mirrors.pop(key, None)
    if mirror is not None:
        mirror.close()
    return b""


if __name__ == "__main__":
    main()

"""``crdt-sessions doctor``: checks a database, names the damage, and saves the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from crdt_sessions.errors import StorageError, UpdateError
from crdt_sessions.ids import Seq
from crdt_sessions.model import SessionDoc, merge
from crdt_sessions.storage import Row, SqliteStore, Version
from crdt_sessions.storage.addresses import shown
from crdt_sessions.storage.inspected import Inspected
from crdt_sessions.storage.sqlite.inspection import Inspection
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions_server.ops import postgres, streams

Say = Callable[[str], None]


@dataclass(slots=True)
class _Read:
    content: bytes
    """Everything that could be applied, as one update; what waits for something missing is part of it."""
    waits: bool
    problems: list[str]


def examine(path: Path, say: Say) -> bool:
    """Print the content and the damage of a database; return whether it is whole. Nothing is changed.

    Args:
        path: the file; a service may have it open.
        say: called with each line.

    Raises:
        StorageError: it is not a database of ours.
    """
    whole = True
    with Inspection(path) as inspection:
        say(f"{path}: schema version {inspection.version}")
        for problem in inspection.integrity():
            whole = False
            say(f"  the file is damaged: {problem}")
        for session in inspection.sessions():
            whole = _is_whole(session, say) and whole
        for stream in inspection.streams():
            whole = streams.is_whole(stream, say) and whole
    say(
        "all is well"
        if whole
        else "damaged; save what can be read with: crdt-sessions doctor FILE --salvage NEW-FILE"
    )
    return whole


def _is_whole(session: Inspected, say: Say) -> bool:
    problems = problems_of(session)
    say(_line(session))
    for problem in problems:
        say(f"    {problem}")
    return not problems


def problems_of(session: Inspected) -> list[str]:
    """Return what is wrong with a session, for people; nothing if it was deleted."""
    return [*session.problems, *_read(session).problems] if not session.deleted else []


async def examine_server(url: str, say: Say) -> bool:
    """Print the content and the damage of a PostgreSQL database; return whether it is whole. Nothing is changed.

    Args:
        url: of the database; services may write to it.
        say: called with each line.

    Raises:
        StorageError: there is no way to it, or it is not a database of ours.
        ValueError: the driver is missing.
    """
    whole = True
    async with postgres.inspection(url) as inspection:
        facts = await inspection.facts()
        say(f"{shown(url)}: PostgreSQL {facts.server}, schema version {facts.schema}")
        waits = f"commits wait for {facts.standbys}" if facts.standbys else "commits wait for no standby"
        say(f"  {waits}; {facts.in_step} standbys are in step")
        say(f"  {facts.nodes} nodes are there, {facts.gone} are gone")
        if facts.orphans:
            say(f"  {facts.orphans} sessions belong to nodes that are gone: the next node that needs one takes it")
        try:
            await inspection.check()
        except StorageError as error:
            whole = False
            say(f"  {error}")
        async for session in inspection.sessions():
            whole = _is_whole(session, say) and whole
        async for stream in inspection.streams():
            whole = streams.is_whole(stream, say) and whole
    say("all is well" if whole else "damaged; restore what is damaged from a backup")
    return whole


def salvage(path: Path, target: Path, say: Say) -> None:
    """Copy everything readable into a new database; damaged parts are left out and named.

    Args:
        path: the damaged file. Nothing in it is changed.
        target: the new one.
        say: called with each line.

    Raises:
        StorageError: there is a file at *target*, or *path* is not a database of ours.
    """
    if target.exists():
        raise StorageError(f"{target} exists; choose another name, so that nothing is overwritten")
    with Inspection(path) as inspection:
        asyncio.run(_copy_all(inspection, target, say))
    say(f"saved in {target}")


async def _copy_all(inspection: Inspection, target: Path, say: Say) -> None:
    async with SqliteStore(target) as store:
        for session in inspection.sessions():
            await _copy(session, store, say)
        await streams.copy_all(inspection.streams(), store, say)


async def _copy(session: Inspected, store: SqliteStore, say: Say) -> None:
    record, read = session.record, _read(session)
    if not session.deleted and read.content == EMPTY_UPDATE:
        say(f"{_line(session)}\n    nothing of it could be saved")
        return
    if session.deleted:
        await store.create(
            record.id,
            EMPTY_UPDATE,
            generation=record.generation,
            title=None,
            now=record.created_at,
            lineage=record.lineage,
        )
        await store.delete(record.id, now=record.updated_at)
        return
    seq = max([1, *(row.seq for row in session.rows)])
    present = Row(Seq(seq), read.content, read.waits)
    earlier = [each for each in session.versions if each[1].seq < seq]
    latest = Version(present.seq, record.updated_at, len(present.update), _name_of(session, seq))
    await store.adopt(record, [*earlier, (latest, present)], entries=session.entries)
    for problem in (*session.problems, *read.problems):
        say(f"{_line(session)}\n    saved without: {problem}")


def _read(session: Inspected) -> _Read:
    """Apply what there is, row by row."""
    document, problems = SessionDoc(1), []
    good: list[bytes] = []
    try:
        for row in session.rows:
            try:
                document.apply(row.update)
            except UpdateError as error:
                problems.append(f"row {row.seq} cannot be applied: {error}")
                document.close()
                document = SessionDoc(1)  # after a panic a document cannot be trusted: begin anew without it
                for update in good:
                    document.apply(update)
            else:
                good.append(row.update)
        if document.waiting != EMPTY_UPDATE:
            problems.append("something waits for an update that is missing; it is kept, and shown if that comes back")
        waits = document.waiting != EMPTY_UPDATE
        return _Read(merge((document.encode(), document.waiting)), waits, problems)
    finally:
        document.close()


def _name_of(session: Inspected, seq: int) -> str | None:
    return next((version.name for version, row in session.versions if row.seq == seq), None)


def _line(session: Inspected) -> str:
    name = unquote(session.record.id)  # after its tenant
    if session.deleted:
        return f"  {name}: deleted, generation {session.record.generation}"
    size = sum(len(row.update) for row in session.rows)
    runs = f", {len(session.entries.runs)} runs" if session.entries.runs else ""
    return f"  {name}: {len(session.rows)} rows, {size} bytes{runs}"

"""A session with its past as a file: JSON lines, to be kept, or taken over by another service.

::

    {"format": "crdt-sessions-archive", "version": 1, "session": {...}}
    {"kind": "version", "seq": 7, "at": 1700000000000, "name": "draft", "update": "<base64>", "sha256": "..."}
    ...                              versions, oldest first; the last one is the state when the archive was made
    {"kind": "version", "seq": 7, "at": 1700000000000, "name": "draft", "update": "<base64>", "sha256": ".."}
    {"kind": "writer", ...}                          Yjs clients that wrote for runs, so that they stay fenced
    {"kind": "end", "lines": 12}                     so that a file that was cut off is noticed
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from crdt_sessions.errors import BadDocument, BadValue
from crdt_sessions.ids import Millis, Seq, SessionId, name_of
from crdt_sessions.model.checks import parse_json
from crdt_sessions.runtime.entries import runs_of
from crdt_sessions.runtime.registry import SessionRegistry
from crdt_sessions.storage import Entries, Row, RunEntry, SessionRecord, Version, WriterEntry
from crdt_sessions.sync import RunRecord
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.lines import one_line

_log = logging.getLogger("crdt_sessions.archive")
FORMAT: Literal["crdt-sessions-archive"] = "crdt-sessions-archive"


class _Line(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class _Session(_Line):
    id: str
    generation: int
    created_at: int
    updated_at: int
    status: Literal["active", "closed", "archived"]
    title: str | None
    lineage: str | None = None


class _Head(_Line):
    format: Literal["crdt-sessions-archive"]
    version: Literal[1]
    session: _Session


class _VersionLine(_Line):
    kind: Literal["version"] = "version"
    seq: int = Field(ge=1)
    at: int
    name: str | None = None
    update: str
    sha256: str

    def content(self) -> bytes:
        content = base64.b64decode(self.update, validate=True)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise BadDocument(why=f"version {self.seq} of the archive does not match its checksum")
        return content


class _RunLine(_Line):
    kind: Literal["run"] = "run"
    id: str
    agent: str
    queued_at: int
    data: str

    def record(self) -> RunRecord:
        try:
            return RunRecord.model_validate_json(self.data)
        except ValidationError as error:
            raise BadDocument(why=f"run {self.id} of the archive is not one") from error


class _WriterLine(_Line):
    kind: Literal["writer"] = "writer"
    client: int
    principal: str
    run: str
    epoch: int
    fenced_at: int | None = None


class _End(_Line):
    kind: Literal["end"] = "end"
    lines: int


_KINDS: dict[str, type[_VersionLine | _RunLine | _WriterLine | _End]] = {
    "version": _VersionLine,
    "run": _RunLine,
    "writer": _WriterLine,
    "end": _End,
}


async def archive(registry: SessionRegistry, session_id: SessionId) -> bytes:
    """Return a session with its past as an archive.

    Raises:
        SessionNotFound, StorageError: it cannot be read.
    """
    async with registry.open(session_id) as session:
        await session.snapshot(keep_rows=True)  # the present state is the last version
    record = await registry.store.get(session_id)
    stored = await registry.store.load(session_id)
    assert record is not None
    assert stored is not None
    described = _Session(**asdict(record) | {"id": name_of(record.id)})
    lines: list[_Line] = [_Head(format=FORMAT, version=1, session=described)]
    for version in (await registry.store.history(session_id)).versions:
        rows = await registry.store.load_version(session_id, version.seq)
        lines.append(_version_line(version, (await registry.documents.fold([row.update for row in rows])).update))
    over = {run.id for run in runs_of(stored) if run.over}
    lines += [
        _RunLine(id=run.id, agent=run.agent, queued_at=run.queued_at, data=run.data)
        for run in stored.runs
        if run.id in over
    ]
    lines += [_WriterLine(**asdict(writer)) for writer in stored.writers]
    lines.append(_End(lines=len(lines) + 1))
    return "".join(one_line(line.model_dump_json(by_alias=True)) + "\n" for line in lines).encode()


async def take_over(registry: SessionRegistry, session_id: SessionId, archived: bytes) -> SessionRecord:
    """Make a new session of an archive; return its record once it is durable.

    What is in the archive is as foreign as what a peer sends, and is tried first. Runs that had not ended are
    interrupted.

    Raises:
        BadDocument: it is not a whole archive; the message says where.
        SessionExists: there is a session of that name.
        UpdateError: a version cannot be decoded.
        StorageError: it could not be stored.
    """
    head, lines = _parse(archived)
    snapshots: list[tuple[Version, Row]] = []
    for line in lines:
        if isinstance(line, _VersionLine):
            document, waiting = await registry.documents.vouch([line.content()])
            waits = waiting != EMPTY_UPDATE
            row = Row(Seq(line.seq), line.content() if waits else document, waits)
            snapshots.append((Version(row.seq, Millis(line.at), len(row.update), line.name), row))
    if [version.seq for version, _ in snapshots] != sorted({version.seq for version, _ in snapshots}):
        raise BadDocument(why="the versions of the archive are not in order")
    if not snapshots:
        raise BadDocument(why="the archive holds no version")
    record = await registry.loading.adopt(
        session_id,
        snapshots,
        created_at=Millis(head.session.created_at),
        status=head.session.status,
        title=head.session.title,
        entries=_entries(lines),
    )
    _log.info("session begins", extra={"session": session_id, "imported": True})
    return record


def _version_line(version: Version, update: bytes) -> _VersionLine:
    return _VersionLine(
        seq=version.seq,
        at=version.at,
        name=version.name,
        update=base64.b64encode(update).decode(),
        sha256=hashlib.sha256(update).hexdigest(),
    )


def _entries(lines: Iterable[_Line]) -> Entries:
    listed = list(lines)
    return Entries(
        runs=[
            RunEntry(
                line.id, line.agent, False, Millis(line.queued_at), None, line.data, record.status, record.answerer
            )
            for line in listed
            if isinstance(line, _RunLine) and (record := line.record()).over
        ],
        writers=[
            WriterEntry(line.client, line.principal, line.run, line.epoch, line.fenced_at)
            for line in listed
            if isinstance(line, _WriterLine)
        ],
    )


def _parse(archived: bytes) -> tuple[_Head, list[_Line]]:
    texts = archived.splitlines()
    number = 0
    try:
        head = _Head.model_validate_json(texts[0] if texts else b"")
        lines = []
        for number, line in enumerate(_values(texts[1:]), start=1):  # noqa: B007 - the message needs it
            lines.append(_KINDS[line.get("kind", "")].model_validate(line))
    except (ValidationError, ValueError, KeyError, AttributeError, BadValue) as error:
        raise BadDocument(why=f"line {number + 1} is not one of an archive of version 1") from error
    end = lines[-1] if lines else None
    if not isinstance(end, _End) or end.lines != len(texts):
        raise BadDocument(why="the archive was cut off: its last line is missing")
    return head, list(lines)


def _values(texts: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for text in texts:
        yield parse_json(text)

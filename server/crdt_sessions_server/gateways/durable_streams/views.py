"""What is in a session, to be read as streams: its events, and one message's text.

There is no second log: a view is made of the document as it is. So what a reader is told from an offset on says how
things are now, and leads to the same end; two reads from one offset may be spelled differently.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from crdt_sessions.errors import BadStreamRequest, OffsetExpired, SessionNotFound, StreamNotFound
from crdt_sessions.ids import Seq, SessionId, name_of
from crdt_sessions.model import MessageCursor, MessageRemoved, MessageReplaced, PartBegan, PartChanged, TextAdded
from crdt_sessions.runtime import (
    MetaChanged,
    Position,
    Projector,
    RunChanged,
    Session,
    SessionEvent,
    SessionRegistry,
    StateChanged,
    whole,
)
from crdt_sessions.runtime.recent import Recent
from crdt_sessions.streams import NOW, START, read_offset, spelled
from crdt_sessions_server.gateways.durable_streams.reading import Found
from crdt_sessions_server.http.streaming import compact

BREATH_S = 0.05
"""A reader is told of what changed in so many seconds at once: how things are is told whole, not what was added."""
_PLACE = re.compile(r"([0-9]{16})_([0-9a-f]{1,32})_([\w.-]{1,120})(?:~[0-9a-f]{16})?")


class View(ABC):
    """Something of a session, to be read as a stream.

    Args:
        registry: the sessions.
        session: which one.
    """

    content_type: str

    def __init__(self, registry: SessionRegistry, session: SessionId) -> None:
        self._registry = registry
        self._session = session
        self.name = f"{type(self).__name__} {name_of(session)}".encode("ascii", "backslashreplace").hex()

    @abstractmethod
    async def read(self, offset: str) -> Found:
        """Return what follows an offset."""

    @abstractmethod
    def seq_of(self, offset: str) -> int:
        """Return the entry of the session's log after which there may be something new."""

    async def wait(self, offset: str, seconds: float) -> None:
        """Return once something of the session has changed since *offset*, or after *seconds*."""
        with contextlib.suppress(TimeoutError):
            async with self.opened() as session, asyncio.timeout(seconds):
                await session.changed(Seq(self.seq_of(offset)), session.engine.roster.version)
                await asyncio.sleep(BREATH_S)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Session]:
        """Return a context with the session.

        Raises:
            StreamNotFound: there is none.
        """
        try:
            async with self._registry.open(self._session) as session:
                await session.readable()
                yield session
        except SessionNotFound:
            raise StreamNotFound(path=name_of(self._session)) from None


def spelled_in(session: Session, seq: int) -> str:
    """Return the offset of an entry of a session's log; it says of which life of which session, too."""
    return f"{seq:016d}_{session.life}_{session.record.lineage}"


def position_of(offset: str) -> Position | None:
    """Return what a reader has that comes with an offset; None if nothing.

    Raises:
        BadStreamRequest: it was never handed out.
    """
    if offset == START:
        return None
    found = _PLACE.fullmatch(offset)
    if found is None:
        raise BadStreamRequest(why=f"the offset {offset[:80]!r} is none that was handed out")
    return Position(found[3], int(found[1]), found[2])


def seq_of(offset: str) -> int:
    """Return the entry of a session's log that an offset names; -1 for the beginning."""
    position = position_of(offset)
    return -1 if position is None else position.seq


Cursors = Recent[str, dict[str, MessageCursor]]
"""What readers have of messages that are being written, by the offset that they were given."""


class Events(View):
    """Messages, runs, state and what the session is, as change messages of Durable State: each says how it is now.

    Args:
        registry: the sessions.
        session: which one.
        cursors: what readers have of messages that are being written: they are told what is added only. If None,
            such a message is told whole each time.
    """

    content_type = "application/json"
    seq_of = staticmethod(seq_of)

    def __init__(self, registry: SessionRegistry, session: SessionId, cursors: Cursors | None = None) -> None:
        super().__init__(registry, session)
        self._cursors = cursors
        self.name += "" if cursors is None else "-added"

    async def read(self, offset: str) -> Found:
        """Return what follows an offset."""
        async with self.opened() as session:
            if offset == NOW:
                tail = spelled_in(session, session.engine.log.tail)
                return Found(b"", tail, tail, up_to_date=True, last=False)
            position, added = position_of(offset), self._cursors is not None
            if position is not None and self._cursors is not None:
                position.messages = copy.deepcopy(self._cursors.get(offset, {}))
            projector = Projector(session, position, presence=False)
            told: list[dict[str, Any]] = [{"headers": {"control": "reset"}}] if projector.reset else []
            async for events in projector.take_in_turns():
                told += [change for event in whole(session, events) for change in _changes(event, added=added)]
            data = "".join(f"{compact(change)}," for change in told).encode()
            tail = spelled_in(session, projector.position.seq)
            if self._cursors is not None and (told_of := projector.position.messages):
                tail += f"~{_digest(told_of)}"  # two readers may have come there with more and with less of a text
                self._cursors.remember(tail, copy.deepcopy(told_of))
            await session.readable()
            return Found(data, offset, tail, up_to_date=True, last=False)


def _digest(cursors: dict[str, MessageCursor]) -> str:
    return hashlib.blake2b(repr(sorted(cursors.items())).encode(), digest_size=8).hexdigest()


def _changes(event: SessionEvent, *, added: bool) -> Iterator[dict[str, Any]]:
    match event:
        case MessageReplaced(id, value):
            yield _upsert("message", id, value.to_json())
        case MessageRemoved(id):
            yield {"type": "message", "key": id, "headers": {"operation": "delete"}}
        case RunChanged(run):
            yield _upsert("run", run.id, run.to_json())
        case MetaChanged(meta):
            yield _upsert("session", "session", meta.to_json())
        case StateChanged(state):
            yield _upsert("state", "state", state)
        case TextAdded(message, part, offset, text) if added:
            said = {"messageId": message, "part": part, "offset": offset, "text": text}
            yield _change("text", f"{message}/{part}/{offset}", said, "insert")
        case PartBegan(message, part, value) | PartChanged(message, part, value) if added:
            yield _upsert("part", f"{message}/{part}", {"messageId": message, "part": part, "value": value.to_json()})
        case _:
            pass  # of a message that is told whole


def _upsert(kind: str, key: str, value: dict[str, Any]) -> dict[str, Any]:
    return _change(kind, key, value, "upsert")


def _change(kind: str, key: str, value: dict[str, Any], operation: str) -> dict[str, Any]:
    return {"type": kind, "key": key, "value": value, "headers": {"operation": operation}}


class Text(View):
    """The text of one message, as it is written; it ends when nobody writes it any more.

    Args:
        registry: the sessions.
        session: which one.
        message: which message.
    """

    content_type = "text/plain; charset=utf-8"

    def __init__(self, registry: SessionRegistry, session: SessionId, message: str) -> None:
        super().__init__(registry, session)
        self.name += message.encode("utf-8", "backslashreplace").hex()
        self._message = message
        self._seen = -1

    def seq_of(self, offset: str) -> int:
        """Return the entry of the log with which the text was read last."""
        return self._seen

    async def read(self, offset: str) -> Found:
        """Return what follows an offset.

        Raises:
            OffsetExpired: the text began anew, or was changed.
        """
        async with self.opened() as session:
            self._seen = session.engine.log.tail
            found = session.view.messages.find(self._message)
            value = found.to_value() if found is not None else None
            if found is None or value is None:
                raise StreamNotFound(path=self._message)
            text = value.text.encode()
            over = found.seq is not None and session.engine.runs.table.writer_of(self._message) is None
            tail = spelled(len(text), found.superseded)
            start = tail if offset == NOW else spelled(0, found.superseded) if offset == START else offset
            at = self._bytes(start, found.superseded, len(text))
            await session.readable()
            return Found(text[at:], start, tail, up_to_date=True, last=over)

    def _bytes(self, offset: str, beginning: int, length: int) -> int:
        began, at = read_offset(offset)
        if began != beginning or at > length:
            raise OffsetExpired(path=self._message)
        return at

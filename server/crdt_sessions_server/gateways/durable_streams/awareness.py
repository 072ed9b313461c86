"""Who is present in a session, as a stream in the dialect of ``y-durable-streams``: awareness updates, both ways."""

from __future__ import annotations

import asyncio
import contextlib

from crdt_sessions.errors import BadStreamRequest, StreamNotFound, WireError
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.streams import NOW
from crdt_sessions.sync import Actor
from crdt_sessions.wire import AwarenessEntry, decode_awareness, encode_awareness
from crdt_sessions.wire.update_v1 import MAX_CLOCK
from crdt_sessions.wire.varint import Reader, buffer
from crdt_sessions_server.gateways.durable_streams.reading import Found
from crdt_sessions_server.gateways.durable_streams.views import BREATH_S, View, position_of, seq_of, spelled_in
from crdt_sessions_server.rest.exchange import check_frames

NAME = "default"
"""The only one of the dialect's awareness streams: a session has one presence."""
_NO_ENTRY = Seq(2**62)
_STAYS_MS = Millis(30_000)
"""As long as clients of that dialect keep somebody of whom they hear nothing; they speak every 15 seconds."""


class Awareness(View):
    """Who is present: what follows an offset is one awareness update of all that changed since.

    An offset is a version of the roster. ``now`` is answered with everybody who is here, so nobody has to wait until
    the others speak again.
    """

    content_type = "application/octet-stream"
    seq_of = staticmethod(seq_of)

    async def read(self, offset: str) -> Found:
        """Return what follows an offset."""
        async with self.opened() as session:
            roster = session.engine.roster
            position = None if offset == NOW else position_of(offset)
            known = position is not None and (position.life, position.lineage) == (
                session.life,
                session.record.lineage,
            )
            changes = roster.changed_since(position.seq if position is not None and known else 0)
            tail = spelled_in(session, roster.version)
            data = buffer(encode_awareness(changes)) if changes else b""
            return Found(data, tail if offset == NOW else offset, tail, up_to_date=True, last=False)

    async def wait(self, offset: str, seconds: float) -> None:
        """Return once somebody's presence has changed since *offset*, or after *seconds*."""
        with contextlib.suppress(TimeoutError):
            async with self.opened() as session, asyncio.timeout(seconds):
                await session.changed(_NO_ENTRY, self.seq_of(offset))
                await asyncio.sleep(BREATH_S)


async def announce(registry: SessionRegistry, session: SessionId, actor: Actor, body: bytes) -> None:
    """Take awareness updates, each with its length before it, of clients of *actor*.

    Raises:
        BadStreamRequest: they are none.
        StreamNotFound: there is no such session.
        TooLarge, TooMany, AccessDenied: one is not taken; those before it are.
    """
    entries = list(_entries(body))
    async with Awareness(registry, session).opened() as live:
        for entry in entries:
            live.presence.relay(actor, entry, _STAYS_MS)


def _entries(body: bytes) -> list[AwarenessEntry]:
    reader, found, count = Reader(body), list[AwarenessEntry](), 0
    try:
        while reader.remaining:
            update = bytes(reader.buffer())
            count += 1 + Reader(update).varuint()
            check_frames(count)
            found += decode_awareness(update)
    except WireError as error:
        raise BadStreamRequest(why=f"the body is not awareness updates with their lengths: {error}") from None
    if any(entry.clock >= MAX_CLOCK for entry in found):
        raise BadStreamRequest(why=f"the clock of a presence is below {MAX_CLOCK}")
    return found


def check_name(name: str, path: str) -> None:
    """Return if *name* is that of a stream of awareness that there is.

    Raises:
        StreamNotFound: it is not.
    """
    if name != NAME:
        raise StreamNotFound(path=f"{path}?awareness={name}")

"""The Yjs updates of a session as a stream, in the dialect of ``y-durable-streams``."""

from __future__ import annotations

from crdt_sessions.ids import SessionId
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.runtime.recent import Recent
from crdt_sessions.streams import NOW
from crdt_sessions.wire.varint import buffer
from crdt_sessions_server.gateways.durable_streams.reading import Found
from crdt_sessions_server.gateways.durable_streams.views import View, position_of, seq_of, spelled_in

Vectors = Recent[str, bytes]
"""State vectors of documents at offsets that readers were given lately: so they are told what is new only."""


class Updates(View):
    """The session's Yjs updates, each with its length before it, as ``y-durable-streams`` reads them.

    What follows an offset is one update that brings whoever has what came before it up to date.
    """

    content_type = "application/octet-stream"
    seq_of = staticmethod(seq_of)

    def __init__(self, registry: SessionRegistry, session: SessionId, vectors: Vectors) -> None:
        super().__init__(registry, session)
        self._vectors = vectors

    async def read(self, offset: str) -> Found:
        """Return what follows an offset."""
        async with self.opened() as session:
            seq, tail = session.engine.log.head, spelled_in(session, session.engine.log.head)
            vector = session.document.state_vector()
            self._vectors.remember(tail, vector)
            position = None if offset == NOW else position_of(offset)
            known = position is not None and session.remembers(position.lineage, position.life, position.seq)
            if offset == NOW or (position is not None and known and position.seq >= seq):
                return Found(b"", tail, tail, up_to_date=True, last=False)
            update = session.document.encode(self._vectors.get(offset) if known else None)
            await session.durable()
            return Found(buffer(update), offset, tail, up_to_date=True, last=False)

    async def snapshot(self) -> tuple[bytes, str]:
        """Return the whole document as one update, and the offset of what follows it."""
        async with self.opened() as session:
            tail = spelled_in(session, session.engine.log.head)
            self._vectors.remember(tail, session.document.state_vector())
            update = session.document.encode()
            await session.durable()
            return update, tail

"""A document that another node serves: its messages go there and back on a socket of their own.

The client's socket carries many documents, which may be on many nodes, so it cannot be spliced to one of them.
"""

from __future__ import annotations

import asyncio

from crdt_sessions.wire import Closing, hocuspocus
from crdt_sessions.wire.closing import NORMAL
from crdt_sessions.wire.hocuspocus import PING, PONG, Content, pack
from crdt_sessions_server.serving.hocuspocus.document import DocumentLine
from crdt_sessions_server.serving.socket_forwarding import Relay


async def carry(line: DocumentLine, relay: Relay) -> Closing:
    """Pass on what either side says about a document until one ends; return how it ended for the client."""

    async def to_node() -> Closing:
        async for batch in line.batches():
            for body in batch:
                await relay.send(pack(line.address, Content(body)))
        return NORMAL

    async def to_client() -> Closing:
        async for message in relay.messages():
            if not isinstance(message, bytes) or message in (PING, PONG):
                continue
            if (refusal := hocuspocus.refusal_in(message)) is not None:
                return _closing(refusal)
            line.attached = True
            await line.drained()
            line.write([message])
        return relay.closing

    tasks = [asyncio.create_task(to_node()), asyncio.create_task(to_client())]
    try:
        (first, *_), _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return first.result() if not isinstance(first.exception(), OSError) else NORMAL
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _closing(refusal: str) -> Closing:
    """Return what a node says of how a document ended, as this service says it: the code, then the reason."""
    code, _, reason = refusal.partition(" ")
    return Closing(int(code), reason) if code.isascii() and code.isdigit() else Closing(4403, refusal)

"""A secret that all processes of a store share: whoever needs it first makes it."""

from __future__ import annotations

import json

from crdt_sessions.clock import Clock
from crdt_sessions.storage import Stream, StreamChange, StreamFacts, StreamStore


async def stored_secret(store: StreamStore, clock: Clock, path: str, name: str, fresh: str) -> str:
    """Return the secret that is kept in a store; *fresh*, which is kept from now on, if there is none.

    Args:
        store: where it is kept.
        clock: the only source of time.
        path: the path of the stream, of the empty tenant, whose state has it.
        name: its name there.
        fresh: a new secret.
    """
    now, found = clock.now(), fresh

    def decide(facts: StreamFacts) -> StreamChange | None:
        nonlocal found
        if facts.stream is not None:
            found = json.loads(facts.stream.state or "{}")[name]
            return None
        found, state = fresh, json.dumps({name: fresh})
        return StreamChange(Stream("", path, "application/json", "", now, now, state=state))

    await store.alter_stream("", path, decide, now=now)
    return found

"""What every part of the contract is made of: how to open the store, and values to put into it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.limits import Retention
from crdt_sessions.storage import Delivery, Row, RunEntry, UpdateStore

A, B = SessionId("a"), SessionId("b")
NOW = Millis(1_700_000_000_000)
KEEP = Retention(last=2, dailies=0)


def rows(first: int, *updates: bytes) -> list[Row]:
    """Return rows numbered from *first*."""
    return [Row(Seq(first + index), update) for index, update in enumerate(updates)]


def run(
    id: str,
    *,
    agent: str = "writer",
    ready: bool = False,
    queued_at: int = 3,
    due_at: int | None = None,
    data: str = "{}",
    status: str = "queued",
    answerer: str = "writer",
) -> RunEntry:
    """Return a run as the store knows it."""
    due = None if due_at is None else Millis(due_at)
    return RunEntry(id, agent, ready, Millis(queued_at), due, data, status, answerer)


def delivery_of(session: SessionId) -> Delivery:
    """Return a message about a session, due at once."""
    return Delivery(f"msg-{session}", "hook", session, "run.queued", "{}", NOW)


def delivery(id: str, endpoint: str = "endpoint", *, at: int) -> Delivery:
    """Return a message to an endpoint, due at *at*."""
    return Delivery(id, endpoint, A, "run.completed", "{}", Millis(at), next_at=Millis(at))


class StoreSuite:
    """Tests of a store. Every one opens the store in a folder of its own."""

    def open(self, path: Path) -> AbstractAsyncContextManager[UpdateStore]:
        """Open the store in the folder *path*; opening the same folder again finds the same sessions."""
        raise NotImplementedError

    async def settle(self, store: UpdateStore) -> None:
        """Return once what was stored is seen by reads across sessions, too, which may be behind for a second."""

    async def create(self, store: UpdateStore, session: SessionId = A) -> None:
        """Create a session with a seed and a title."""
        await store.create(session, b"seed", generation=1, title="T", now=NOW)

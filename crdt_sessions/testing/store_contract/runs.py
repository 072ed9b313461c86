"""The contract of a store: runs, agents and steps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from crdt_sessions.errors import SessionNotFound
from crdt_sessions.ids import Millis, session_id
from crdt_sessions.storage import Entries
from crdt_sessions.testing.store_contract.suite import NOW, A, B, StoreSuite, rows, run


class RunContract(StoreSuite):
    """What a store promises of runs, agents and steps."""

    async def test_runs_are_found_across_sessions(self, tmp_path: Path) -> None:
        ours = session_id("a", "acme")
        async with self.open(tmp_path) as store:
            for session in (A, B, ours):
                await store.create(session, b"seed", generation=1, title=None, now=NOW)
            for session, name, status, answerer, queued_at in (
                (A, "r1", "running", "writer", 1),
                (B, "r2", "completed", "writer", 2),
                (A, "r3", "queued", "critic", 3),
                (B, "r4", "running", "critic", 4),
                (ours, "r5", "running", "writer", 5),
            ):
                entry = run(name, queued_at=queued_at, status=status, answerer=answerer)
                seq = len((await store.load(session)).rows) + 1  # type: ignore[union-attr]
                await store.append(session, rows(seq, b"x"), entries=Entries(runs=[entry]), now=NOW)

            async def found(tenant: str = "", **which: Any) -> list[str]:
                return [each.run.id for each in await store.runs(tenant, **{"limit": 9, **which})]

            assert await found() == ["r4", "r3", "r2", "r1"]
            assert await found(statuses=["running"]) == ["r4", "r1"]
            assert await found(statuses=["running", "queued"]) == ["r4", "r3", "r1"]
            assert await found(answerer="writer") == ["r2", "r1"]
            assert await found(answerer="critic", statuses=["running"]) == ["r4"]
            assert await found("acme") == ["r5"]
            first, second = await store.runs("", limit=2)
            assert (first.session, first.asked_at, first.run.status) == (B, 4, "running")
            assert await found(before=(second.asked_at, second.session, second.run.id), limit=1) == ["r2"]
            again = run("r1", queued_at=99, status="queued", answerer="writer")
            seq = len((await store.load(A)).rows) + 1  # type: ignore[union-attr]
            await store.append(A, rows(seq, b"x"), entries=Entries(runs=[again]), now=NOW)
            assert await found() == ["r4", "r3", "r2", "r1"], "one that is queued again keeps its place"
            assert await found(statuses=["queued"]) == ["r3", "r1"]
            await store.delete(A, now=NOW)
            assert await found() == ["r4", "r2"]

    async def test_agents_are_remembered(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            assert await store.agents("") == {}
            await store.note_agents("", ["writer", "critic"], Millis(1))
            await store.note_agents("", ["writer"], Millis(5))
            await store.note_agents("acme", ["writer"], Millis(3))
            assert await store.agents("") == {"critic": 1, "writer": 5}
            assert await store.agents("acme") == {"writer": 3}
            await store.note_agents("acme", [f"agent-{number:04}" for number in range(1000)], Millis(9))
            agents = await store.agents("acme")
            assert (len(agents), "writer" in agents) == (1000, False), "of too many, those seen last"

    async def test_ready_runs_are_found_oldest_first(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for session in (A, B):
                await self.create(store, session)
            runs = [run("late", queued_at=9, ready=True), run("early", queued_at=1, ready=True), run("waits")]
            await store.append(A, rows(2, b"x"), entries=Entries(runs=runs), now=NOW)
            other = [run("any", agent="*", queued_at=5, ready=True), run("theirs", agent="critic", ready=True)]
            await store.append(B, rows(2, b"x"), entries=Entries(runs=other), now=NOW)
            found = await store.ready_runs(["writer", "*"], limit=9)
            assert list(found) == [(A, "early"), (B, "any"), (A, "late")]
            assert list(await store.ready_runs(["writer"], limit=1)) == [(A, "early")]
            await store.describe(A, status="closed", now=NOW)
            assert list(await store.ready_runs(["writer", "*"], limit=9)) == [(B, "any")]

    async def test_due_sessions_are_found(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for session in (A, B):
                await self.create(store, session)
            await store.append(A, rows(2, b"x"), entries=Entries(runs=[run("r", due_at=5), run("s")]), now=NOW)
            await store.append(B, rows(2, b"x"), entries=Entries(runs=[run("r", due_at=9)]), now=NOW)
            assert list(await store.take_due(Millis(4), limit=9)) == []
            assert list(await store.take_due(Millis(5), limit=9)) == [A]
            assert sorted(await store.take_due(Millis(9), limit=9)) == [A, B]

    async def test_a_step_is_recorded_once(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            assert await store.step(A, "r", "pay") is None
            racing = await asyncio.gather(*(store.record_step(A, "r", "pay", f"{n}") for n in range(5)))
            assert len(set(racing)) == 1
            assert await store.step(A, "r", "pay") == racing[0]
            assert await store.record_step(A, "s", "pay", "other run") == "other run"
            with pytest.raises(SessionNotFound):
                await store.record_step(B, "r", "pay", "x")

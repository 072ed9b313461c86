"""The contract of a store: durable streams."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crdt_sessions.errors import StorageError, StreamNotFound
from crdt_sessions.ids import Millis
from crdt_sessions.storage import Batch, Decide, Producer, Stream, StreamChange, StreamEnd, StreamFacts, UpdateStore
from crdt_sessions.testing.store_contract.suite import NOW, StoreSuite

_MOST = 1 << 20
_LATER = Millis(NOW + 10_000)


def _new(path: str, tenant: str = "", **facts: Any) -> Stream:
    return Stream(tenant, path, "text/plain", "ann", NOW, NOW, **facts)


async def _put(store: UpdateStore, stream: Stream, data: bytes = b"", now: Millis = NOW) -> Stream:
    """Make a stream with *data* in it; return it as it is then."""
    made = replace(stream, tail=stream.tail + len(data))
    await store.alter_stream(stream.tenant, stream.path, lambda _: StreamChange(made, data), now=now)
    found = await store.stream(stream.tenant, stream.path, now=now)
    assert found is not None
    return found


async def _append(store: UpdateStore, path: str, data: bytes) -> None:
    def decide(facts: StreamFacts) -> StreamChange:
        assert facts.stream is not None
        return StreamChange(replace(facts.stream, tail=facts.stream.tail + len(data)), data)

    await store.alter_stream("", path, decide, now=NOW)


async def _bytes(store: UpdateStore, path: str, after: int = 0) -> bytes:
    found = await store.stream("", path, now=NOW)
    assert found is not None
    entries = await store.stream_entries(found, after, most=_MOST)
    return b"".join(entry.data for entry in entries)[after - entries[0].start :] if entries else b""


async def _remove(store: UpdateStore, path: str) -> None:
    await store.alter_stream("", path, lambda _: StreamChange(None), now=NOW)


class StreamContract(StoreSuite):
    """What a store promises of durable streams."""

    async def test_a_stream_is_found_as_it_was_put(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            assert await store.stream("", "a/b", now=NOW) is None
            wanted = _new("a/b", ttl_s=7, closed=True, closed_by=Batch("p", 1, 2), last_seq="x")
            found = await _put(store, wanted, b"12")
            assert found == replace(wanted, tail=2, id=found.id)
            assert found.id
            assert await store.stream("other", "a/b", now=NOW) is None

    async def test_appends_are_entries_in_their_order(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await _put(store, _new("s"))
            await asyncio.gather(*(_append(store, "s", bytes([n]) * 3) for n in range(5)))
            found = await store.stream("", "s", now=NOW)
            assert found is not None
            entries = await store.stream_entries(found, 4, most=_MOST)
            assert [(entry.start, entry.data) for entry in entries] == [(3 * n, bytes([n]) * 3) for n in range(1, 5)]
            assert len(await store.stream_entries(found, 0, most=7)) == 2
            assert len(await store.stream_entries(found, 0, most=1)) == 1
            assert list(await store.stream_entries(found, 15, most=_MOST)) == []

    async def test_a_decision_is_made_on_what_is_there(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            stream = await _put(store, _new("s"), b"x")
            source = await _put(store, _new("source"))
            seen: list[StreamFacts] = []

            def decide(facts: StreamFacts) -> StreamChange | None:
                seen.append(facts)
                return StreamChange(facts.stream, producer=Producer(1, len(seen)))

            for _ in range(2):
                await store.alter_stream("", "s", decide, now=NOW, source="source", producer="p")
            assert seen == [StreamFacts(stream, source, None), StreamFacts(stream, source, Producer(1, 1))]
            await store.alter_stream("", "s", lambda facts: seen.append(facts), now=NOW, producer="q")
            assert seen[-1] == StreamFacts(stream)

    async def test_a_decision_that_refuses_changes_nothing_and_holds_up_nobody(self, tmp_path: Path) -> None:
        def refuse(facts: StreamFacts) -> StreamChange:
            raise StreamNotFound(path="s")

        async with self.open(tmp_path) as store:
            await _put(store, _new("s"))
            refused = store.alter_stream("", "s", refuse, now=NOW)
            told = await asyncio.gather(_append(store, "s", b"x"), refused, return_exceptions=True)
            assert [type(each) for each in told] == [type(None), StreamNotFound]
            with pytest.raises(StreamNotFound):
                await store.alter_stream("", "s", refuse, now=NOW)
            assert await _bytes(store, "s") == b"x"

    async def test_a_decision_with_a_defect_fails_alone_and_the_store_goes_on(self, tmp_path: Path) -> None:
        def fail(facts: StreamFacts) -> StreamChange:
            raise RecursionError

        async with self.open(tmp_path) as store:
            await _put(store, _new("s"))
            failing = store.alter_stream("", "s", fail, now=NOW)
            told = await asyncio.gather(
                _append(store, "s", b"1"), failing, _append(store, "s", b"2"), return_exceptions=True
            )
            assert [type(told[0]), type(told[2])] == [type(None)] * 2
            assert isinstance(told[1], StorageError | RecursionError)
            with pytest.raises((StorageError, RecursionError)):
                await store.alter_stream("", "s", fail, now=NOW)
            await _append(store, "s", b"3")
            assert await _bytes(store, "s") == b"123"

    async def test_a_fork_shares_what_its_source_had(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            source = await _put(store, _new("source"), b"abc")
            await _append(store, "source", b"def")
            fork = await _put(store, _new("fork", source=source.id, forked_at=4, tail=4), b"XY")
            await _put(store, _new("again", source=fork.id, forked_at=2, tail=2), b"!")
            await _append(store, "source", b"ghi")
            assert await _bytes(store, "source") == b"abcdefghi"
            assert await _bytes(store, "fork") == b"abcdXY"
            assert await _bytes(store, "fork", 5) == b"Y"
            assert await _bytes(store, "again") == b"ab!"
            assert await _bytes(store, "again", 1) == b"b!"

    async def test_a_source_is_kept_for_its_forks_only(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            source = await _put(store, _new("source"), b"abc")
            fork = await _put(store, _new("fork", source=source.id, forked_at=3, tail=3))
            await _put(store, _new("again", source=fork.id, forked_at=3, tail=3))
            await _remove(store, "source")
            await _remove(store, "fork")
            for path in ("source", "fork"):
                gone = await store.stream("", path, now=NOW)
                assert getattr(gone, "gone", None) is True
            assert await _bytes(store, "again") == b"abc"
            assert [each.path for each in await store.streams("", limit=9, now=NOW)] == ["again"]
            assert await store.count_streams("") == 3
            await _remove(store, "again")
            assert await store.count_streams("") == 0
            await _put(store, _new("source"), b"new")
            assert await _bytes(store, "source") == b"new"

    async def test_a_line_of_forks_longer_than_the_stack_is_read_and_goes_with_its_last(self, tmp_path: Path) -> None:
        def fork(path: str, gone: bool) -> Decide:
            def decide(facts: StreamFacts) -> StreamChange:
                assert facts.source is not None
                return StreamChange(_new(path, source=facts.source.id, forked_at=1, tail=1, gone=gone))

            return decide

        async with self.open(tmp_path) as store:
            await _put(store, _new("0", gone=True), b"x")
            last = sys.getrecursionlimit()
            together = 1 if store.shared else last  # changes of several streams are in no order where others write
            for begin in range(1, last + 1, together):
                numbers = range(begin, begin + together)
                await asyncio.gather(
                    *(
                        store.alter_stream("", f"{n}", fork(f"{n}", n < last), now=NOW, source=f"{n - 1}")
                        for n in numbers
                    )
                )
            assert await _bytes(store, f"{last}") == b"x"
            await _remove(store, f"{last}")
            assert await store.count_streams("") == 0

    async def test_streams_are_found_by_their_paths_and_those_that_have_a_state(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await _put(store, _new("a"), b"12")
            await _put(store, _new("due", ttl_s=1))
            kept = await _put(store, _new("b", state='{"n": "\\u0000"}'))
            other = await _put(store, _new("b", tenant="other", state="{}"))
            later = Millis(NOW + 2000)
            found = await store.streams_at("", ["b", "a", "due", "nowhere"], now=later)
            assert {each.path: each.tail for each in found} == {"a": 2, "b": 0}
            assert list(await store.streams_at("", [], now=NOW)) == []
            assert list(await store.stream_states(limit=9)) == [kept, other]
            assert list(await store.stream_states(limit=1)) == [kept]
            assert list(await store.stream_states(after=kept.id, limit=9)) == [other]
            changed = replace(kept, state=None)
            await store.alter_stream("", "b", lambda _: StreamChange(changed), now=NOW)
            assert list(await store.stream_states(limit=9)) == [other]

    async def test_a_stream_goes_when_its_time_has_come(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await _put(store, _new("idle", ttl_s=10))
            source = await _put(store, _new("dated", expires_at=_LATER))
            await _put(store, _new("fork", source=source.id))
            for path in ("idle", "dated"):
                assert await store.stream("", path, now=Millis(_LATER - 1)) is not None
            assert len(await store.streams("", limit=9, now=Millis(_LATER - 1))) == 3
            assert [each.path for each in await store.streams("", limit=9, now=_LATER)] == ["fork"]
            assert await store.stream("", "idle", now=_LATER) is None
            kept = await store.stream("", "dated", now=_LATER)
            assert getattr(kept, "gone", None) is True
            await store.sweep_streams(_LATER)
            assert await store.count_streams("") == 2

    async def test_streams_are_listed_by_path_for_each_tenant(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for tenant, path in (("", "b"), ("", "a"), ("acme", "a"), ("", "c")):
                await _put(store, _new(path, tenant))
            listed = await store.streams("", limit=2, now=NOW)
            assert [each.path for each in listed] == ["a", "b"]
            assert [each.path for each in await store.streams("", after="b", limit=2, now=NOW)] == ["c"]
            assert [each.tenant for each in await store.streams("acme", limit=9, now=NOW)] == ["acme"]
            assert await store.count_streams("acme") == 1

    async def test_how_far_streams_are_is_seen_where_others_may_change_them(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            first = await _put(store, _new("a"), b"12")
            await _put(store, _new("a", tenant="acme", closed=True))
            places = [("", "a"), ("acme", "a"), ("", "none")]
            found = await store.stream_ends(places)
            if not store.shared:
                assert not found
                return
            assert found["", "a"] == StreamEnd(first.id, 2, closed=False)
            assert found["acme", "a"].closed
            assert ("", "none") not in found
            await _append(store, "a", b"3")
            assert (await store.stream_ends(places))["", "a"].tail == 3

    async def test_who_made_a_stream_may_be_forgotten(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for tenant, path in (("", "a"), ("", "b"), ("acme", "a")):
                await _put(store, _new(path, tenant), b"x")
            await _put(store, replace(_new("c"), owner="bob"))
            assert await store.disown_streams("", "ann") == 2
            assert [each.owner for each in await store.streams("", limit=9, now=NOW)] == ["", "", "bob"]
            assert [each.owner for each in await store.streams("acme", limit=9, now=NOW)] == ["ann"]
            assert await store.disown_streams("", "ann") == 0
            await _append(store, "a", b"y")
            assert await _bytes(store, "a") == b"xy"

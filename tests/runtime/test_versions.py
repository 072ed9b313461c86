"""The past of a session: kept, read, compared, named, brought back, forked."""

import jsonpatch
import pytest

from crdt_sessions.errors import NotFound, RunsActive, SessionExists, SessionNotFound
from crdt_sessions.ids import Seq, session_id
from crdt_sessions.limits import Retention
from crdt_sessions.model import Author, MessageHead, RunCancel, RunRequest, TextPart, by_id, difference, export_of
from crdt_sessions.runtime import SessionRegistry, Versions
from tests.runtime.conftest import ROOM, Peer


@pytest.fixture
async def versions(registry):
    async with registry.open(ROOM, create=True):
        pass
    return Versions(registry, ROOM)


async def write(registry, key, value):
    async with registry.open(ROOM) as session:
        await session.edit(lambda view: view.state.__setitem__(key, value))


async def fold(registry):
    async with registry.open(ROOM) as session:
        await session.snapshot()


async def test_keeping_a_version_takes_no_state_away(registry, versions):
    for number in range(3):
        await write(registry, "n", number)
    named = await versions.keep("now")
    await write(registry, "n", 3)
    assert [await state_at(versions, seq) for seq in range(1, 6)] == [{}, *({"n": n} for n in range(4))]
    await fold(registry)
    assert (await state_at(versions, named.seq)) == {"n": 2}
    with pytest.raises(NotFound):
        await versions.read(Seq(named.seq - 1))


async def state_at(versions, seq):
    return export_of(await versions.read(Seq(seq))).state


async def test_every_state_since_the_last_snapshot_can_be_read(registry, versions, clock):
    for number in range(3):
        await write(registry, "n", number)
        await clock.advance(60)
    history = await versions.history()
    assert (history.versions, history.first, history.last) == ([], 1, 4)
    assert [await state_at(versions, seq) for seq in range(1, 5)] == [{}, {"n": 0}, {"n": 1}, {"n": 2}]
    assert [later - first for first, later in zip(history.times[1:], history.times[2:], strict=False)] == [60_000] * 2


@pytest.fixture
async def forgetful(store, clock):
    async with SessionRegistry(store, clock=clock, retention=Retention(last=2, dailies=0)) as registry:
        async with registry.open(ROOM, create=True):
            pass
        yield registry


async def test_a_version_with_a_name_outlives_those_without(forgetful):
    registry, versions = forgetful, Versions(forgetful, ROOM)
    await write(registry, "n", 0)
    named = await versions.keep("begin")
    for number in range(1, 6):
        await write(registry, "n", number)
        await fold(registry)
    kept = (await versions.history()).versions
    assert kept[0] == named
    assert kept[0].name == "begin"
    assert await state_at(versions, named.seq) == {"n": 0}
    with pytest.raises(NotFound):
        await versions.read(Seq(named.seq + 1))
    assert (await versions.rename(named.seq, None)).name is None
    await write(registry, "n", 7)
    await fold(registry)
    with pytest.raises(NotFound):
        await versions.read(named.seq)


async def test_the_difference_of_versions_is_a_json_patch(registry, versions):
    before = await versions.keep()
    await write(registry, "n", 1)
    async with registry.open(ROOM) as session:
        last = session.engine.log.tail
    patch = await versions.difference(before.seq, last)
    assert patch == [{"op": "add", "path": "/state/n", "value": 1}]
    old, new = await versions.read(before.seq), await versions.read(last)
    assert jsonpatch.apply_patch(by_id(export_of(old)), difference(old, new)) == by_id(export_of(new))


async def test_going_back_is_one_more_change_that_everybody_sees(registry, versions):
    async with Peer(registry) as ann:
        await ann.edit(lambda view: view.state.update({"title": "good", "gone": [1, {"a": "b"}]}))
        draft = ann.replica.document.doc.get("draft", type=__import__("pycrdt").Text)
        await ann.edit(lambda _: draft.insert(0, "the draft"))
        good = await versions.keep("good")

        def spoil(view):
            view.state["title"], view.state["new"] = "bad", 1
            del view.state["gone"]

        await ann.edit(spoil)
        await ann.edit(lambda _: draft.clear())
        before = await versions.restore(good.seq)
        await ann.pump()
        assert dict(ann.replica.view.state.to_py()) == {"title": "good", "gone": [1.0, {"a": "b"}]}
        assert str(draft) == "the draft"
        assert (await state_at(versions, before.seq))["title"] == "bad"
        await versions.restore(before.seq)  # and back again
        await ann.pump()
        assert ann.replica.view.state.to_py() == {"title": "bad", "new": 1.0}
        assert str(draft) == ""


async def test_what_was_written_offline_merges_with_going_back(registry, versions):
    async with Peer(registry) as ann:
        await ann.edit(lambda view: view.state.update({"a": 1}))
        good = await versions.keep()
        await ann.edit(lambda view: view.state.update({"b": 2}))
        ann.replica.edit(lambda view: view.state.update({"c": 3}))  # not sent yet
        await versions.restore(good.seq)
        await ann.pump()
        assert ann.replica.view.state.to_py() == {"a": 1.0, "c": 3.0}
        async with registry.open(ROOM) as session:
            assert session.view.state.to_py() == {"a": 1.0, "c": 3.0}


async def test_settled_fields_and_runs_stay_as_they_are(registry, versions):
    async with Peer(registry) as ann:
        good = await versions.keep()
        await ann.edit(lambda view: view.runs.request("r", RunRequest(message_id="m", agent="*", created_at=1)))
        with pytest.raises(RunsActive) as raised:
            await versions.restore(good.seq)
        assert raised.value.runs == ["r"]
        await ann.edit(lambda view: view.runs.cancel("r", RunCancel(by="ann", at=2)))
        await versions.restore(good.seq)
        async with registry.open(ROOM) as session:
            assert session.view.runs.value("r").status == "cancelled"
            assert session.view.meta.session_id == ROOM


async def test_a_fork_begins_as_the_version_was_and_goes_its_own_way(registry, versions):
    await write(registry, "n", 1)
    then = await versions.keep()
    await write(registry, "n", 2)
    record = await versions.fork(session_id("fork"), seq=then.seq, title="Fork")
    assert (record.id, record.title) == ("fork", "Fork")
    async with registry.open(session_id("fork")) as fork:
        assert fork.view.state.to_py() == {"n": 1.0}
        assert (fork.view.meta.session_id, fork.view.meta.title) == ("fork", "Fork")
        await fork.edit(lambda view: view.state.__setitem__("n", 3))
    async with registry.open(ROOM) as session:
        assert session.view.state.to_py() == {"n": 2.0}
    with pytest.raises(SessionExists):
        await versions.fork(session_id("fork"))
    with pytest.raises(SessionNotFound):
        await Versions(registry, session_id("nowhere")).fork(session_id("x"))


async def test_what_an_agent_was_writing_is_interrupted_in_a_fork_and_goes_on_where_it_was(registry, versions):
    def ask(view):
        head = MessageHead(id="m", role="user", author=Author(id="ann", kind="human"), created_at=1)
        view.messages.add(head, [TextPart(type="text", text="Think, then do it")])
        view.runs.request("r", RunRequest(message_id="m", agent="writer", created_at=1))

    def write(view):
        head = MessageHead(id="r-out", role="assistant", author=Author(id="writer", kind="agent"), created_at=2)
        answer = view.messages.add(head, run_id="r")
        answer.open_text("reasoning").append("Well")
        call = answer.open_tool("c", "book_seat")
        call.close({"price": 120})
        answer.open_tool("d", "pay").append('{"pri')

    async with registry.open(ROOM) as session:
        await session.edit(ask)
        session.decide(lambda runs, now: runs.claim("r", agents=["writer"], owner="w", digest="d", now=now))
        await session.edit(write)
        await versions.fork(session_id("fork"))
        answer = session.view.messages.value("r-out")
        assert [part.state for part in answer.parts] == ["streaming", "input-available", "input-streaming"]
    async with registry.open(session_id("fork")) as fork:
        assert fork.view.runs.value("r").status == "interrupted"
        assert [part.state for part in fork.view.messages.value("r-out").parts] == [
            "interrupted", "output-error", "output-error",
        ]  # fmt: skip


async def test_naming_and_folding_at_the_same_time_lose_nothing(registry, versions):
    import asyncio

    for number in range(5):
        await write(registry, "n", number)
    kept = await asyncio.gather(*(versions.keep(f"v{n}") for n in range(3)), write(registry, "n", 9))
    assert {version.seq for version in kept[:3]} <= {6, 7}
    async with registry.open(ROOM) as session:
        assert await session.export()
        assert session.view.state.to_py() == {"n": 9.0}

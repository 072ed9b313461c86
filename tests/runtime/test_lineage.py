"""Two sessions of one name, on two databases or after a deletion, are never taken for the same."""

import asyncio
import copy
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from pycrdt import Doc, Map

from crdt_sessions.errors import WrongLineage
from crdt_sessions.ids import Millis, Seq, session_id
from crdt_sessions.model import Author, MessageHead, SessionDoc, SessionView, TextPart, lineage_in, seed
from crdt_sessions.runtime import Access, Sandbox, SessionRegistry, Versions, archive, follow, take_over
from crdt_sessions.storage import MemoryStore
from crdt_sessions.sync import READ_ONLY
from crdt_sessions.testing import settle

from .conftest import ROOM, Peer, until


def post(id, text, at=1):
    head = MessageHead(id=id, role="user", author=Author(id="ann"), created_at=at)
    return lambda view: view.messages.add(head, [TextPart(type="text", text=text)])


@pytest.fixture
async def services(request, clock):
    """Make services, each on a database of its own unless it is given one."""
    async with AsyncExitStack() as stack:
        guarded = getattr(request, "param", "none") == "sandbox"
        sandbox = await stack.enter_async_context(Sandbox()) if guarded else None

        @asynccontextmanager
        async def service(store=None):
            async with SessionRegistry(store or MemoryStore(), clock=clock, sandbox=sandbox) as registry:
                yield registry

        yield service


guarded_or_not = pytest.mark.parametrize(
    "services", [pytest.param("sandbox", marks=pytest.mark.processes), "none"], indirect=True
)


@asynccontextmanager
async def returning(registry, document, session=ROOM, **options):
    """A stock client that was away: it has a document, and says nothing of whose that is."""
    peer = Peer(registry, session, **options)
    peer.replica.begin(document)
    async with peer:
        yield peer


async def kept(registry, text="of the first", name=ROOM):
    """Return what a client has of a session in which it said something."""
    async with Peer(registry, name) as peer:
        await peer.edit(post("m1", text))
        await until(lambda: peer.replica.synced and peer.replica.view.messages.value("m1").seq == 1)
        return peer.replica.document.encode()


async def texts(registry, name=ROOM):
    async with registry.open(name) as session:
        return [message.text for message in session.view.messages.ordered()]


@guarded_or_not
async def test_a_stock_client_of_another_session_of_that_name_is_told_and_neither_gets_the_others(services):
    async with services() as first:
        document = await kept(first)
        store = MemoryStore()
        async with services(store) as second:
            await kept(second, "of the second")
            rows = list((await store.load(ROOM)).rows)
            async with returning(second, document) as peer, Peer(second) as other:
                await until(lambda: peer.serving.done())
                assert [message.text for message in peer.replica.view.messages.ordered()] == ["of the first"]
                assert not other.serving.done()
            assert peer.closing.code == 4409
            assert "discard it" in peer.closing.reason
            assert await texts(second) == ["of the second"]
            assert list((await store.load(ROOM)).rows) == rows
        async with returning(first, peer.replica.document.encode()) as peer:
            await until(lambda: peer.replica.synced)
            await peer.edit(post("m2", "and back"))
            await until(lambda: peer.replica.durable == peer.replica.version)
        assert await texts(first) == ["of the first", "and back"]


async def test_a_client_of_a_deleted_session_is_told_by_its_successor(services):
    async with services() as registry:
        document = await kept(registry)
        await registry.delete(ROOM)
        await registry.create(ROOM)
        async with returning(registry, document) as peer:
            await until(lambda: peer.serving.done())
        assert peer.closing.code == 4409
        assert await texts(registry) == []


@guarded_or_not
async def test_a_reader_of_another_session_is_told_the_same(services):
    async with services() as first, services() as second:
        document = await kept(first)
        await kept(second, "of the second")
        async with returning(second, document, access=Access(rights=READ_ONLY)) as peer:
            await until(lambda: peer.serving.done())
        assert peer.closing.code == 4409


async def test_who_says_its_lineage_is_told_before_anything_else_and_makes_no_session(services):
    store = MemoryStore()
    async with services(store) as registry:
        async with Peer(registry, lineage="another") as peer:
            await until(lambda: peer.serving.done())
        assert peer.closing.code == 4409
        assert await store.get(ROOM) is None
        record = await registry.create(ROOM)
        async with Peer(registry, lineage="another") as peer:
            await until(lambda: peer.serving.done())
        assert peer.closing.code == 4409
        async with Peer(registry, generation=1, lineage=record.lineage) as peer:
            await until(lambda: peer.replica.synced)
        assert peer.replica.view.meta.lineage == record.lineage


async def test_what_was_written_offline_before_anything_was_ever_received_is_welcome(services):
    async with services() as registry:
        await kept(registry)
        offline = SessionDoc(77)
        offline.edit(lambda _: post("mine", "written offline", 2)(SessionView(offline)))
        async with returning(registry, offline.encode()) as peer:
            await until(lambda: peer.replica.synced and len(peer.replica.view.messages) == 2)
        assert sorted(await texts(registry)) == ["of the first", "written offline"]


@guarded_or_not
async def test_an_update_of_a_foreign_lineage_is_refused_unless_it_is_an_import(services):
    async with services() as first, services() as second:
        document = await kept(first)
        record = await second.create(ROOM)
        async with second.open(ROOM) as session:
            with pytest.raises(WrongLineage):
                await session.contains(document)
            with pytest.raises(WrongLineage) as refused:
                await session.apply(document)
            assert (refused.value.theirs, refused.value.ours) == (lineage_in(document), record.lineage)
            assert len(session.view.messages) == 0
            await session.apply(document, foreign=True)
            assert [message.text for message in session.view.messages.ordered()] == ["of the first"]
            assert session.view.meta.lineage == record.lineage
        async with returning(second, document) as peer:  # its beginning is a part of this session now
            await until(lambda: peer.replica.synced)
        assert peer.closing.code == 1000


async def test_each_creation_has_a_lineage_of_its_own(services):
    fork, again = session_id("fork"), session_id("again")
    async with services() as registry:
        document = await kept(registry)
        records = [await registry.store.get(ROOM), await Versions(registry, ROOM).fork(fork)]
        records.append(await take_over(registry, again, await archive(registry, ROOM)))
        records.append(await registry.create(session_id("made"), content=document))
        await registry.delete(ROOM)
        records.append(await registry.create(ROOM))
        assert len({record.lineage for record in records}) == 5
        for record in records[1:]:
            async with registry.open(record.id) as session:
                assert session.view.meta.lineage == record.lineage
                rows = [message.text for message in session.view.messages.ordered()]
                assert rows == ([] if record.id == ROOM else ["of the first"])


@guarded_or_not
async def test_a_version_from_before_a_move_can_be_brought_back(services):
    """What it brings back is another session's beginning, too; the server means it."""
    again = session_id("again")
    async with services() as registry:
        await kept(registry)
        record = await take_over(registry, again, await archive(registry, ROOM))
        earlier = (await registry.store.history(again)).last
        async with registry.open(again) as session:
            await session.edit(post("m2", "later", 2))
        await Versions(registry, again).restore(Seq(earlier))
        assert await texts(registry, again) == ["of the first"]
        async with registry.open(again) as session:
            assert session.view.meta.lineage == record.lineage


def old_seed(created_at, client):
    """Return what a session began with before there were lineages."""
    doc = Doc(client_id=client)
    meta = doc.get("meta", type=Map)
    with doc.transaction():
        for key, value in (
            ("layout", 1),
            ("sessionId", "room"),
            ("generation", 1),
            ("createdAt", created_at),
            ("status", "active"),
        ):
            meta[key] = value
    return doc.get_update()


async def test_sessions_of_before_are_named_by_their_number_and_time(services):
    old, other = old_seed(1_000, 8), old_seed(2_000, 9)
    store = MemoryStore()
    await store.create(ROOM, old, generation=1, title=None, now=Millis(1_000))
    async with services(store) as registry:
        async with returning(registry, old) as peer:
            await until(lambda: peer.replica.synced and peer.replica.view.meta.lineage is not None)
            assert peer.replica.view.meta.lineage == "1-1000"
        assert peer.closing.code == 1000
        async with returning(registry, other) as peer:
            await until(lambda: peer.serving.done())
        assert peer.closing.code == 4409


async def next_batch(session, cursor, **options):
    feed = follow(session, cursor, **options)
    try:
        async with asyncio.timeout(5):
            return await anext(feed)
    finally:
        await feed.aclose()


def read(batch):
    return [event.data["parts"][0]["text"] for event in batch if event.kind == "message"]


async def test_a_cursor_of_another_session_of_that_name_is_answered_with_a_reset_and_everything(services):
    async with services() as first, services() as second:
        for registry, text in ((first, "of the first"), (second, "of the second")):
            await kept(registry, text)
        async with first.open(ROOM) as session:
            batch = await next_batch(session, None)
        assert (batch[0].kind, read(batch)) == ("presence", ["of the first"])
        async with second.open(ROOM) as session:
            for number in range(3):
                await session.edit(post(f"n{number}", f"{number}", 2 + number))
            for kinds in (None, ["message"]):
                told = await next_batch(session, batch[-1].cursor, kinds=kinds)
                assert (told[0].kind, told[0].data) == ("reset", {"lineage": session.record.lineage})
                assert read(told) == ["of the second", "0", "1", "2"]
                told = await next_batch(session, told[0].cursor, kinds=kinds)  # it was cut off behind the reset
                assert (told[0].kind == "reset", read(told)) == (False, ["of the second", "0", "1", "2"])


async def test_a_cursor_from_after_a_backup_that_was_restored_is_answered_with_everything(services):
    store = MemoryStore()
    async with services(store) as registry:
        await kept(registry)
    backup = copy.deepcopy(store)
    async with services(store) as registry, registry.open(ROOM) as session:
        for number in range(5):
            await session.edit(post(f"lost{number}", "lost", 2 + number))
        cursor = (await next_batch(session, None))[-1].cursor
    async with services(backup) as registry, registry.open(ROOM) as session:
        for number in range(9):
            await session.edit(post(f"new{number}", "new", 2 + number))
        batch = await next_batch(session, cursor)
        assert batch[0].kind == "reset"
        assert read(batch) == ["of the first", *["new"] * 9]


async def test_a_cursor_outlives_a_restart(services):
    store = MemoryStore()
    async with services(store) as registry:
        await kept(registry)
        async with registry.open(ROOM) as session:
            cursor = (await next_batch(session, None, kinds=["message"]))[-1].cursor
    async with services(store) as registry, registry.open(ROOM) as session:
        waiting = asyncio.create_task(next_batch(session, cursor, kinds=["message"]))
        await settle()
        assert not waiting.done()
        await session.edit(post("m2", "new", 2))
        assert read(await waiting) == ["new"]


def test_the_lineage_in_an_update_is_that_of_a_beginning_that_is_new():
    ours = seed(ROOM, generation=1, created_at=Millis(1), client_id=3, lineage="ours")
    document = SessionDoc(4)
    document.apply(ours)
    assert lineage_in(ours) == "ours"
    assert lineage_in(ours, document.state_vector()) is None
    _, delta = document.edit(lambda doc: doc.roots.meta.__setitem__("title", "meta"))
    assert lineage_in(delta) is None
    _, delta = document.edit(lambda doc: doc.roots.state.__setitem__("lineage", "theirs"))
    assert lineage_in(delta) is None
    theirs = Doc(client_id=9)
    theirs.get("meta", type=Map)["lineage"] = "theirs"
    assert lineage_in(theirs.get_update(), document.state_vector()) == "theirs"
    document.close()

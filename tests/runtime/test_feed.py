"""A reader with a cursor that is cut off anywhere ends up with what the session holds."""

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import ShuttingDown
from crdt_sessions.model import Author, MessageBegan, MessageHead, TextPart
from crdt_sessions.runtime import Projector, SessionRegistry, follow, page
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock, settle
from tests.held_store import Held, stored_text

from .conftest import ROOM, until


class Reader:
    """What a client that knows no Yjs keeps: whole messages, appended to by offset."""

    def __init__(self):
        self.cursor, self.messages, self.title = None, {}, None

    async def read(self, session, at_most):
        """Take up to *at_most* events, or, with -1, all that there are."""
        feed = follow(session, self.cursor)
        left = at_most

        async def batch():
            return await anext(feed)

        while True:
            coming = asyncio.create_task(batch())
            await settle()
            if not coming.done():
                break
            for event in coming.result():
                if left == 0:
                    break
                left -= 1
                self.take(event)
            if left == 0:
                break
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await feed.aclose()

    def take(self, event):
        self.cursor = event.cursor
        if event.kind == "message":
            self.messages[event.data["id"]] = event.data
        elif event.kind == "message-removed":
            self.messages.pop(event.data["id"], None)
        elif event.kind == "session":
            self.title = event.data.get("title")
        elif event.kind == "part":
            at = event.data["part"]
            self.messages[event.data["messageId"]]["parts"][at : at + 1] = [event.data["value"]]
        elif event.kind == "text":
            part = self.messages[event.data["messageId"]]["parts"][event.data["part"]]
            key = "text" if "text" in part else "inputText"
            part[key] = part[key][: event.data["offset"]] + event.data["text"]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.integers(0, 3)),
        st.tuples(st.just("write"), st.integers(0, 3)),
        st.tuples(st.just("part"), st.integers(0, 3)),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.just("remove"), st.integers(0, 3)),
        st.tuples(st.just("title"), st.integers(0, 3)),
        st.tuples(st.just("read"), st.integers(0, 5)),
    ),
    max_size=25,
)


def act(view, action, n):
    id = f"m{n}"
    if action == "new":
        view.messages.add(MessageHead(id=id, role="assistant", author=Author(id="a"), created_at=n))
    elif action == "title":
        view.set_title(f"title {n}")
    elif id in view.messages:
        message = view.messages[id]
        if action == "part":
            message.close_parts()
            message.open_text("reasoning" if n % 2 else "text").append("é")
        elif action == "write" and (stream := message.resume_text()):
            stream.append("😀x")
        elif action == "end":
            message.close_parts()
        elif action == "remove":
            view.document.roots.messages.pop(id)


@given(ACTIONS)
def test_any_interrupted_reader_catches_up(actions):
    async def scenario():
        async with SessionRegistry(MemoryStore(), clock=FakeClock()) as registry:
            async with registry.open(ROOM, create=True) as session:
                reader = Reader()
                for action, n in actions:
                    if action == "read":
                        await reader.read(session, n)
                    else:
                        await session.edit(lambda view, action=action, n=n: act(view, action, n))
                await reader.read(session, -1)
                expected = {m.id: m.json_value() for m in session.view.messages.ordered()}
                assert reader.messages == expected
                assert reader.title == session.view.meta.title

    asyncio.run(scenario())


@given(ACTIONS, st.lists(st.integers(0, 6), min_size=25, max_size=25))
def test_what_changes_while_a_reader_is_told_is_told_in_the_end(actions, pauses):
    """Each message is a piece of its own, and the session goes on between any two."""

    async def scenario():
        async with SessionRegistry(MemoryStore(), clock=FakeClock()) as registry:
            async with registry.open(ROOM, create=True) as session:
                for n in range(4):
                    await session.edit(lambda view, n=n: act(view, "new", n))
                reader = Reader()

                async def read():
                    async for batch in follow(session):
                        for event in batch:
                            reader.take(event)

                reading = asyncio.create_task(read())
                for (action, n), pause in zip(actions, pauses, strict=False):
                    if action != "read":
                        await session.edit(lambda view, action=action, n=n: act(view, action, n))
                    for _ in range(pause):
                        await asyncio.sleep(0)
                expected = {m.id: m.json_value() for m in session.view.messages.ordered()}
                await until(lambda: (reader.messages, reader.title) == (expected, session.view.meta.title))
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("crdt_sessions.runtime.projector._AT_ONCE", 1)
        monkeypatch.setattr("crdt_sessions.runtime.feed._BATCH", 1)
        asyncio.run(scenario())


async def test_a_reader_of_a_long_history_stops_nobody(registry):
    async with registry.open(ROOM, create=True) as session:
        await session.edit(lambda view: [act_new(view, n) for n in range(200)])
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        feed, told, most = follow(session), [], 0
        while sum(event.kind == "message" for event in told) < 200:
            before = turns
            batch = await anext(feed)
            most = max(most, len(batch) / max(1, turns - before))
            told += batch
        counting.cancel()
        assert most <= 10, "events in a turn of the loop"
        cursors = {event.cursor for event in told[:-1]}
        assert len(cursors) == 1, "who is cut off in the middle begins anew"
        assert told[-1].cursor not in cursors
        assert [event.data["id"] for event in told if event.kind == "message"] == [f"m{n:03}" for n in range(200)]
        await feed.aclose()


def act_new(view, n):
    head = MessageHead(id=f"m{n:03}", role="user", author=Author(id="a"), created_at=n)
    view.messages.add(head, [TextPart(type="text", text="x")])


@pytest.mark.parametrize("in_turns", [False, True])
async def test_what_came_at_once_is_told_in_its_order_to_who_has_the_rest(registry, in_turns):
    async with registry.open(ROOM, create=True) as session:
        projector = Projector(session)
        projector.take()
        await session.edit(lambda view: [act_new(view, n) for n in range(20)])
        if in_turns:
            events = [event async for batch in projector.take_in_turns() for event in batch]
        else:
            events = projector.take()
        began = [event.message for event in events if isinstance(event, MessageBegan)]
        assert began == [f"m{n:03}" for n in range(20)]


async def test_a_reader_is_let_go_in_the_middle_of_a_history(registry):
    async with registry.open(ROOM, create=True) as session:
        await session.edit(lambda view: [act_new(view, n) for n in range(200)])
        feed = follow(session)
        await anext(feed)
        session._stopping = True
        with pytest.raises(ShuttingDown):
            while True:
                await anext(feed)
        session._stopping = False


async def test_tokens_arrive_as_text_not_as_whole_messages(registry):
    async with registry.open(ROOM, create=True) as session:
        head = MessageHead(id="m", role="assistant", author=Author(id="a"), created_at=1)
        stream = await session.edit(lambda view: view.messages.add(head).open_text())
        feed = follow(session)
        kinds = [event.kind for event in await anext(feed)]
        assert kinds == ["presence", "session", "message"]
        await session.edit(lambda view: stream.append("hé"))
        await session.edit(lambda view: stream.append("llo"))
        (event,) = await anext(feed)
        assert event.data == {"messageId": "m", "part": 0, "offset": 0, "text": "héllo"}
        await session.edit(lambda view: stream.append("!"))
        (event,) = await anext(feed)
        assert event.data == {"messageId": "m", "part": 0, "offset": 5, "text": "!"}
        await session.edit(lambda view: stream.close())
        (event,) = await anext(feed)
        closed = {"type": "text", "text": "héllo!", "state": "done"}
        assert (event.kind, event.data) == ("part", {"messageId": "m", "part": 0, "value": closed})


async def test_a_reader_may_want_some_events_only(registry):
    async with registry.open(ROOM, create=True) as session:
        feed = follow(session, kinds=["state", "run"])
        await session.edit(lambda view: view.set_title("t"))
        waiting = asyncio.create_task(anext(feed))
        await settle()
        assert not waiting.done()
        await session.edit(lambda view: view.state.__setitem__("k", [1]))
        (event,) = await waiting
        assert (event.kind, event.data) == ("state", {"k": [1]})


async def test_a_cursor_of_another_generation_or_none_of_ours_begins_anew(registry):
    async with registry.open(ROOM, create=True) as session:
        await session.edit(
            lambda view: view.messages.add(
                MessageHead(id="m", role="user", author=Author(id="a"), created_at=1),
                [TextPart(type="text", text="x")],
            )
        )
        for cursor in ("garbage", "WzcsNSx7fV0", "WyJ4IiwieCIsNSx7fV0", ""):
            batch = await anext(follow(session, cursor))
            told = ["reset"] if cursor else []
            assert [event.kind for event in batch] == [*told, "presence", "session", "message"]


async def test_followers_of_a_deleted_session_are_let_go(registry):
    async def read():
        async with registry.open(ROOM) as session:
            async for _ in follow(session):
                pass

    async with registry.open(ROOM, create=True):
        pass
    reading = asyncio.create_task(read())
    await settle()
    await registry.delete(ROOM)
    with pytest.raises(ShuttingDown):
        await reading
    assert registry.live == []


async def test_a_page_of_a_long_history_has_all_of_it_also_for_those_who_do_not_wait(registry):
    async with registry.open(ROOM, create=True) as session:
        for number in range(100):
            head = MessageHead(id=f"m{number:03}", role="user", author=Author(id="a"), created_at=number)
            await session.edit(lambda view, head=head: view.messages.add(head, [TextPart(type="text", text="x")]))
        events = await page(session, wait_s=0)
        assert len([event for event in events if event.kind == "message"]) == 100
        assert await page(session, events[-1].cursor, kinds=["message"], wait_s=0) == []


async def test_a_reader_who_comes_back_is_told_that_the_state_became_empty(registry):
    async with registry.open(ROOM, create=True) as session:
        await session.edit(lambda view: view.state.update({"a": 1}))
        told = [event for events in [await anext(follow(session))] for event in events]
        assert told[-1].data == {"a": 1}
        await session.edit(lambda view: view.state.pop("a"))
        again = await anext(follow(session, told[-1].cursor))
        assert [(event.kind, event.data) for event in again if event.kind != "presence"] == [("state", {})]


@pytest.mark.parametrize("pages", [False, True])
async def test_nobody_is_told_what_a_crash_may_take_back(clock, pages):
    """Readers wake at a commit, and by then more stands in the document than was committed."""
    store, reader = Held(), Reader()
    head = MessageHead(id="m", role="assistant", author=Author(id="a"), created_at=1)
    async with SessionRegistry(store, clock=clock) as registry, registry.open(ROOM, create=True) as session:
        stream = await session.edit(lambda view: view.messages.add(head).open_text())
        await session.edit(lambda view: stream.append("a"))
        await reader.read(session, -1)
        wanted = {"cursor": reader.cursor, "kinds": ["message", "text", "part"]}
        async with aclosing(follow(session, **wanted)) as feed, store.held():
            reading = asyncio.create_task(page(session, wait_s=60, **wanted) if pages else anext(feed))
            for more in "bc":
                asyncio.create_task(session.edit(lambda view, more=more: stream.append(more)))  # noqa: RUF006
                await settle()
            store.may.release()
            await settle()
            assert (await stored_text(store, ROOM), session.view.messages.value("m").text) == ("ab", "abc")
            assert not reading.done(), "it was told of what is not stored"
            store.may.release()
            for event in await reading:
                reader.take(event)
    assert reader.messages["m"]["parts"][0]["text"] == "abc"

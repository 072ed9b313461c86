"""A reader with a cursor that is cut off anywhere ends up with what the session holds."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import ShuttingDown
from crdt_sessions.model import Author, MessageHead, TextPart
from crdt_sessions.runtime import SessionRegistry, follow
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock, settle

from .conftest import ROOM


class Reader:
    """What a client that knows no Yjs keeps: whole messages, appended to by offset."""

    def __init__(self):
        self.cursor, self.messages, self.title = None, {}, None

    async def read(self, session, at_most):
        feed = follow(session, self.cursor)
        left = at_most
        try:
            while True:
                async with asyncio.timeout(0.01):
                    batch = await anext(feed)
                for event in batch:
                    if left == 0:
                        return
                    left -= 1
                    self._take(event)
        except TimeoutError:
            pass
        finally:
            await feed.aclose()

    def _take(self, event):
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
        for cursor in ("garbage", "WzcsNSx7fV0", ""):
            batch = await anext(follow(session, cursor))
            assert [event.kind for event in batch] == ["presence", "session", "message"]


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

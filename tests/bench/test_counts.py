"""What makes the service fast, as counts that do not depend on the machine: statements, commits, frames, bytes, calls."""

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from pycrdt import Text

from crdt_sessions.ids import SessionId
from crdt_sessions.limits import Limits
from crdt_sessions.model import SessionDoc
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import SqliteStore
from crdt_sessions.storage.sqlite.checkpoints import WriteAheadLog
from crdt_sessions.wire import EMPTY_UPDATE, SyncStep1, SyncStep2, Update, decode, encode
from tests.counting import calls

TOKEN = "token"


class Line:
    """A peer in memory: it is fed messages, and notes what it is sent."""

    writable = True

    def __init__(self):
        self.sent, self._closed = [], asyncio.Event()

    def open(self, on_writable, take, patience_s):
        self.feed = lambda *messages: take(list(messages))

    def write(self, messages):
        self.sent += messages

    async def drained(self):
        return

    async def batches(self):
        await self._closed.wait()
        return
        yield  # an iterator all the same

    async def release(self):
        return

    def close(self):
        self._closed.set()


class Agent(Line):
    """A peer that streams tokens into a text of its own."""

    def __init__(self, client):
        super().__init__()
        self.document = SessionDoc(client)
        self.text = self.document.doc.get(f"stream-{client}", type=Text)

    def tokens(self, count):
        return [encode(Update(self.document.edit(lambda _: self.text.__iadd__(TOKEN))[1])) for _ in range(count)]


@pytest.fixture
async def service(tmp_path):
    """A registry on a file, and the statements that reach it."""
    statements = []
    async with SqliteStore(tmp_path / "s.db") as store:
        await store._database._write.set_trace_callback(statements.append)
        async with SessionRegistry(store, limits=Limits(messages_per_s=10**9, message_burst=10**9)) as registry:
            yield registry, statements


async def joined(stack, registry, session, line):
    serving = asyncio.create_task(registry.serve(SessionId(session), line))
    while not hasattr(line, "feed"):
        await asyncio.sleep(0)
    line.feed(encode(SyncStep1(b"\x00")))
    while not any(message[:2] == b"\x00\x01" for message in line.sent):
        await asyncio.sleep(0.001)
    line.sent.clear()

    async def leave():
        line.close()
        await serving

    stack.push_async_callback(leave)
    return line


@asynccontextmanager
async def streaming(registry):
    """An agent whose first token, the one that names the text, is stored, and its session."""
    async with AsyncExitStack() as stack:
        agent = await joined(stack, registry, "room", Agent(7))
        agent.feed(*agent.tokens(1))
        async with registry.open(SessionId("room")) as session:
            await session.durable()
            yield agent, session


async def caught_up(line, text, count):
    """Return the updates a viewer was sent, once it has *count* tokens."""
    reader = SessionDoc(1)
    taken = 0
    while len(str(reader.doc.get(text, type=Text))) < count * len(TOKEN):
        for message in line.sent[taken:]:
            for frame in decode(message):
                if isinstance(frame, Update):
                    reader.apply(frame.update)
        taken = len(line.sent)
        await asyncio.sleep(0.001)
    return [message for message in line.sent if message[:2] == b"\x00\x02"]


async def test_tokens_that_piled_up_are_one_row_one_commit_and_one_frame(service):
    registry, statements = service
    async with AsyncExitStack() as stack:
        agent = await joined(stack, registry, "room", Agent(7))
        viewers = [await joined(stack, registry, "room", Line()) for _ in range(10)]
        agent.feed(*agent.tokens(1))  # the one that names the text
        await caught_up(viewers[0], "stream-7", 1)
        for viewer in viewers:
            viewer.sent.clear()
        await registry.audit.flush()
        statements.clear()
        tokens = agent.tokens(1000)
        reader_has = agent.document.encode()
        agent.feed(*tokens)
        async with registry.open(SessionId("room")) as session:
            await session.durable()
        for viewer in viewers:
            while not viewer.sent:
                await asyncio.sleep(0.001)
            assert len(viewer.sent) == 1
            assert len(viewer.sent[0]) <= 1000 * len(TOKEN) + 60
        assert len(reader_has) > 5000
        assert [statement.split(" (")[0] for statement in statements] == ["INSERT INTO updates"]


async def test_a_token_that_comes_alone_costs_one_statement_and_a_frame_for_each_viewer(service):
    registry, statements = service
    async with AsyncExitStack() as stack:
        agent = await joined(stack, registry, "room", Agent(7))
        viewer = await joined(stack, registry, "room", Line())
        agent.feed(*agent.tokens(1))
        await caught_up(viewer, "stream-7", 1)
        viewer.sent.clear()
        await registry.audit.flush()
        statements.clear()
        begun = time.monotonic()
        async with registry.open(SessionId("room")) as session:
            for token in agent.tokens(100):
                agent.feed(token)
                await session.durable()
                await asyncio.sleep(0)
        seconds = 1 + int(time.monotonic() - begun)
        assert len(statements) <= 100 + (1 + seconds) * 3, "three once a second, to say where the log ends"
        assert len(viewer.sent) <= 100
        assert sum(map(len, viewer.sent)) <= 100 * 40


async def test_what_comes_while_a_commit_waits_to_begin_is_part_of_it(service):
    registry, statements = service
    async with streaming(registry) as (agent, session):
        await registry.audit.flush()
        statements.clear()
        for token in agent.tokens(2):
            agent.feed(token)
            await asyncio.sleep(0)  # the first one is handed over before the second one arrives
        await session.durable()
    assert [statement.split(" (")[0] for statement in statements] == ["INSERT INTO updates"]


async def test_fifty_sessions_at_once_share_a_commit(service):
    registry, statements = service
    async with AsyncExitStack() as stack:
        agents = [await joined(stack, registry, f"room-{n}", Agent(100 + n)) for n in range(50)]
        sessions = [await stack.enter_async_context(registry.open(SessionId(f"room-{n}"))) for n in range(50)]
        await asyncio.gather(*(session.durable() for session in sessions))
        await registry.audit.flush()
        statements.clear()
        for agent in agents:
            agent.feed(*agent.tokens(1))
        await asyncio.gather(*(session.durable() for session in sessions))
        assert sum(statement.startswith("COMMIT") for statement in statements) <= 2
        assert len(statements) <= 2 * 4


async def test_a_token_costs_a_bounded_number_of_calls(service):
    """Calls of Python functions on the way of a token from its bytes to the store's queue: the same on each run."""
    registry, _ = service
    async with streaming(registry) as (agent, session):
        alone, piled = agent.tokens(200), agent.tokens(1000)
        one_by_one = calls(lambda: [agent.feed(token) for token in alone])
        at_once = calls(lambda: agent.feed(*piled))
        await session.durable()
    assert one_by_one / 200 < 52
    assert at_once / 1000 < 0.5


async def test_who_joins_with_nothing_new_costs_a_bounded_number_of_calls(service):
    registry, _ = service
    async with streaming(registry) as (agent, _session), AsyncExitStack() as stack:
        line = await joined(stack, registry, "room", Line())
        theirs, nothing = encode(SyncStep1(agent.document.state_vector())), encode(SyncStep2(EMPTY_UPDATE))
        asking, answering = calls(lambda: line.feed(theirs)), calls(lambda: line.feed(nothing))
    assert asking < 48
    assert answering < 37


async def test_a_token_does_not_look_at_the_write_ahead_log(service, monkeypatch):
    registry, _ = service
    looks = []
    reaches = WriteAheadLog.reaches
    monkeypatch.setattr(WriteAheadLog, "reaches", lambda log, size: looks.append(size) or reaches(log, size))
    async with streaming(registry) as (agent, session):
        looks.clear()
        for token in agent.tokens(100):
            agent.feed(token)
            await session.durable()
    assert len(looks) <= 5


async def test_what_the_loop_is_asked_to_call_does_not_grow_with_the_sessions_in_a_commit(service):
    """Futures and timers included. It was 3.5 for each token: a flush, a future of the store, a write to peers."""
    registry, _ = service
    loop = asyncio.get_running_loop()
    asked = []
    async with AsyncExitStack() as stack:
        agents = [await joined(stack, registry, f"room-{n}", Agent(100 + n)) for n in range(8)]
        sessions = [await stack.enter_async_context(registry.open(SessionId(f"room-{n}"))) for n in range(8)]
        for agent in agents:
            agent.feed(*agent.tokens(1))
        await asyncio.gather(*(session.durable() for session in sessions))
        await registry.audit.flush()
        tokens = [agent.tokens(1) for agent in agents]
        call_soon = loop.call_soon
        loop.call_soon = lambda call, *arguments, **how: asked.append(call) or call_soon(call, *arguments, **how)
        try:
            for agent, some in zip(agents, tokens, strict=True):
                agent.feed(*some)
            while any(session.engine.log.tail < session.engine.log.head for session in sessions):
                await asyncio.sleep(0.01)
        finally:
            del loop.call_soon
    mine = asyncio.current_task()  # it looks all the more often, the slower the disk is
    others = [call for call in asked if getattr(call, "__self__", None) is not mine]
    assert len(others) <= 8, "one for all flushes, one for all peers; the rest are steps of the writer"

"""What a token costs by Hocuspocus' protocol, as counts that do not depend on the machine."""

import asyncio
from contextlib import AsyncExitStack

from pycrdt import Text

from crdt_sessions.ids import SessionId
from crdt_sessions.limits import Timing
from crdt_sessions.runtime import Access
from crdt_sessions.wire import EMPTY_UPDATE, SyncStep1, SyncStep2, Update, encode
from crdt_sessions.wire.hocuspocus import Hocuspocus, Token, pack
from crdt_sessions.wire.varint import string
from crdt_sessions_server.serving.hocuspocus.multiplexer import Multiplexer
from tests.bench.test_counts import TOKEN, Agent, service
from tests.counting import calls

__all__ = ["service"]  # the fixture of the other counts

STORED = b"\x08\x01"


class Provider(Agent):
    """An agent, or somebody who reads, with one document."""

    def __init__(self, client, address):
        super().__init__(client)
        self.address, self.writes, self._idle = address, [], asyncio.Event()

    def write(self, messages):
        self.writes.append([message.removeprefix(string(self.address)) for message in messages])

    @property
    def heard(self):
        return [body for messages in self.writes for body in messages]

    def say(self, *bodies):
        """Return the messages that the socket does not take at once."""
        return self.take([string(self.address) + body for body in bodies])

    def open(self, on_writable, take, patience_s):
        self.take = take

    async def batches(self):
        yield [
            pack(self.address, Token("", "4.8.0")),
            *(string(self.address) + encode(frame) for frame in (SyncStep1(b"\x00"), SyncStep2(EMPTY_UPDATE))),
        ]
        await self._closed.wait()


class Doorkeeper:
    """Lets everybody in to every document."""

    def __init__(self, registry):
        self._registry = registry

    async def attend(self, line, token):
        access, session = Access(), SessionId(line.address)
        line.admit(session, access, None)
        return await self._registry.serve(session, line, access=access, codec=Hocuspocus(2**20, line.address))

    def trust(self):
        return


async def joined(stack, registry, address, client):
    provider = Provider(client, address)
    socket = Multiplexer(
        provider, Doorkeeper(registry), limits=registry.limits, timing=Timing(), clock=registry.clock
    )
    serving = asyncio.create_task(socket.serve())
    while STORED not in provider.heard:
        await asyncio.sleep(0.001)

    async def leave():
        provider.close()
        await serving

    stack.push_async_callback(leave)
    return provider


async def streaming(stack, registry, address="room"):
    """Return an agent whose first token, the one that names the text, is stored, who hears of nothing else now."""
    agent = await joined(stack, registry, address, 7)
    session = await stack.enter_async_context(registry.open(SessionId(address)))
    agent.say(*agent.tokens(1))
    await told(agent, session)
    agent.writes.clear()
    return agent, session


async def told(provider, session):
    await session.durable()
    while not (provider.writes and provider.writes[-1][-1] == STORED):
        await asyncio.sleep(0.001)


async def test_a_token_costs_a_bounded_number_of_calls(service):
    """From the bytes of the client's message to the store's queue. No task is woken: the socket has it taken at once."""
    registry, _ = service
    async with AsyncExitStack() as stack:
        agent, session = await streaming(stack, registry)
        alone, piled = agent.tokens(200), agent.tokens(1000)
        left = []
        one_by_one = calls(lambda: left.extend(agent.say(token)[:1] for token in alone))
        at_once = calls(lambda: left.append(agent.say(*piled)))
        assert not any(left)
        await told(agent, session)
    assert one_by_one / 200 < 71
    assert at_once / 1000 < 5


async def test_tokens_that_piled_up_are_one_row_one_frame_and_as_many_answers_in_one_write(service):
    registry, statements = service
    async with AsyncExitStack() as stack:
        agent, session = await streaming(stack, registry)
        viewer = await joined(stack, registry, "room", 8)
        await registry.audit.flush()
        statements.clear(), viewer.writes.clear()
        agent.say(*agent.tokens(1000))
        await told(agent, session)
        assert [statement.split(" (")[0] for statement in statements] == ["INSERT INTO updates"]
        assert agent.writes == [[STORED] * 1000]
        assert [body[:2] for body in viewer.heard] == [encode(Update(b""))[:2]]
        assert len(str(session.engine.document.doc.get("stream-7", type=Text))) == 1001 * len(TOKEN)


async def test_viewers_of_one_address_are_sent_the_very_same_message(service):
    """So it is put into a frame once."""
    registry, _ = service
    sent = []
    async with AsyncExitStack() as stack:
        agent, session = await streaming(stack, registry)
        viewers = [await joined(stack, registry, "room", client) for client in (8, 9)]
        for viewer in viewers:
            viewer.write = sent.extend
        agent.say(*agent.tokens(1))
        await told(agent, session)
        one, other = sent
    assert one is other


async def test_what_the_loop_is_asked_to_call_does_not_grow_with_the_sessions_in_a_commit(service):
    registry, _ = service
    loop, calls = asyncio.get_running_loop(), []
    async with AsyncExitStack() as stack:
        streams = [await streaming(stack, registry, f"room-{n}") for n in range(8)]
        await registry.audit.flush()
        tokens = [agent.tokens(1) for agent, _ in streams]
        call_soon = loop.call_soon
        loop.call_soon = lambda call, *arguments, **how: calls.append(call) or call_soon(call, *arguments, **how)
        try:
            for (agent, _), some in zip(streams, tokens, strict=True):
                agent.say(*some)
            while not all(agent.writes for agent, _ in streams):
                await asyncio.sleep(0.01)
        finally:
            del loop.call_soon
    mine = asyncio.current_task()  # it looks all the more often, the slower the disk is
    others = [call for call in calls if getattr(call, "__self__", None) is not mine]
    assert len(others) <= 8, "as by y-websocket's protocol; it was two more for each token"

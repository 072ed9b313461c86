"""WebSockets on sockets of our own: every cut, every kind of frame, and how they end."""

import asyncio
import contextlib
import gc
import socket
import struct
import weakref

import pytest
from hypercorn.config import Config
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as Library
from websockets.protocol import Side, State

from crdt_sessions.errors import TooMany
from crdt_sessions.ids import session_id
from crdt_sessions.runtime import Access, SessionRegistry
from crdt_sessions.storage import MemoryStore
from crdt_sessions.sync import READ_ONLY
from crdt_sessions.testing import settle
from crdt_sessions.wire import EMPTY_UPDATE, Ack, SyncStep1, SyncStep2, Update, decode, encode
from crdt_sessions.wire.hocuspocus import Hocuspocus
from crdt_sessions.wire.varint import MAX_VARUINT, decode_state_vector, encode_state_vector, string, varuint
from crdt_sessions.wire.y_sweet import YSweet
from crdt_sessions_server.serving.framing import Deframer, header
from crdt_sessions_server.serving.listener import Endpoint
from crdt_sessions_server.serving.web_server import WebServer
from crdt_sessions_server.serving.websocket import SocketConnection
from tests.processes import PATIENCE
from tests.sync.test_engine import letters

MAX = 1_000_000


def client():
    return Library(Side.CLIENT, state=State.OPEN)


def said(protocol):
    return b"".join(protocol.data_to_send())


def deframed(deframer, data, cuts=()):
    messages = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        messages += deframer.take(data[start:end])
    return messages


payloads = st.binary(max_size=300) | st.sampled_from([b"", b"x" * 125, b"y" * 126, b"z" * 65_535, b"w" * 65_536])


@given(st.lists(payloads, max_size=8), st.data())
def test_what_a_client_sends_comes_out_however_it_is_cut(sent, data):
    protocol, messages = client(), []
    for payload in sent:
        kind = data.draw(st.sampled_from(["whole", "pieces", "ping"]))
        if kind == "whole":
            protocol.send_binary(payload)
        elif kind == "ping":
            protocol.send_ping(payload[:100])
        else:
            at = data.draw(st.integers(0, len(payload)))
            protocol.send_frame(Frame(Opcode.BINARY, payload[:at], fin=False))
            protocol.send_ping(b"between")
            protocol.send_frame(Frame(Opcode.CONT, payload[at:]))
        if kind != "ping":
            messages.append(payload)
    stream = said(protocol)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    deframer = Deframer(MAX)
    assert deframed(deframer, stream, cuts) == messages
    assert deframer.closed is None


def test_a_ping_is_answered_and_a_text_is_an_empty_message():
    protocol, deframer = client(), Deframer(MAX)
    protocol.send_ping(b"are you there")
    protocol.send_text(b"hello")
    assert deframer.take(said(protocol)) == [b""]
    protocol.receive_data(deframer.pong())
    (pong,) = protocol.events_received()
    assert (pong.opcode, pong.data) == (Opcode.PONG, b"are you there")
    assert deframer.pong() == b"", "once"


def test_of_many_pings_the_last_one_is_answered():
    protocol, deframer = client(), Deframer(MAX)
    for each in (b"a", b"b", b"last"):
        protocol.send_ping(each)
    protocol.send_pong(b"unasked")
    assert deframer.take(said(protocol)) == []
    assert deframer.pong() == b"\x8a\x04last"
    assert deframer.others == 4


def test_pieces_of_nothing_take_no_memory_and_pieces_are_bounded_together():
    deframer = Deframer(10)
    assert deframer.take(b"\x02\x80\0\0\0\0" + 1000 * b"\x00\x80\0\0\0\0") == []
    assert (deframer.others, deframer._pieces) == (1001, b"")
    assert deframer.take(b"\x00\x8a\0\0\0\0" + 10 * b"x") == []
    assert deframer.take(b"\x00\x81\0\0\0\0x") == []
    assert deframer.closed == 1009


def test_where_text_is_spoken_a_binary_message_is_an_empty_one():
    protocol, deframer = client(), Deframer(MAX, text=True)
    protocol.send_text(b"hello")
    protocol.send_binary(b"\0")
    protocol.send_frame(Frame(Opcode.TEXT, b"in pi", fin=False))
    protocol.send_frame(Frame(Opcode.CONT, b"eces"))
    assert deframer.take(said(protocol)) == [b"hello", b"", b"in pieces"]
    protocol.receive_data(header(b"hello", 0x81) + b"hello")
    (frame,) = protocol.events_received()
    assert (frame.opcode, bytes(frame.data)) == (Opcode.TEXT, b"hello")


def test_either_side_may_close_first():
    protocol, deframer = client(), Deframer(MAX)
    protocol.send_binary(b"last")
    protocol.send_close(1001, "going away")
    assert deframer.take(said(protocol) + b"rest") == [b"last"]
    assert (deframer.closed, deframer.over) == (1001, True)
    protocol.receive_data(deframer.answers)
    assert protocol.close_rcvd.code == 1001

    protocol, deframer = client(), Deframer(MAX)
    protocol.receive_data(deframer.close(4404, "deleted"))
    assert (protocol.close_rcvd.code, protocol.close_rcvd.reason) == (4404, "deleted")
    assert deframer.closed is None
    deframer.take(said(protocol))
    assert (deframer.closed, deframer.over) == (4404, True)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x01x", 1002),  # not masked
        (b"\xc2\x81\0\0\0\0x", 1002),  # a reserved bit: compression that nobody agreed upon
        (b"\x83\x81\0\0\0\0x", 1002),  # an opcode that does not exist
        (b"\x80\x81\0\0\0\0x", 1002),  # goes on with nothing
        (b"\x02\x81\0\0\0\0x\x82\x81\0\0\0\0x", 1002),  # begins anew in the middle
        (b"\x09\x81\0\0\0\0x", 1002),  # a ping in pieces
        (b"\x89\xfe\0\x7e\0\0\0\0" + 126 * b"x", 1002),  # a ping that is too long
        (b"\x82\xff" + struct.pack(">Q", MAX + 1) + b"\0\0\0\0", 1009),
        (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
    ],
)
def test_what_rfc_6455_forbids_ends_the_connection(data, code):
    deframer = Deframer(MAX)
    assert deframer.take(b"\x82\x81\0\0\0\0x" + data) == [b"x"]
    assert deframer.closed == code
    protocol = client()
    protocol.receive_data(deframer.answers)
    assert protocol.close_rcvd.code == code
    assert deframer.take(b"\x82\x81\0\0\0\0x") == []


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_of_ours_is_read_by_the_library(size):
    protocol = client()
    protocol.receive_data(header(b"x" * size) + b"x" * size)
    (frame,) = protocol.events_received()
    assert (frame.opcode, bytes(frame.data)) == (Opcode.BINARY, b"x" * size)


class Transport(asyncio.Transport):
    """Notes what is done with it."""

    def __init__(self):
        super().__init__()
        self.sent, self.closing, self.reading = b"", False, True

    def write(self, data):
        self.sent += data

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    abort = close

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


async def test_a_line_stops_reading_while_nobody_takes_and_goes_on_where_it_was():
    transport = Transport()
    line = SocketConnection(transport, MAX)
    line.open(lambda: None, lambda messages: messages, 10)
    for number in range(3):
        line.data_received(b"\x82\x81\0\0\0\0" + bytes([number]))
        assert not transport.reading
    batches = line.batches()
    got = [(await anext(batches))[0][0] for _ in range(3)]
    assert got == [0, 1, 2]
    assert not transport.reading, "the last one is at work"
    waiting = asyncio.create_task(anext(batches))
    await asyncio.sleep(0)
    assert transport.reading
    waiting.cancel()


async def test_what_piles_up_though_nothing_is_to_be_read_is_bounded():
    """As long as the transport does as it is told, there is but one read more."""
    line = SocketConnection(Transport(), MAX)
    line.open(lambda: None, lambda messages: messages, 10)
    frame = b"\x82\xfe\x03\xe8\0\0\0\0" + 1000 * b"x"
    for _ in range(MAX // 1000 + 2):
        line.data_received(frame)
    with pytest.raises(TooMany, match="wait to be read"):
        await anext(line.batches())
    assert not line._waiting


async def test_what_is_taken_at_once_does_not_overtake_what_waits():
    transport, taken = Transport(), []
    line = SocketConnection(transport, MAX)

    def take(messages):
        taken.extend(messages[:1])
        return messages[1:]

    line.open(lambda: None, take, 10)
    batches = line.batches()
    waiting = asyncio.create_task(anext(batches))
    await asyncio.sleep(0)
    line.data_received(b"\x82\x81\0\0\0\0a\x82\x81\0\0\0\0b")
    line.data_received(b"\x82\x81\0\0\0\0c")
    assert taken == [b"a"]
    assert await waiting == [b"b"]
    assert await anext(batches) == [b"c"], "while b is at work, c waits"
    waiting = asyncio.create_task(anext(batches))
    await asyncio.sleep(0)
    line.data_received(b"\x82\x81\0\0\0\0d")
    assert taken == [b"a", b"d"]
    line.connection_lost(None)
    with pytest.raises(ConnectionError):
        await waiting


async def test_nothing_is_written_to_a_socket_that_is_closed():
    transport = Transport()
    line = SocketConnection(transport, MAX)
    line.write([b"a", b"bc"])
    transport.close()
    line.write([b"d"])
    line.data_received(b"\x89\x80\0\0\0\0")  # a ping
    assert transport.sent == b"\x82\x01a\x82\x02bc"


async def test_who_reads_nothing_is_sent_one_pong_when_it_reads_again():
    transport = Transport()
    line = SocketConnection(transport, MAX)
    line.open(lambda: None, lambda messages: messages, 10)
    line.pause_writing()
    for each in b"abc":
        line.data_received(b"\x89\x81\0\0\0\0" + bytes([each]))
    assert transport.sent == b""
    line.resume_writing()
    assert transport.sent == b"\x8a\x01c"


@pytest.mark.parametrize("frame", [b"\x89\x80\0\0\0\0", b"\x8a\x80\0\0\0\0", b"\x00\x80\0\0\0\0"])
async def test_too_many_frames_that_are_no_messages_are_read_more_slowly(frame, monkeypatch):
    loop, now = asyncio.get_running_loop(), [1000.0]
    monkeypatch.setattr(loop, "time", lambda: now[0])
    transport = Transport()
    line = SocketConnection(transport, MAX)
    line.open(lambda: None, lambda messages: messages, 10)
    line.data_received(b"\x82\x81\0\0\0\0x\x02\x80\0\0\0\0")
    batches = line.batches()
    assert await anext(batches) == [b"x"]
    waiting = asyncio.create_task(anext(batches))
    await asyncio.sleep(0)
    for _ in range(19):
        line.data_received(1_000 * frame)
    assert transport.reading
    line.data_received(2_000 * frame)  # the first one was a fragment, too
    assert not transport.reading, "though nothing waits to be handled"
    for seconds, reading in ((0.4, False), (0.2, True)):
        now[0] += seconds
        await settle()
        assert transport.reading is reading
    for _ in range(3):
        line.data_received(1_000 * frame)
        assert not transport.reading, "what came all the same is counted"
    now[0] += 1.4
    await settle()
    assert not transport.reading
    line.connection_lost(None)
    with pytest.raises(ConnectionError):
        await waiting


async def test_a_line_that_was_released_is_in_no_cycle():
    line = SocketConnection(Transport(), MAX)
    line.open(lambda held=line: None, lambda messages, held=line: messages, 10)
    await line.release()
    gone = weakref.ref(line)
    gc.disable()
    try:
        del line
        assert gone() is None
    finally:
        gc.enable()


class Spoken:
    """A client on a socket of ours, of whatever dialect, in one session."""

    def __init__(self, registry, codec, *, prefix=b"", access=None):
        self.transport, self.prefix = Transport(), prefix
        self.line = SocketConnection(self.transport, MAX)
        self.protocol = client()
        self.serving = asyncio.create_task(
            registry.serve(session_id("room"), self.line, access=access or Access(), codec=codec)
        )

    async def say(self, *frames):
        """Say frames, each in a message; return what the service then says."""
        await settle()
        for frame in frames:
            self.protocol.send_binary(encode(frame))
        self.line.data_received(said(self.protocol))
        await settle()
        self.protocol.receive_data(self.transport.sent)
        self.transport.sent = b""
        return [bytes(each.data).removeprefix(self.prefix) for each in self.protocol.events_received()]

    async def leave(self):
        self.line.connection_lost(None)
        return await self.serving


@pytest.fixture
async def registry():
    async with SessionRegistry(MemoryStore()) as registry:
        yield registry


STORED = b"\x08\x01"


async def test_an_offline_edit_that_the_provider_counts_elsewhere_leaves_its_socket_open(registry):
    (edit,) = letters("a", client_id=50)
    writer = Spoken(registry, None)
    (asked,) = [frame for each in await writer.say(SyncStep1(b"\0")) for frame in decode(each)][:1]
    peer = Spoken(registry, Hocuspocus(MAX, "room"), prefix=string("room"))
    await peer.say(SyncStep1(encode_state_vector(decode_state_vector(asked.state_vector) | {50: 1})))
    assert await peer.say(Update(edit)) == [], "it comes again behind the SyncStep1, and is counted there"
    async with registry.open(session_id("room")) as session:
        await session.durable()
    assert await peer.say() == []
    assert not peer.serving.done()
    assert STORED in await peer.say(SyncStep2(edit))
    await peer.leave()
    await writer.leave()


async def test_a_provider_that_answers_what_it_was_asked_unasked_stays_connected(registry):
    peer = Spoken(registry, Hocuspocus(MAX, "room"), prefix=string("room"))
    await peer.say(SyncStep1(b"\0"), SyncStep2(EMPTY_UPDATE))
    gone = Spoken(registry, None)
    await gone.say(SyncStep1(b"\0"), SyncStep2(EMPTY_UPDATE), Update(letters("ab")[1]))
    await gone.leave()
    assert [type(frame) for each in await peer.say() for frame in decode(each)] == [SyncStep1], "who has the rest?"
    assert await peer.say(SyncStep2(EMPTY_UPDATE)) == []
    assert not peer.serving.done()
    await peer.leave()


async def test_a_count_for_which_y_sweet_has_no_answer_leaves_its_socket_open(registry):
    writer = Spoken(registry, None)
    await writer.say()
    peer = Spoken(registry, YSweet(MAX), access=Access(rights=READ_ONLY))
    await peer.say(SyncStep1(b"\0"), SyncStep2(letters("a")[0]))
    assert await peer.say(Ack(b"\1")) == []
    assert not peer.serving.done()
    await peer.leave()
    await writer.leave()


async def test_what_is_inserted_at_the_end_of_clocks_is_refused_with_a_code(registry):
    peer = Spoken(registry, None)
    await peer.say(SyncStep1(b"\0"), SyncStep2(EMPTY_UPDATE))
    last = Update(b"\x01\x01\x05" + varuint(MAX_VARUINT) + b"\x04\x01\x01t\x01x\0")
    await peer.say(last, last)
    assert (await asyncio.wait_for(peer.serving, PATIENCE)).code == 4400


@contextlib.asynccontextmanager
async def echoing(lines):
    """A server that sends back what it hears on WebSockets."""

    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        raise NotImplementedError

    async def echo(line):
        line.open(lambda: None, lambda messages: messages, 10)
        with contextlib.suppress(ConnectionError):
            async for batch in line.batches():
                line.write(batch)
                if batch[-1] == b"bye":
                    break
        await line.close(4404, "bye", 1)

    def greet(scope, token, line):
        lines.append(line)
        serving.append(asyncio.create_task(echo(line)))

    serving = []
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"ws://127.0.0.1:{listener.getsockname()[1]}/v1/sync/room"
    config = Config()
    config.accesslog = config.errorlog = None
    async with WebServer(app, config, [listener], endpoints=[Endpoint("/v1/sync/", greet)], max_message_bytes=MAX):
        yield url
        await asyncio.wait_for(asyncio.gather(*serving), PATIENCE)


async def test_a_socket_of_our_own_carries_every_kind_of_frame_until_it_is_closed():
    lines = []
    async with echoing(lines) as url:
        async with connect(url, proxy=None, compression=None, max_size=None) as peer:
            for message in (b"", b"hello", b"x" * 300, b"y" * 700_000):
                await peer.send(message)
                assert await peer.recv() == message
            await peer.send([b"pie", b"ces"])
            assert await peer.recv() == b"pieces"
            await asyncio.wait_for(await peer.ping(), PATIENCE)
            await peer.send(b"bye")
            assert await peer.recv() == b"bye"
            with pytest.raises(ConnectionClosed):
                await peer.recv()
            assert (peer.close_code, peer.close_reason) == (4404, "bye")
        async with connect(url, proxy=None, compression=None):
            pass  # closed by the client
        lost = await connect(url, proxy=None, compression=None)
        lost.transport.abort()
    assert [type(each) for each in lines] == [SocketConnection] * 3


async def test_compression_is_not_agreed_upon_whoever_offers_it():
    async with echoing([]) as url, connect(url, proxy=None, compression="deflate") as peer:
        assert peer.protocol.extensions == []
        await peer.send(b"hello")
        assert await peer.recv() == b"hello"

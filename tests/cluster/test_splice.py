"""Two connections as one, however their bytes come in pieces, and however slowly they are read."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import NodeUnreachable
from crdt_sessions.storage.peers import Peer
from crdt_sessions.testing import FakeClock
from crdt_sessions_server.cluster.hop import Hop
from crdt_sessions_server.cluster.peers import Peers
from crdt_sessions_server.cluster.splice import Splice, UndecidedConnection, dial

HIGH = 8


class Wire(asyncio.Transport):
    """A transport to somebody who reads when told to, and whose bytes come when nothing holds them back."""

    def __init__(self):
        super().__init__()
        self.protocol = None
        self.unread, self.read = b"", b""
        self.coming = []
        self.paused = self.full = self.closed = False

    def set_protocol(self, protocol):
        self.protocol = protocol

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def is_closing(self):
        return self.closed

    def write(self, data):
        assert not self.closed
        self.unread += data
        if len(self.unread) > HIGH and not self.full:
            self.full = True
            self.protocol.pause_writing()

    def come(self, data):
        self.coming.append(data)
        self._deliver()

    def _deliver(self):
        while self.coming and not self.paused and not self.closed:
            self.protocol.data_received(self.coming.pop(0))

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False
        self._deliver()

    def reads(self, count=None):
        """Its far end reads."""
        count = len(self.unread) if count is None else count
        self.read, self.unread = self.read + self.unread[:count], self.unread[count:]
        if self.full and not self.unread:
            self.full = False
            self.protocol.resume_writing()

    def close(self):
        self.closed = True

    def abort(self):
        self.closed = True


pieces = st.binary(min_size=1, max_size=2 * HIGH)
steps = st.lists(st.tuples(st.sampled_from(["client", "node", "client reads", "node reads"]), pieces), max_size=40)


@given(st.lists(pieces, max_size=3), st.binary(max_size=3 * HIGH), steps)
def test_each_side_gets_what_the_other_sent_and_no_more_waits_than_is_read(early, behind, told):
    async def play():
        client, node = Wire(), Wire()
        connection = UndecidedConnection(client, 100)
        connection.begin(b"")
        client.read = client.unread = b""
        client.paused = False
        for piece in early:  # a transport may go on for a moment after it was told to stop
            connection.data_received(piece)
        splice = Splice(connection, (node, behind))
        to_node, to_client = b"".join(early), behind
        for what, piece in told:
            if what == "client":
                to_node += piece
                client.come(piece)
            elif what == "node":
                to_client += piece
                node.come(piece)
            else:
                (client if what == "client reads" else node).reads(len(piece))
            for wire, other, first in ((client, node, behind), (node, client, b"".join(early))):
                assert len(wire.unread) <= HIGH + 2 * HIGH + len(first)  # what waits, and one more piece
                assert wire.full <= other.paused
        while client.unread or node.unread or client.coming or node.coming:
            client.reads()
            node.reads()
        assert (client.read, node.read) == (to_client, to_node)
        client.protocol.connection_lost(None)
        assert node.closed
        node.protocol.connection_lost(None)
        await splice.ended()

    asyncio.run(play())


@given(st.lists(pieces, max_size=5))
def test_a_connection_that_is_served_here_has_all_that_came_before(early):
    async def play():
        client = Wire()
        connection = UndecidedConnection(client, 10_000)
        connection.begin(b"")
        frame = bytes((0x82, 0x80 | 5, 0, 0, 0, 0)) + b"hello"
        for at in range(0, len(frame), 4):
            connection.data_received(frame[at : at + 4])
        connection.open(lambda: None, lambda messages: messages, 5.0)
        async for batch in connection.batches():
            assert list(batch) == [b"hello"]
            break

    asyncio.run(play())


async def test_who_may_tell_nobody_anything_drops_the_connection():
    client, may_tell = Wire(), True
    connection = UndecidedConnection(client, 100, may_tell=lambda: may_tell)
    connection.begin(b"")
    connection.open(lambda: None, lambda messages: messages, 5.0)
    connection.write([b"a"])
    sent = client.unread
    may_tell = False
    connection.write([b"b"])
    assert client.closed
    assert client.unread == sent


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 421 No\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 101",
        b"x" * 20_000,
    ],
)
async def test_a_node_that_does_not_switch_protocols_gets_nothing_of_the_client(answer):
    received = []

    async def other(reader, writer):
        received.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if b"\r\n\r\n" not in answer:
            writer.close()
            return
        received.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        scope = {
            "type": "websocket", "path": "/v1/sync/ä b", "query_string": b"token=t",
            "headers": [(b"host", b"sessions.example"), (b"sec-websocket-key", b"x"), (b"x-forwarded-for", b"1.2.3.4")],
        }  # fmt: skip
        with pytest.raises(NodeUnreachable):
            await dial(Peers(list, b"k" * 32, FakeClock()), Peer(7, f"127.0.0.1:{port}"), Hop(7), scope)
        async with asyncio.timeout(10):
            while len(received) < 1 + (b"\r\n\r\n" in answer):
                await asyncio.sleep(0.01)
    head = received[0].decode()
    assert head.startswith("GET /v1/sync/%C3%A4%20b?token=t HTTP/1.1\r\nhost: sessions.example\r\n")
    assert "1.2.3.4" not in head
    assert head.lower().count("sec-websocket-key") == 1
    assert received[1:] in ([], [b""])

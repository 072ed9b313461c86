"""Who serves a connection: requests for a session's WebSocket are answered here, and all others by Hypercorn."""

import asyncio
import base64
import contextlib
import socket
import time

import h11
import httpx
import pytest
from hypercorn.config import Config
from hypercorn.protocol.ws_stream import Handshake
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from crdt_sessions_server.http.unread_bodies import UnreadBodies
from crdt_sessions_server.process import _configuration
from crdt_sessions_server.serving.listener import Endpoint, Listener, answer
from crdt_sessions_server.serving.web_server import WebServer
from crdt_sessions_server.settings import Settings
from tests.processes import PATIENCE

CLIENT = ("127.0.0.1", 50_000)
HEADERS = {
    "Host": "localhost:8000",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
    "Sec-WebSocket-Version": "13",
}


def request(path="/v1/sync/room", start="GET {} HTTP/1.1", also=(), **headers):
    fields = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [start.format(path), *(f"{k}: {v}" for k, v in fields.items() if v is not None), *also]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def answered(data):
    return answer(data, "/v1/sync/", CLIENT)


def test_a_request_is_answered_and_described_as_asgi_does():
    offered = {"Sec_WebSocket_Protocol": "bearer.secret, y", "X_Odd": "a,b"}
    scope, token, response = answered(request("/v1/sync/a%20b?generation=3&x=%C3%A9", **offered))
    assert (scope["path"], scope["query_string"]) == ("/v1/sync/a b", b"generation=3&x=%C3%A9")
    assert (scope["client"], scope["subprotocols"], token) == (CLIENT, ["bearer.secret", "y"], "secret")
    assert (b"host", b"localhost:8000") in scope["headers"]
    assert (b"x-odd", b"a,b") in scope["headers"]
    status, *fields = response.decode().rstrip("\r\n").split("\r\n")
    assert status == "HTTP/1.1 101 Switching Protocols"
    found = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
    assert (found["upgrade"], found["connection"], found["sec-websocket-protocol"]) == ("websocket", "Upgrade", "y")
    assert found["sec-websocket-accept"] == "ICX+Yqv66kxgM0FcWaLWlFLwTAI="
    assert "sec-websocket-extensions" not in found


@pytest.mark.parametrize(
    "data",
    [
        request("/v1/sessions/room"),
        request(start="POST {} HTTP/1.1"),
        request(start="GET {} HTTP/1.0"),
        request(start="GET http://localhost{} HTTP/1.1"),
        request(Host=None),
        request(also=["Host: elsewhere"]),
        request(Upgrade="h2c"),
        request(Connection="keep-alive"),
        request(Sec_WebSocket_Key="short"),
        request(Sec_WebSocket_Version="8"),
        request(Content_Length="5") + b"hello",
        request(Transfer_Encoding="chunked"),
        request()[:-1],
        request() + b"\x82\x80\0\0\0\0",
        request() + request(),
        request(X_Long="x" * 20_000),
        request(X_Odd="caf\u00e9"),
        b"",
    ],
    ids=range(18),
)
def test_all_other_requests_are_hypercorns(data):
    assert answered(data) is None


LINES = [f"{name}: {value}" for name, value in HEADERS.items()]
ODD = st.sampled_from(
    ["Host: x", "Upgrade: WebSocket", "upgrade: h2c", "Connection: close", "Sec-WebSocket-Version: 12", "Sec-WebSocket-Key: x",
     "Sec-WebSocket-Protocol: y, z", "Content-Length: 0", "Transfer-Encoding: chunked", "X: y", " folded", "No colon", "Bad name : x",
     "X: \x00", "X: \x7f", "X:", ":", "Expect: 100-continue"]
)  # fmt: skip


@given(st.permutations(LINES), st.lists(ODD, max_size=3), st.data())
def test_nothing_is_answered_here_that_hypercorn_would_refuse(lines, odd, data):
    lines = list(lines)
    for line in odd:
        lines.insert(data.draw(st.integers(0, len(lines))), line)
    if data.draw(st.booleans()):
        del lines[data.draw(st.integers(0, len(lines) - 1))]
    raw = "".join(f"{line}\r\n" for line in ["GET /v1/sync/room?a=b HTTP/1.1", *lines, ""]).encode()
    ours = answered(raw)
    if ours is None:
        return
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(raw)
    event = theirs.next_event()
    handshake = Handshake(list(event.headers), event.http_version.decode())
    assert handshake.is_valid()
    assert ours.scope["headers"] == list(event.headers)
    assert ours.scope["subprotocols"] == (handshake.subprotocols or [])


def opened(server, *pieces):
    """The answer to a request that comes in pieces, and the first bytes behind it."""
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said = b""
        for piece in pieces:
            peer.sendall(piece)
            peer.settimeout(0.2 if piece is not pieces[-1] else 10)
            try:
                said += peer.recv(1)
            except TimeoutError:
                continue
        while b"\r\n\r\n" not in said or not said.partition(b"\r\n\r\n")[2]:
            said += peer.recv(4096)
        head, _, rest = said.partition(b"\r\n\r\n")
        return head.decode().lower(), rest


def test_plain_requests_do_not_go_through_hypercorn_and_others_do(server):
    whole, odd = (request(Host=f"127.0.0.1:{server.port}", also=also) for also in ((), ["X: y", "X: y"]))
    in_pieces = [whole[:9], whole[9:50], whole[50:-1], whole[-1:]]
    for pieces, hypercorn in (([whole], False), (in_pieces, False), ([odd], True), ([odd[:50], odd[50:]], True)):
        head, rest = opened(server, *pieces)
        assert head.startswith("http/1.1 101")
        assert ("server: hypercorn" in head) == hypercorn
        assert (rest[0], rest[2:4]) == (0x82, b"\x00\x00"), "and the session greets"


async def test_http_and_clients_that_are_silent_at_first_are_served(server):
    async with httpx.AsyncClient(base_url=server.url) as http:
        assert [(await http.get("/healthz")).status_code for _ in range(2)] == [200, 200]
    with socket.create_connection(("127.0.0.1", server.port)) as late:
        await asyncio.sleep(1.2)
        late.sendall(request(Host=f"127.0.0.1:{server.port}"))
        late.settimeout(10)
        assert (await asyncio.to_thread(late.recv, 4096)).startswith(b"HTTP/1.1 101")
    async with connect(f"{server.ws}/room", subprotocols=["y-sync", "bearer.x"]) as peer:
        assert peer.subprotocol == "y-sync"


def test_an_answer_before_the_body_announces_the_end_of_the_connection(server):
    head = f"POST /v1/nowhere HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 2\r\n\r\n".encode()
    for pieces, ends in (([head + b"{}"], False), ([head], True)):
        with socket.create_connection(("127.0.0.1", server.port)) as peer:
            peer.settimeout(10)
            for piece in pieces:
                peer.sendall(piece)
            answered = peer.recv(65_536).lower()
            assert answered.startswith(b"http/1.1 404")
            assert (b"\r\nconnection: close\r\n" in answered) == ends


MEBIBYTE = 1024 * 1024
CHUNK = b"10000\r\n" + bytes(0x10000) + b"\r\n"


@pytest.mark.parametrize(
    ("status", "path", "header", "pieces"),
    [
        (404, "/v1/nowhere", f"Content-Length: {8 * MEBIBYTE}", [bytes(MEBIBYTE)] * 8),
        (404, "/v1/nowhere", "Transfer-Encoding: chunked", [CHUNK] * 128 + [b"0\r\n\r\n"]),
        (413, "/v1/streams/any", f"Content-Length: {20 * MEBIBYTE}", [bytes(MEBIBYTE)] * 20),
    ],
)
def test_an_answer_before_the_body_reaches_a_client_that_sends_all_of_it_first(server, status, path, header, pieces):
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.settimeout(PATIENCE)
        peer.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{header}\r\n\r\n".encode())
        for piece in pieces:
            peer.sendall(piece)
        answered = b""
        while more := peer.recv(65_536):
            answered += more
    assert answered.startswith(b"HTTP/1.1 %d" % status)
    assert b"\r\nconnection: close\r\n" in answered.lower()


async def test_a_client_that_never_stops_sending_is_cut_off_in_the_end():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    async def receive():
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"more", "more_body": True}

    async def send(event):
        sent.append(event)

    scope = {"type": "http", "http_version": "1.1", "headers": [(b"Content-Length", b"1000000000000")]}
    await UnreadBodies(app, linger_s=0.05)(scope, receive, send)
    assert [(each.get("body"), each.get("more_body", False)) for each in sent[1:]] == [(b"no", True), (b"", False)]


def test_a_connection_that_rests_is_ended_by_its_client_not_by_us():
    assert _configuration(Settings()).keep_alive_timeout > 120


# -- the listener and the server behind it -----------------------------------------------------------------------------


class Transport(asyncio.Transport):
    """Notes what is done with it."""

    def __init__(self, **extra):
        super().__init__(extra={"socket": self, **extra})
        self.sent, self.aborted, self.protocol = b"", False, None

    family = socket.AF_INET

    def getpeername(self):
        return CLIENT

    def set_protocol(self, protocol):
        self.protocol = protocol

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def write(self, data):
        self.sent += data

    def abort(self):
        self.aborted = True

    def is_closing(self):
        return self.aborted


class Behind:
    """The server behind listeners: notes what is handed to it."""

    def __init__(self):
        self.waiting, self.served = set(), []

    def serve(self, transport, first):
        self.served.append(first)


@pytest.fixture
def behind():
    return Behind()


@pytest.fixture
def connected(behind):
    """A listener that greets, its transport, and what it greeted."""

    def accepted(patience_s=60.0, greets=True, **extra):
        greeted = []
        endpoint = Endpoint("/v1/sync/", lambda scope, token, connection: greeted.append((scope["path"], connection)))
        accepting, transport = Listener(behind, [endpoint] if greets else [], 1000, patience_s), Transport(**extra)
        accepting.connection_made(transport)
        return accepting, transport, greeted

    return accepted


@given(st.lists(st.integers(1, len(request()) - 1), max_size=5))
async def test_a_request_is_answered_however_it_is_cut(cuts):
    behind, greeted, transport = Behind(), [], Transport()
    endpoint = Endpoint("/v1/sync/", lambda scope, token, connection: greeted.append(connection))
    accepting = Listener(behind, [endpoint], 1000)
    accepting.connection_made(transport)
    data, cuts = request(), sorted(set(cuts))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        assert not greeted
        accepting.data_received(data[start:end])
    assert transport.sent.startswith(b"HTTP/1.1 101")
    assert (transport.protocol, behind.served, behind.waiting) == (greeted[0], [], set())


async def test_an_endpoint_chooses_among_its_requests_and_may_speak_text(connected, behind):
    greeted, transport = [], Transport()
    endpoints = [
        Endpoint("/v1/sync/", lambda *_: pytest.fail("another endpoint's")),
        Endpoint(
            "/chat", lambda scope, token, line: greeted.append(line), lambda scope: scope["path"] == "/chat", True
        ),
    ]
    for path, served in (("/chat?token=x", 0), ("/chat/x", 1)):
        accepting = Listener(behind, endpoints, 1000)
        accepting.connection_made(transport)
        accepting.data_received(request(path))
        assert len(behind.served) == served
    (line,) = greeted
    transport.sent = b""
    line.write([b"{}"])
    assert transport.sent == b"\x81\x02{}"


@pytest.mark.parametrize("start", [b"\x16\x03\x01", b"get /", b"\r\n", b"GET / HTTP/1.1\r\n" + b"x" * 16_384])
async def test_bytes_that_begin_no_request_are_handed_on_at_once(connected, behind, start):
    accepting, _, greeted = connected()
    accepting.data_received(start)
    assert (behind.served, behind.waiting, greeted) == ([start], set(), [])


@pytest.mark.parametrize(
    ("pieces", "extra", "greets"),
    [
        ([request(also=["X: y", "X: y"])], {}, True),
        ([b"GET /v1/sync/", b"room HTTP/1.1\r\nX: ", b"x" * 16_384], {}, True),  # too much: it says so
        ([request()[:20], request()[20:] + b"\x82\x80\0\0\0\0"], {}, True),  # a message before the answer
        ([request()], {}, False),  # the setting direct is off
    ],
    ids=range(4),
)
async def test_connections_are_handed_on_with_all_their_bytes(connected, behind, pieces, extra, greets):
    accepting, transport, greeted = connected(greets=greets, **extra)
    for piece in pieces:
        assert not behind.served
        accepting.data_received(piece)
    assert (behind.served, greeted, transport.sent) == ([b"".join(pieces)], [], b"")


async def test_http2_agreed_upon_with_tls_is_handed_on_before_anything_came(connected, behind):
    class Tls:
        def __init__(self, agreed):
            self.selected_alpn_protocol = lambda: agreed

    connected(ssl_object=Tls("h2"))
    assert (behind.served, behind.waiting) == ([b""], set())
    for agreed in ("http/1.1", None):
        accepting, _, _ = connected(ssl_object=Tls(agreed))
        assert behind.waiting == {accepting}
        accepting.connection_lost(None)
    assert len(behind.served) == 1


@pytest.mark.parametrize("head", [b"GET /v1/sessions HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"])
async def test_another_request_is_handed_on_once_its_head_is_there(connected, behind, head):
    accepting, _, greeted = connected()
    for at in range(len(head)):
        assert behind.served == []
        accepting.data_received(head[at : at + 1])
    assert (behind.served, behind.waiting, greeted) == ([head], set(), [])


@pytest.mark.parametrize("start", [b"GET /v1/sync/ro", b"POST /v1/sessions HTTP/1.1\r\nX-Slow: "])
@pytest.mark.slow
async def test_a_head_that_does_not_come_in_time_ends_the_connection(connected, behind, start):
    silent, slow = connected(patience_s=0.01), connected(patience_s=0.01)
    slow[0].data_received(start)
    async with asyncio.timeout(PATIENCE):
        while behind.waiting:
            await asyncio.sleep(0.005)
    assert silent[1].aborted
    assert slow[1].aborted
    assert behind.served == []


async def test_a_client_that_leaves_before_its_request_is_there_is_forgotten(connected, behind):
    accepting, transport, _ = connected(patience_s=0.01)
    accepting.data_received(b"GET /v1/sync/ro")
    assert accepting.eof_received() is None, "so that the transport closes"
    accepting.connection_lost(None)
    await asyncio.sleep(0.05)
    assert (behind.waiting, behind.served, transport.aborted) == (set(), [], False)


@contextlib.asynccontextmanager
async def served(app, count=1, grace_s=1.0):
    """The addresses of a server that listens on several sockets."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [each.getsockname()[:2] for each in listening]
    config = Config()
    config.accesslog = config.errorlog = None
    config.graceful_timeout = grace_s
    endpoint = Endpoint("/v1/sync/", lambda scope, token, line: line.abort())
    async with WebServer(app, config, listening, endpoints=[endpoint], max_message_bytes=1000):
        yield addresses
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)


async def hello(scope, receive, send):
    """An application that needs no lifespan and greets."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send(
        {
            "type": "http.response.body",
            "body": scope["http_version"].encode() + b"    "[: 5 - len(scope["http_version"])],
        }
    )


async def test_several_sockets_are_listened_on_and_speak_http_1_and_2():
    async with served(hello, count=3) as addresses:
        for host, port in addresses:
            async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
                assert (await http.get(f"http://{host}:{port}/")).text.strip() == "1.1"
            async with httpx.AsyncClient(trust_env=False, http1=False, http2=True, timeout=PATIENCE) as http:
                assert (await http.get(f"http://{host}:{port}/")).text.strip() == "2"


async def test_a_stop_waits_for_answers_and_for_nobody_else():
    """One connection is idle, one has sent half a head, one nothing; and one still gets its answer."""
    asked, answer_now = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/slow":
            asked.set()
            await answer_now.wait()
        await hello(scope, receive, send)

    async with contextlib.AsyncExitStack() as stack:
        ((host, port),) = await stack.enter_async_context(served(app, grace_s=PATIENCE))
        idle, half, silent, slow = [await asyncio.open_connection(host, port) for _ in range(4)]
        idle[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await idle[0].readuntil(b"1.1  ")).startswith(b"HTTP/1.1 200")
        half[1].write(b"GET /v1/sync/")
        slow[1].write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await asked.wait()
        stopping = asyncio.create_task(stack.aclose())
        for each in (idle, half, silent):
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(each[0].read(), PATIENCE) == b""
        assert not stopping.done()
        answer_now.set()
        assert (await asyncio.wait_for(slow[0].read(), PATIENCE)).endswith(b"1.1  ")
        await asyncio.wait_for(stopping, PATIENCE)
        for each in (idle, half, silent, slow):
            each[1].close()


async def test_a_stop_ends_though_clients_neither_read_nor_leave():
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        else:
            await hello(scope, receive, send)

    async with contextlib.AsyncExitStack() as stack:
        ((host, port),) = await stack.enter_async_context(served(app, grace_s=0.1))
        reader, writer = await asyncio.open_connection(host, port, limit=1000)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.read(100)
        begun = time.monotonic()
        await asyncio.wait_for(stack.aclose(), PATIENCE)
        assert time.monotonic() - begun < PATIENCE / 2
        writer.transport.abort()

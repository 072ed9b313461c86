"""Requests for a WebSocket that are answered without Hypercorn, and all the others, which it answers as ever."""

import asyncio
import base64
import socket

import h11
import httpx
import pytest
from hypercorn.protocol.ws_stream import Handshake
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from crdt_sessions_server.serving.listener import answer

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


def test_whole_requests_do_not_go_through_hypercorn_and_others_do(server):
    whole = request(Host=f"127.0.0.1:{server.port}")
    for pieces, hypercorn in (([whole], False), ([whole[:50], whole[50:]], True)):
        head, rest = opened(server, *pieces)
        assert head.startswith("http/1.1 101")
        assert ("server: hypercorn" in head) == hypercorn
        assert (rest[0], rest[2:4]) == (0x82, b"\x00\x00"), "and the session greets"


async def test_silence_first_and_http_are_as_ever(server):
    async with httpx.AsyncClient(base_url=server.url) as http:
        assert [(await http.get("/healthz")).status_code for _ in range(2)] == [200, 200]
    with socket.create_connection(("127.0.0.1", server.port)) as late:
        await asyncio.sleep(1.2)
        late.sendall(request(Host=f"127.0.0.1:{server.port}"))
        late.settimeout(10)
        assert (await asyncio.to_thread(late.recv, 4096)).startswith(b"HTTP/1.1 101")
    async with connect(f"{server.ws}/room", subprotocols=["y-sync", "bearer.x"]) as peer:
        assert peer.subprotocol == "y-sync"


def test_who_is_answered_before_the_body_came_is_told_that_the_connection_ends(server):
    head = f"POST /v1/nowhere HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 2\r\n\r\n".encode()
    for pieces, ends in (([head + b"{}"], False), ([head], True)):
        with socket.create_connection(("127.0.0.1", server.port)) as peer:
            peer.settimeout(10)
            for piece in pieces:
                peer.sendall(piece)
            answered = peer.recv(65_536).lower()
            assert answered.startswith(b"http/1.1 404")
            assert (b"\r\nconnection: close\r\n" in answered) == ends

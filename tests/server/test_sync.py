"""The sync endpoint: bad input closes the peer that sent it with a code, and touches nobody else."""

import asyncio
import socket

import pytest
import websockets

from crdt_sessions import connect
from crdt_sessions.wire import AwarenessFrame, PermissionDenied, SyncStep1, Update, decode, encode
from crdt_sessions.wire.varint import encode_state_vector, string
from tests.processes import PATIENCE, PROBLEM, UPGRADE, Server


async def _closed_with(url, *messages, **options):
    async with websockets.connect(url, **options) as websocket:
        try:
            async with asyncio.timeout(PATIENCE):
                await websocket.send(encode(SyncStep1(b"\x00")))
                for message in messages:
                    await websocket.send(message)
                while True:
                    await websocket.recv()
        except websockets.ConnectionClosed:
            return websocket.close_code, websocket.close_reason


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (b"", 4400, "wanted 1 bytes"),
        ("text", 4400, "wanted 1 bytes"),
        (b"\x63", 4400, "type 99"),
        (b"\x00\x02\x05\x00", 4400, "wanted 5 bytes"),
        (b"\x00\x02" + b"\xff" * 9, 4400, "longer than 8 bytes"),
        (b"\x00\x03\x00", 4400, "type 3"),
        (encode(PermissionDenied("you")), 4400, "type 2"),
        (b"\x68" + string("r") + string("made up"), 4400, "type 104"),
        (encode(Update(b"\xff\xfe\xfd")), 4400, "cannot be decoded"),
        (encode(SyncStep1(b"\xff")), 4400, "wanted 1 bytes"),
        (encode(AwarenessFrame(b"\x01\x01\x01\x03NaN")), 4400, "not JSON"),
        (encode(AwarenessFrame(b"\x01\x01\x01\x02\xc3\x28")), 4400, "UTF-8"),
        (encode(AwarenessFrame(b"\xff\xff\xff\xff\x0f")), 4400, "wanted"),
        (b"\x66\x80\x01" + b"x" * 128, 4413, "limit of 64"),
        (encode(Update(b"\x00" * 70_000)), 4413, "limit of 65536"),
    ],
)
async def test_bad_frames_close_their_peer_only(small, message, code, reason):
    async with connect(small.url, "room") as witness:
        closed = await _closed_with(f"{small.ws}/room", message)
        assert closed[0] == code
        assert reason in closed[1]
        await witness.post("still here")


async def test_a_state_vector_of_very_many_clients_closes_its_peer_only(server, room):
    many = encode(SyncStep1(encode_state_vector(dict.fromkeys(range(100_001), 1))))
    async with connect(server.url, room) as witness:
        code, reason = await _closed_with(f"{server.ws}/{room}", many)
        assert (code, "limit of 100000 clients" in reason) == (4413, True)
        await witness.post("still here")


@pytest.fixture(scope="module", params=["--direct", "--no-direct"])
def small(tmp_path_factory, request):
    limits = ("--max-frame-bytes", "65536", "--max-document-bytes", "200000")
    process = Server(tmp_path_factory.mktemp("small") / "s.db", *limits, request.param)
    yield process
    process.close()


async def test_a_document_may_grow_to_its_limit_and_no_further(small):
    from crdt_sessions.errors import ConnectionClosed

    async with connect(small.url, "full") as witness:
        async with connect(small.url, "full") as writer:
            with pytest.raises(ConnectionClosed) as caught:
                for n in range(10):
                    await writer.post("x" * 40_000, id=f"m{n}")
        assert caught.value.code == 4413
        await witness.until(lambda: len(witness.messages.all()) == 4)
        await witness.post("a little is left")


@pytest.mark.parametrize("room", ["%20a", "a%0Ab", "a/%2E%2E/b", "x" * 201, ""])
async def test_odd_session_names_are_refused(small, room):
    code, reason = await _closed_with(f"{small.ws}/{room}")
    assert (code, "1 to 200 characters" in reason) == (4400, True)


async def test_other_generations_are_refused(small):
    assert (await _closed_with(f"{small.ws}/room?generation=7"))[0] == 4409
    assert (await _closed_with(f"{small.ws}/room?generation=x"))[0] == 4400


async def test_pages_of_other_origins_are_refused_after_the_accept(small):
    assert (await _closed_with(f"{small.ws}/room", origin="https://evil.example"))[0] == 4403
    async with websockets.connect(f"{small.ws}/room", origin=f"http://localhost:{small.port}") as websocket:
        assert isinstance(next(decode(await websocket.recv())), SyncStep1)


async def test_the_storage_failing_is_told_and_mended_without_a_restart(tmp_path):
    """Another process holds the database: no acknowledgement, 4503, a red /readyz; then all goes on."""
    import sqlite3

    server = Server(tmp_path / "s.db")
    try:
        async with connect(server.url, "room") as peer:
            await peer.post("before")
            other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            await peer.post("during", wait=False)
            with server.http() as http:
                answer = await asyncio.to_thread(http.get, "/readyz")
                assert (answer.status_code, answer.json()["type"]) == (503, PROBLEM + "store-unavailable")
                assert answer.headers["retry-after"] == "2"
            assert peer.unacknowledged == 1
            other.execute("ROLLBACK")
            other.close()
            async with asyncio.timeout(PATIENCE):
                await peer.durable()
            with server.http() as http:
                assert (await asyncio.to_thread(http.get, "/readyz")).status_code == 200
    finally:
        server.close()


async def test_tokens_are_asked_for_on_every_road(tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"w": {"principal": "ann", "name": "Ann"}, "r": {"principal": "bob", "canWrite": false}}')
    server = Server(tmp_path / "s.db", "--tokens-file", tokens, "--host", "0.0.0.0")
    url = f"http://127.0.0.1:{server.port}"
    try:
        with server.http() as http:
            http.base_url = url
            for answer in (
                http.get("/v1/sessions"),
                http.get("/v1/sessions", headers={"Authorization": "Bearer no"}),
            ):
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert answer.json()["type"] == PROBLEM + "not-authenticated"
            ann, bob = {"Authorization": "Bearer w"}, {"Authorization": "Bearer r"}
            posted = http.post("/v1/sessions/room/messages", json={"text": "x", "author": {"id": "eve"}}, headers=ann)
            assert posted.json()["author"] == {"id": "ann", "name": "Ann", "kind": "human"}
            assert http.get("/v1/sessions/room/messages", headers=bob).status_code == 200
            for method, path, body in (
                ("POST", "/v1/sessions/room/messages", {"text": "y"}),
                ("POST", "/v1/sessions", {"id": "b"}),
                ("PATCH", "/v1/sessions/room", {"title": "b"}),
                ("DELETE", "/v1/sessions/room", None),
                ("POST", "/v1/sessions/room/import", {}),
            ):
                assert http.request(method, path, json=body, headers=bob).status_code == 403
            assert http.get("/healthz").status_code == 200
        async with connect(url, "room", token="w") as peer:
            assert [m.text for m in peer.messages.all()] == ["x"]
        assert (await _closed_with(f"ws://127.0.0.1:{server.port}/v1/sync/room"))[0] == 4401
        assert "w" not in "".join(server.lines[1:])
    finally:
        server.close()


async def test_an_allowed_origin_may_call_from_a_browser(tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"t": {"principal": "ann"}}')
    server = Server(tmp_path / "s.db", "--tokens-file", tokens, "--allowed-origins", "https://app.example")
    try:
        with server.http() as http:
            asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
            preflight = http.options("/v1/sessions", headers=asked)
            assert preflight.status_code == 204
            assert preflight.headers["access-control-allow-origin"] == "https://app.example"
            assert "Authorization" in preflight.headers["access-control-allow-headers"]
            assert (
                http.options("/v1/sessions", headers={**asked, "Origin": "https://evil.example"}).status_code == 403
            )
            made = http.post(
                "/v1/sessions", json={}, headers={"Origin": "https://app.example", "Authorization": "Bearer t"}
            )
            assert (made.status_code, made.headers["vary"]) == (201, "Origin")
        async with websockets.connect(f"{server.ws}/room?token=t", origin="https://app.example") as websocket:
            assert isinstance(next(decode(await websocket.recv())), SyncStep1)
    finally:
        server.close()


def test_a_frame_right_behind_the_request_is_refused_without_a_word_in_the_log(small):
    """RFC 6455, section 4.1: a client waits for the answer. One that does not is told, and that is all."""
    early = UPGRADE % b"early" + bytes((0x82, 0x84, 0, 0, 0, 0)) + encode(SyncStep1(b"\x00"))
    before = len(small.lines)
    with socket.create_connection(("127.0.0.1", int(small.url.rpartition(":")[2])), timeout=20) as peer:
        peer.sendall(early)
        assert peer.recv(4096).startswith(b"HTTP/1.1 400")
    with small.http() as http:
        assert http.get("/healthz").status_code == 200
    assert not [line for line in small.lines[before:] if "Traceback" in line or "rror" in line]

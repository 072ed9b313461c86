"""Client tokens of y-sweet: who gets one, for whom, and what it is good for."""

import httpx
import jwt
import pytest
import websockets

from crdt_sessions.wire import Ack, PermissionDenied, SyncStep1, SyncStep2, Update, decode, encode
from tests.access.conftest import TOKENS, bearer, token
from tests.processes import PATIENCE
from tests.sync.test_engine import letters


async def asked(service, room, wanted, headers):
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=PATIENCE) as http:
        answer = await http.post(f"/v1/y-sweet/doc/{room}/auth", json=wanted)
        return answer.status_code, answer.json()


@pytest.fixture
async def made(service, room):
    async with httpx.AsyncClient(base_url=service.url, headers=bearer("b", "service"), timeout=PATIENCE) as http:
        (await http.post("/v1/sessions", json={"id": room})).raise_for_status()
        yield http


def claims(answer):
    return jwt.decode(answer["token"], options={"verify_signature": False})


async def test_a_backend_makes_tokens_for_one_session(service, made, room):
    status, answer = await asked(service, room, {"userId": "ann", "validForSeconds": 60}, bearer("b", "service"))
    assert status == 200
    assert (answer["docId"], answer["authorization"]) == (room, "full")
    said = claims(answer)
    assert (said["sub"], said["role"], said["sessions"]) == ("ann", "editor", [room])
    assert said["exp"] - said["iat"] == 60
    read = {"authorization": "read-only", "userId": "ann"}
    _, viewer = await asked(service, room, read, bearer("b", "service"))
    assert (claims(viewer)["role"], viewer["authorization"]) == ("viewer", "read-only")
    odd = "any[thing]*"
    await made.post("/v1/sessions", json={"id": odd})
    _, answer = await asked(service, odd, {}, bearer("b", "service"))
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {answer['token']}"}) as http:
        assert http.get(answer["baseUrl"] + "/as-update").status_code == 200
        assert http.get(f"/v1/sessions/{room}").status_code == 403, "its pattern is the name, and nothing more"


async def test_everybody_else_gets_their_own_and_for_nobody_else(service, made, room):
    mine = token("ann", "editor")
    headers = {"Authorization": f"Bearer {mine}"}
    status, answer = await asked(service, room, {}, headers)
    assert (status, answer["token"], answer["authorization"]) == (200, mine, "full")
    for wanted in ({"userId": "bob"}, {"authorization": "read-only"}):
        status, answer = await asked(service, room, wanted, headers)
        assert (status, answer["type"].rpartition(":")[2]) == (403, "access-denied"), wanted
    _, answer = await asked(service, room, {}, bearer("vera", "viewer"))
    assert answer["authorization"] == "read-only"
    status, _ = await asked(service, f"{room}-2", {}, bearer("vera", "viewer"))
    assert status == 404, "she could not make it"


async def test_the_socket_takes_the_session_from_the_token_and_its_rights(service, made, room):
    _, answer = await asked(service, room, {}, {"Authorization": f"Bearer {TOKENS['viewer']}"})
    url, _, query = answer["url"].partition("?")
    async with websockets.connect(f"{url}/elsewhere?{query}&token={answer['token']}") as socket:
        await socket.send(encode(SyncStep1(b"\x00")))
        await socket.send(encode(Ack(b"\x00")))
        await socket.send(encode(SyncStep2(b"\x00\x00")))
        seen = await until(socket, Ack)
        assert seen[-1] == Ack(b"\x00")
        await socket.send(encode(Update(letters("x", 51)[0])))
        await socket.send(encode(Ack(b"\x01")))
        seen = await until(socket, Ack)
        assert any(isinstance(frame, PermissionDenied) for frame in seen)
        assert seen[-1] == Ack(b"\x00"), "the change is not counted"
    async with websockets.connect(f"{url}/{room}?{query}&token=nonsense") as socket:
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 4401
    other = token("eve", "editor", sessions=["other-*"])
    async with websockets.connect(f"{url}/other-1?{query}&token={other}") as socket:
        while socket.close_code is None:
            try:
                await socket.recv()
            except websockets.ConnectionClosed:
                break
        assert socket.close_code == 4403, "what the path says does not count"


async def until(socket, kind):
    seen = []
    while not seen or not isinstance(seen[-1], kind):
        seen += decode(await socket.recv())
    return seen

"""The service's own defects, over HTTP: a reference instead of a text, a way on, and nobody who hangs."""

import json

import pytest

from crdt_sessions.model.messages import Messages
from crdt_sessions.storage import MemoryStore
from crdt_sessions.sync import RunSteward
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.processes import PROBLEM

HEADERS = {"Host": "localhost", "Content-Type": "application/json"}
SECRET = "my database password is 1234"


class Client:
    """Asks a service in this process."""

    def __init__(self, service):
        self._client = service.app.test_client()

    async def __call__(self, method, path, **body):
        data = json.dumps(body) if body else None
        response = await self._client.open(f"/v1/sessions{path}", method=method, headers=HEADERS, data=data)
        return response.status_code, await response.get_data(as_text=True), response.headers


@pytest.fixture
async def client():
    async with Service(Settings(), store=MemoryStore()) as service:
        yield Client(service)


def broken_at(monkeypatch, owner, name, when):
    method = getattr(owner, name)

    def frail(self, *arguments):
        if when(*arguments):
            raise RuntimeError(SECRET)
        return method(self, *arguments)

    monkeypatch.setattr(owner, name, frail)


def logged(caplog, reference):
    (record,) = [each for each in caplog.records if getattr(each, "reference", None) == reference]
    error = record.exc_info[1]
    return str(error.__cause__ or error)


async def test_a_defect_of_the_steward_is_a_503_to_try_again_and_costs_nobody_else_anything(
    client, monkeypatch, caplog
):
    broken_at(monkeypatch, RunSteward, "answer", lambda head, *_: head.id == "poison")
    await client("POST", "", id="room")
    status, text, headers = await client("POST", "/room/messages", id="poison", text="?")
    assert (status, json.loads(text)["type"], headers["Retry-After"]) == (503, PROBLEM + "session-failed", "2")
    assert SECRET not in text
    assert logged(caplog, json.loads(text)["reference"]) == SECRET
    assert (await client("GET", "/room/messages"))[0] == 200
    again = [(await client("POST", "/room/messages", id="poison", text="?"))[0] for _ in range(2)]
    assert again == [503, 201], "the second time it is left alone"
    assert (await client("POST", "/room/messages", id="ordinary", text="?"))[0] == 201
    messages = json.loads((await client("GET", "/room/messages"))[1])["messages"]
    assert [(each["id"], each["seq"]) for each in messages] == [("poison", 1), ("ordinary", 2)]


async def test_a_defect_of_a_route_is_a_500_with_a_reference(client, monkeypatch, caplog):
    await client("POST", "", id="room")
    with monkeypatch.context() as broken:
        broken_at(broken, Messages, "page", lambda *_: True)
        status, text, _ = await client("GET", "/room/messages")
    assert (status, json.loads(text)["type"]) == (500, PROBLEM + "internal-error")
    assert SECRET not in text
    assert logged(caplog, json.loads(text)["reference"]) == SECRET
    assert (await client("GET", "/room/messages"))[0] == 200

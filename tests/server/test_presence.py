"""Being present over REST: seen by peers with a socket as one of them, for a while."""

import pytest

from crdt_sessions import connect
from tests.processes import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("presence") / "s.db")
    yield process
    process.close()


async def test_a_presence_over_rest_is_seen_by_peers_and_leaves_when_its_time_is_over(server):
    async with connect(server.url, "room", name="Ann") as ann:
        with server.http() as http:
            url = "/v1/sessions/room/presence"
            body = {"principal": "bob", "device": "kiosk", "ttlS": 1, "state": {"activity": "typing"}}
            said = http.put(url, json=body | {"ttlS": 300}).json()
            await ann.until(lambda: [each.user.id for each in ann.present().values()].count("bob") == 1)
            (seen,) = [each for each in ann.present().values() if each.user.id == "bob"]
            assert (seen.activity, seen.device, seen.user.name) == ("typing", "kiosk", "bob")
            listed = {each["clientId"]: each["state"] for each in http.get(url).json()["present"]}
            assert listed[said["clientId"]] == said["state"]
            assert http.put(url, json=body).json()["clientId"] == said["clientId"]
            await ann.until(lambda: "bob" not in [each.user.id for each in ann.present().values()])
            http.put(url, json=body | {"ttlS": 300})
            await ann.until(lambda: "bob" in [each.user.id for each in ann.present().values()])
            assert http.delete(url, params={"principal": "bob", "device": "kiosk"}).status_code == 204
            await ann.until(lambda: "bob" not in [each.user.id for each in ann.present().values()])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"ttlS": 0}, 422), ({"ttlS": 301}, 422), ({"state": {"x": "y" * 20_000}}, 413), ({"state": {"user": 1}}, 422),
        ({"state": {"user": {"id": "eve"}}}, 403), ({"state": 1}, 422), ({"x": 1}, 422),
    ],
)  # fmt: skip
def test_a_presence_that_cannot_be_is_refused(server, body, status):
    with server.http() as http:
        http.post("/v1/sessions", json={"id": "bounds"})
        assert http.put("/v1/sessions/bounds/presence", json=body).status_code == status
        assert http.put("/v1/sessions/nowhere/presence", json={}).status_code == 404
        assert http.get("/v1/sessions/bounds/presence").json() == {"present": []}


def test_one_principal_has_so_many_presences_and_no_more(server):
    with server.http() as http:
        http.post("/v1/sessions", json={"id": "many"})
        statuses = [http.put("/v1/sessions/many/presence", json={"device": f"d{n}"}).status_code for n in range(18)]
    assert statuses == [200] * 16 + [429] * 2

"""Electric's client writes and follows streams (docs/how-to/durable-streams.md), whatever is cut or killed meanwhile."""

import random
import time

import pytest

from tests.interop.node import NodePeers
from tests.processes import PATIENCE, Server
from tests.streams.node import JS, needs_node

pytestmark = [pytest.mark.interop, needs_node]

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def clients():
    node = NodePeers(JS / "clients.mjs")
    yield node
    node.close()


def expected(producer, count):
    return [{"producer": producer, "n": n} for n in range(count)]


@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_a_reader_that_is_cut_at_ten_points_misses_and_repeats_nothing(clients, http, service, path, live):
    http.put(path, headers=JSON)
    url, rng, name = service.url + path, random.Random(live), f"reader-{live}"
    clients("follow", name=name, url=url, live=live)
    clients("write", name=live, url=url, producer="p", **{"from": 0}, count=60, everyMs=4, close=True)
    for _ in range(10):
        time.sleep(rng.random() * 0.03)
        clients("cut", name=name)
    found = clients.until(lambda got: got["closed"], command="got", name=name)
    assert found["items"] == expected("p", 60)
    assert found["begun"] > 5
    assert clients("written", name=live)["error"] is None
    assert http.get(path).json() == found["items"], "a second device"


@pytest.mark.crash
def test_nothing_acknowledged_is_lost_or_doubled_when_the_service_is_killed(clients, tmp_path):
    server = Server(tmp_path / "s.db", "--long-poll-s", 1)
    rng = random.Random(1)
    with server.http() as http:
        http.put("/v1/streams/killed", headers=JSON)
    url = f"{server.url}/v1/streams/killed"
    for live in ("sse", "long-poll"):
        clients("follow", name=f"k-{live}", url=url, live=live)
    for producer in ("p", "q"):
        clients("write", name=f"k-{producer}", url=url, producer=producer, **{"from": 0}, count=150, everyMs=5)
    for _ in range(3):
        known = len(clients("got", name="k-sse")["items"])
        clients.until(lambda got, n=known: len(got["items"]) > n, command="got", name="k-sse")
        time.sleep(rng.random() * 0.1)
        server.kill()
        server = server.again()
    for producer in ("p", "q"):
        assert clients.until(lambda told: told["done"], command="written", name=f"k-{producer}")["error"] is None
    with server.http() as http:
        http.post("/v1/streams/killed", headers={"Stream-Closed": "true"})
        whole = http.get("/v1/streams/killed").json()
    for producer in ("p", "q"):
        assert [each for each in whole if each["producer"] == producer] == expected(producer, 150), (
            "each once, in order"
        )
    for live in ("sse", "long-poll"):
        found = clients.until(lambda got: got["closed"], PATIENCE, command="got", name=f"k-{live}")
        assert found["items"] == whole, "every reader has the same log, and its end"
    server.close()

"""Phones with real Yjs sync by request, beside sockets of both dialects; docs/how-to/phones.md says how."""

import asyncio

import pytest

from crdt_sessions import connect
from tests.docs.page import blocks
from tests.interop.node import JS, NodePeers, needs_node
from tests.processes import PATIENCE, ROOT, Server

pytestmark = [pytest.mark.interop, needs_node]
FAR = (1 << 53) - 1
"""The largest Yjs client id."""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("phones") / "s.db")
    yield process
    process.close()


@pytest.fixture(scope="module")
def phones():
    process = NodePeers(JS / "phone.mjs")
    yield process
    process.close()


def test_phones_that_meet_only_at_the_service_have_the_same_in_the_end(service, phones):
    ids = {"one": FAR, "two": FAR - (1 << 32), "three": 1}
    for phone, client in ids.items():
        for name in ("trip", "list"):
            phones("hold", phone=phone, name=name, clientID=client)
        phones("write", phone=phone, name="trip", index=0, text=f"{phone} 😀 ")
        phones("set", phone=phone, name="list", key=phone, value=1)
    phones("sync", phone="one", url=service.url, lose=True)  # it is stored, and the phone does not know
    for phone in (*ids, *ids):
        phones("sync", phone=phone, url=service.url)
    trips = [phones("dump", phone=phone, name="trip") for phone in ids]
    assert {trip["draft"] for trip in trips} == {trips[0]["draft"]}
    assert all(trips[0]["draft"].count(phone) == 1 for phone in ids), "what was sent twice is there once"
    assert set(ids.values()) <= set(trips[0]["clients"]), "and no client id lost its upper bits"
    assert [phones("dump", phone=phone, name="list")["state"] for phone in ids] == [dict.fromkeys(ids, 1)] * 3
    phones("sync", phone="one", url=service.url)  # hears of its own
    again = phones("sync", phone="one", url=service.url)
    assert ([each.get("unchanged") for each in again["sessions"]], again["changed"]) == ([True, True], [])


async def test_requests_and_sockets_of_both_dialects_share_one_session(service, phones, js):
    """Everybody writes at once, by another protocol each; all have all of it, on every way."""
    name, rounds = "at-once", 4
    hocuspocus = f"{service.url.replace('http', 'ws', 1)}/v1/hocuspocus"
    await js.ask("open", peer="y", url=service.ws, room=name, version=3)
    await js.ask("socket", socket="h", url=hocuspocus, version=4)
    await js.ask("attach", peer="h", socket="h", name=name, version=4)
    for phone in ("left", "right"):
        await phones.ask("hold", phone=phone, name=name, clientID=FAR - 7 - len(phone))
    async with connect(service.url, name) as python:

        async def socket(peer):
            for number in range(rounds):
                await js.ask("insert", peer=peer, index=0, text=f"<{peer}{number}>")

        async def phone(phone):
            for number in range(rounds):
                await phones.ask("write", phone=phone, name=name, index=0, text=f"<{phone}{number}>")
                await phones.ask("sync", phone=phone, url=service.url)

        async def peer():
            for number in range(rounds):
                python.edit(lambda view, key=f"p{number}": view.document.roots.state.update({key: 1.0}))
                await python.durable()

        await asyncio.gather(socket("y"), socket("h"), phone("left"), phone("right"), peer())
        wanted = {f"<{who}{number}>" for who in ("y", "h", "left", "right") for number in range(rounds)}

        def whole(dump):
            return all(dump["draft"].count(each) == 1 for each in wanted)

        for who in ("y", "h"):
            await asyncio.to_thread(js.until, whole, command="dump", peer=who)
        await python.durable()
    for each in ("left", "right"):
        await phones.ask("sync", phone=each, url=service.url)
    dumps = [await phones.ask("dump", phone=each, name=name) for each in ("left", "right")]
    other = await js.ask("dump", peer="y")
    assert whole(dumps[0])
    assert dumps[0]["draft"] == dumps[1]["draft"] == other["draft"]
    assert set(dumps[0]["state"]) == {f"p{number}" for number in range(rounds)}
    for peer in ("y", "h"):
        await js.ask("destroy", peer=peer)


async def test_the_python_of_the_page_fetches_all_there_is(tmp_path):
    (block,) = [each for each in blocks(ROOT / "docs/how-to/phones.md") if each.language == "python"]
    made = {}
    exec(block.text, made)
    server = Server(tmp_path / "s.db")
    try:
        with server.http() as http:
            for name in ("a", "b"):
                http.post(f"/v1/sessions/{name}/messages", json={"id": f"in-{name}", "text": "?"}).raise_for_status()
        async with asyncio.timeout(PATIENCE):
            assert await made["fetch"](server.url) == ["in-a", "in-b"]
    finally:
        server.close()

"""Peers that flood, stall, crowd, pretend and bomb, against a real service; after each, the others are as before."""

import asyncio
import json
import os
import socket
import struct
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest
from pycrdt import Text
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import ConnectionClosed

from crdt_sessions import connect
from crdt_sessions.model import SessionDoc
from crdt_sessions.wire import (
    Ack,
    AwarenessEntry,
    AwarenessFrame,
    Update,
    decode,
    decode_awareness,
    encode,
    encode_awareness,
)
from tests.processes import PATIENCE, UPGRADE, Server

pytestmark = [pytest.mark.crash, pytest.mark.slow]

FLAGS = ("--default-agent", "", "--idle-unload-s", "0.2")


def resident(server):
    with open(f"/proc/{server.child.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def serving(tmp_path, *flags):
    """A service, and a session beside in which two peers live; in the end they still do, on their first connection."""
    server = Server(tmp_path / "s.db", *FLAGS, *flags)
    try:
        async with connect(server.url, "beside", name="a") as a, connect(server.url, "beside", name="b") as b:
            trips = []
            living = asyncio.create_task(live(a, b, trips))
            yield server
            done = len(trips) + 5
            while len(trips) < done:
                assert not living.done(), living.exception()
                await asyncio.sleep(0.05)
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            print(f"beside: {len(trips)} round trips, the slowest {max(trips) * 1000:.0f} ms")
    finally:
        server.close()


async def live(a, b, trips):
    for number in range(1_000_000):
        begun = time.monotonic()
        a.edit(lambda view, number=number: view.state.__setitem__("n", number))
        await asyncio.wait_for(b.until(lambda number=number: b.view.state.get("n") == number), PATIENCE)
        assert a.connected
        trips.append(time.monotonic() - begun)
        await asyncio.sleep(0.05)


def stock_peer(server, room="room", **options):
    return websocket(f"{server.ws}/{room}", proxy=None, **options)


async def closed(stock):
    """Read until the service closes; return why."""
    with pytest.raises(ConnectionClosed):
        while True:
            await asyncio.wait_for(stock.recv(), PATIENCE)
    return stock.close_code, stock.close_reason


def typing(count, client=7, size=10):
    document = SessionDoc(client)
    draft = document.doc.get("draft", type=Text)
    return [encode(Update(document.edit(lambda _: draft.__iadd__("x" * size))[1])) for _ in range(count)]


@pytest.mark.parametrize("direct", ["--direct", "--no-direct"])
@pytest.mark.sampled(2)
async def test_a_flood_of_messages_is_slowed_down_and_loses_nothing(tmp_path, direct):
    async with serving(tmp_path, "--messages-per-s", "1000", "--message-burst", "500", direct) as server:
        frames = typing(6000)
        before = resident(server)
        async with stock_peer(server) as stock:
            begun = time.monotonic()
            await stock.send(b"\x00\x00\x01\x00")
            for frame in frames:
                await stock.send(frame)
            await stock.send(encode(Ack(b"all")))
            while not any(isinstance(each, Ack) for each in decode(await asyncio.wait_for(stock.recv(), PATIENCE))):
                pass
            took = time.monotonic() - begun
        assert took > (6000 - 500 - 1024) / 1000, "as fast as it may, at most"
        assert resident(server) - before < 30_000_000
        async with connect(server.url, "room") as fresh:
            draft = str(fresh.view.document.doc.get("draft", type=Text))
            assert draft == "x" * 60_000


async def test_a_flood_of_presence_grows_nothing(tmp_path):
    async with serving(tmp_path, "--max-presences", "100") as server, connect(server.url, "room") as watcher:
        before = resident(server)
        for number in range(300):
            async with stock_peer(server) as stock:
                entries = [
                    AwarenessEntry(number * 100 + each, 1, json.dumps({"x": "y" * 1000})) for each in range(50)
                ]
                await stock.send(encode(AwarenessFrame(encode_awareness(entries))))
        assert resident(server) - before < 30_000_000
        async with stock_peer(server) as stock:
            huge = AwarenessEntry(1, 1, json.dumps("x" * 20_000))
            await stock.send(encode(AwarenessFrame(encode_awareness([huge]))))
            code, reason = await closed(stock)
        assert code == 4413
        assert "presence" in reason
        assert watcher.connected


async def test_a_presence_in_anothers_name_is_ignored(tmp_path):
    """Nobody is ever told of it; Ann, if she were, would put it right at once, so that a look comes too late."""
    async with serving(tmp_path) as server, connect(server.url, "room", name="Ann") as ann:
        async with stock_peer(server) as witness, stock_peer(server) as mallory:
            await witness.send(b"\x00\x00\x01\x00")
            told = await presences(witness, ann.client_id)
            forged = [
                AwarenessEntry(666, 5, '{"user":{"name":"Mallory"}}'),
                AwarenessEntry(ann.client_id, told[ann.client_id].clock + 99, '{"user":{"name":"not Ann"}}'),
                AwarenessEntry(ann.client_id, told[ann.client_id].clock + 100, "null"),
            ]
            await mallory.send(b"\x00\x00\x01\x00")
            await mallory.send(encode(AwarenessFrame(encode_awareness(forged))))
            later = await presences(witness, 666)
            assert ann.client_id not in later or later[ann.client_id].clock < forged[1].clock


async def presences(stock, client):
    """Read until *client* is among those that the peer is told of; return the newest of each, by client ID."""
    told = {}
    while client not in told:
        for frame in decode(await asyncio.wait_for(stock.recv(), PATIENCE)):
            if isinstance(frame, AwarenessFrame):
                told |= {entry.client_id: entry for entry in decode_awareness(frame.payload)}
    return told


async def test_a_peer_that_never_reads_delays_nobody_and_grows_nothing(tmp_path):
    """It asks for everything and reads nothing while another one streams ten megabytes."""
    frames = typing(200, size=50_000)
    async with serving(tmp_path, "--log-bytes", "65536") as server:
        stalled = server.raw_peer(receive_buffer=4096)
        stalled.sendall(b"\x82\x84\0\0\0\0\x00\x00\x01\x00")  # SyncStep1
        async with stock_peer(server) as stock, stock_peer(server, max_size=None) as good:
            await good.send(b"\x00\x00\x01\x00")
            received = 0

            async def read():
                nonlocal received
                while received < 9_900_000:
                    received += len(await good.recv())

            reading = asyncio.create_task(read())
            before = resident(server)
            await stock.send(b"\x00\x00\x01\x00")
            for frame in frames:
                await stock.send(frame)
            await asyncio.wait_for(reading, PATIENCE)
            assert resident(server) - before < 100_000_000  # the document, and what is on its way to the disk
        stalled.close()


async def test_a_connection_that_says_nothing_or_half_a_request_holds_nothing_up(tmp_path):
    """Slow loris: two hundred connections that send a byte now and then."""
    async with serving(tmp_path) as server:
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
        for _ in range(5):
            for each in slow:
                with suppress(OSError):
                    each.send(b"G")
            await asyncio.sleep(0.1)
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            assert (await http.get("/healthz")).status_code == 200
        for each in slow:
            each.close()


async def test_connections_over_the_limit_are_told_so(tmp_path):
    async with serving(tmp_path, "--max-connections", "12", "--max-connections-per-session", "5") as server:
        async with AsyncExitStack() as stack:
            for room, room_limit in (("one", 5), ("two", 5)):
                stocks = [await stack.enter_async_context(stock_peer(server, room)) for _ in range(room_limit)]
                for stock in stocks:
                    await stock.recv()
                if room == "one":
                    extra = await stack.enter_async_context(stock_peer(server, room))
                    assert await closed(extra) == (1013, "more than 5 connections to one session; come back later")
            extra = await stack.enter_async_context(stock_peer(server, "three"))
            assert await closed(extra) == (1013, "more than 12 connections; come back later")


async def test_connections_of_one_principal_over_the_limit_are_told_so(tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"t-ann": {"principal": "ann"}, "t-bob": {"principal": "bob"}}))
    server = Server(tmp_path / "s.db", *FLAGS, "--tokens-file", tokens, "--max-connections-per-principal", "2")
    try:
        async with AsyncExitStack() as stack:
            for token, number in (("t-ann", 2), ("t-bob", 1)):
                for _ in range(number):
                    url = f"{server.ws}/room?token={token}"
                    await (await stack.enter_async_context(websocket(url, proxy=None))).recv()
            extra = await stack.enter_async_context(websocket(f"{server.ws}/room?token=t-ann", proxy=None))
            assert await closed(extra) == (1013, "more than 2 connections of ann; come back later")
    finally:
        server.close()


@pytest.mark.filterwarnings("ignore:unclosed <socket")  # of the client library, when a connection is not made
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_five_hundred_come_back_at_once_after_a_restart(tmp_path):
    server = Server(tmp_path / "s.db", *FLAGS)
    try:
        async with connect(server.url, "room", name="Ann") as ann:
            for number in range(20):
                await ann.post(f"{number}", id=f"m{number}")
        server.kill()
        server = server.again()

        async def come_back():
            for _ in range(40):  # one that is told to come back later does
                with suppress(ConnectionClosed, OSError):
                    async with stock_peer(server, open_timeout=PATIENCE) as stock:
                        await stock.send(b"\x00\x00\x01\x00")
                        while True:
                            frame = await asyncio.wait_for(stock.recv(), PATIENCE)
                            if frame[:2] == b"\x00\x01":
                                return frame
                await asyncio.sleep(0.25)
            raise AssertionError("never served")

        begun = time.monotonic()
        frames = await asyncio.gather(*(come_back() for _ in range(500)))
        print(f"500 served in {time.monotonic() - begun:.1f} s")
        assert len(set(map(len, frames))) == 1
        with server.http() as http:
            assert http.get("/readyz").status_code == 200
    finally:
        server.close()


async def test_a_document_up_to_its_limit_and_just_over_it(tmp_path):
    limit = 300_000
    async with serving(tmp_path, "--max-document-bytes", str(limit)) as server:
        frames = typing(40, size=10_000)
        async with stock_peer(server) as stock:
            with suppress(ConnectionClosed):
                for frame in [b"\x00\x00\x01\x00", *frames]:
                    await stock.send(frame)
            code, reason = await closed(stock)
        assert code == 4413
        assert str(limit) in reason
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            whole = (await http.get("/v1/sessions/room/export?format=yjs")).content
            assert limit * 0.9 < len(whole) <= limit
            over = await http.post("/v1/sessions/room/messages", json={"text": "x" * 50_000})
            assert over.status_code in (201, 413)


async def test_a_body_over_its_limit_is_refused(tmp_path):
    async with serving(tmp_path, "--max-body-bytes", "10000") as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            for size, status in ((5_000, 201), (20_000, 413)):
                answer = await http.post("/v1/sessions/room/messages", json={"text": "x" * size})
                assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"


async def test_bombs_of_nesting_and_of_lengths_are_refused(tmp_path):
    """Values nested ten thousand deep, and lengths that promise what no memory holds."""
    nested = b"\x75\x01" * 10_000 + b"\x7e"
    any_bomb = b"\x01\x01\x05\x00\x28\x01\x05state\x01k\x01" + nested + b"\x00"
    length_bomb = b"\x01\x01\x05\x00\x28\x01\x05state\x01k\x01\x75" + b"\xff" * 7 + b"\x7f\x00"
    structs_bomb = b"\x01" + b"\xff" * 4 + b"\x0f\x05\x00"
    clients_bomb = b"\xff" * 4 + b"\x0f\x01\x05\x00"
    async with serving(tmp_path) as server:
        before = resident(server)
        for bomb in (any_bomb, length_bomb, structs_bomb, clients_bomb):
            async with stock_peer(server) as stock:
                await stock.send(b"\x00\x00\x01\x00")
                await stock.send(encode(Update(bomb)))
                code, _ = await closed(stock)
                assert code == 4400
            async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
                refused = await http.post("/v1/sessions/room/sync", content=encode(Update(bomb)))
                assert refused.status_code == 400
        assert resident(server) - before < 50_000_000


async def test_a_flood_of_joins_and_resets_leaves_nothing_behind(tmp_path):
    """Connections that are reset at once, a thousand of them."""
    async with serving(tmp_path) as server:
        for _ in range(1000):
            each = socket.create_connection(("127.0.0.1", server.port))
            each.sendall(UPGRADE % b"room")
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE) as http:
            for _ in range(100):
                if (await http.get("/readyz")).json()["connections"] == 2:  # those of the session beside
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError("connections are left over")


@pytest.mark.parametrize("direct", ["--direct", "--no-direct"])
@pytest.mark.sampled(2)
async def test_no_extension_is_agreed_upon(tmp_path, direct):
    """Hypercorn would compress frames with 270 kB of memory a connection (docs/decisions/0012)."""
    async with serving(tmp_path, direct) as server, stock_peer(server, compression="deflate") as stock:
        assert stock.protocol.extensions == []


async def test_a_refused_peer_that_does_not_hang_up_is_hung_up_on(tmp_path):
    """It says nonsense, is refused, goes on and never reads: its socket is closed all the same."""
    async with serving(tmp_path) as server:
        rude = server.raw_peer()
        rude.settimeout(PATIENCE)

        def flood():
            begun = time.monotonic()
            while time.monotonic() - begun < PATIENCE:
                rude.sendall(b"\x82\x81\0\0\0\0\x7f" * 100)  # no type that there is

        with pytest.raises(ConnectionError):
            await asyncio.to_thread(flood)
        rude.close()


@pytest.mark.nightly
async def test_memory_is_back_after_a_thousand_connections_and_three_hundred_sessions(tmp_path):
    async with serving(tmp_path, "--idle-unload-s", "0") as server:

        async def cycle(count):
            for number in range(count):
                async with stock_peer(server, f"room-{number % 300}") as stock:
                    await stock.recv()
                    if number % 10 == 0:
                        await stock.send(typing(1, client=number + 10)[0])

        await cycle(600)
        before = resident(server)
        await cycle(1000)
        with server.http() as http:
            for _ in range(100):
                if http.get("/readyz").json()["liveSessions"] == 1:
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError("sessions stay in memory")
        assert resident(server) - before < 6_000_000

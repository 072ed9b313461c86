"""SIGTERM while everybody is busy: all is stored, all are told 1012, and the process ends in its time.

An idle client, one that floods, one that reads nothing, one that writes and waits for acknowledgements, a long poll
and a stream of events are attached. `SERVICE_PYTHON=... pytest` chooses the interpreter of the service.
"""

import asyncio
import os
import sys
import threading
import time
from contextlib import suppress

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from crdt_sessions import connect
from tests.hostile.test_peers import stock_peer, typing
from tests.processes import PATIENCE, Server

pytestmark = [pytest.mark.crash, pytest.mark.slow]

PYTHON = os.environ.get("SERVICE_PYTHON", sys.executable)


def flood(server, stop):
    """Send what it can, and read nothing, until the socket breaks."""
    with server.raw_peer() as rude, suppress(OSError):
        while not stop.is_set():
            rude.sendall(b"\x82\x81\0\0\0\0\x03" * 50)


async def ask(url, method, path, **options):
    with suppress(httpx.HTTPError):
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE) as http:
            async with http.stream(method, path, **options) as answer:
                async for _ in answer.aiter_bytes():
                    pass


@pytest.mark.parametrize("attempt", range(3))
@pytest.mark.sampled(3)
async def test_a_stop_under_load_is_orderly_and_in_time(tmp_path, attempt):
    flags = ("--default-agent", "", "--shutdown-s", "5", "--message-burst", "10000000", "--messages-per-s", "1000000")
    server = Server(tmp_path / "s.db", *flags, python=PYTHON)
    acknowledged, stop = [], threading.Event()
    threads = [threading.Thread(target=flood, args=(server, stop), daemon=True) for _ in range(2)]
    stalled = server.raw_peer(receive_buffer=4096)
    try:
        stalled.sendall(b"\x82\x84\0\0\0\0\x00\x00\x01\x00")
        for thread in threads:
            thread.start()
        waiting = [
            asyncio.create_task(ask(server.url, "POST", "/v1/runs/claim", json={"agents": ["a"], "waitS": 20})),
            asyncio.create_task(ask(server.url, "GET", "/v1/sessions/room/events")),
        ]
        async with (
            connect(server.url, "room", name="Ann") as ann,
            stock_peer(server) as idle,
            stock_peer(server) as busy,
        ):

            async def write():
                for number in range(1_000_000):
                    message = await ann.post(f"{number}", id=f"m{number}")
                    acknowledged.append(message.id)

            async def type_on():
                for frame in typing(3000):
                    await busy.send(frame)
                    await asyncio.sleep(0.001)

            tasks = [asyncio.create_task(write()), asyncio.create_task(type_on())]
            await asyncio.sleep(1 + 0.3 * attempt)
            begun = time.monotonic()
            server.child.terminate()
            status = await asyncio.to_thread(server.child.wait, 20)
            took = time.monotonic() - begun
            stored = set(acknowledged)
            assert (status, took < 12) == (0, True), f"{took:.1f} s\n" + "\n".join(server.lines)
            for each in (idle, busy):
                with pytest.raises(ConnectionClosed):
                    while True:
                        await asyncio.wait_for(each.recv(), PATIENCE)
                assert each.close_code == 1012
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
        assert stored
        assert "Traceback" not in "\n".join(server.lines)
        again = Server(server.database, *flags, python=PYTHON)
        try:
            async with connect(again.url, "room") as fresh:
                assert stored <= set(fresh.view.messages.ids())
        finally:
            again.close()
        print(f"stopped in {took:.1f} s with {len(stored)} messages acknowledged")
    finally:
        stop.set()
        stalled.close()
        server.close()

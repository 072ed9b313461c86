"""The demo on three nodes: whichever is killed, the answer goes on and is whole."""

import asyncio
import os
import re
import signal
import sys

import pytest

from crdt_sessions import connect
from examples import cluster_demo
from examples.scripted_model import WEEKEND
from tests.postgres import needs_postgres
from tests.processes import PATIENCE, ROOT, Process, all_gone, free_port

pytestmark = [pytest.mark.crash, pytest.mark.slow]


@needs_postgres
@pytest.mark.nightly  # a dozen processes
@pytest.mark.parametrize("balancer", ["haproxy", "python"])
async def test_every_node_may_be_killed_while_the_answer_is_written(balancer):
    port = free_port()
    path = os.environ["PATH"] if balancer == "haproxy" else "/usr/bin:/bin"
    demo = Process(
        sys.executable, ROOT / "examples/cluster_demo.py", "--port", port, "--rate", "30", env={"PATH": path}
    )
    try:
        await asyncio.to_thread(demo.wait_for, "Ctrl-C ends the demo", 6 * PATIENCE)
        pids = [int(re.search(r"kill -9 (\d+)", line).group(1)) for line in demo.lines if "kill -9" in line]
        async with asyncio.timeout(6 * PATIENCE), connect(f"http://127.0.0.1:{port}", "demo", name="Ann") as ann:
            asked = await ann.post("Plan a weekend in Oslo")
            out = f"run-{asked.id}-out"
            for pid, size in zip(pids[:3], (100, 400, 700), strict=True):
                await ann.until(lambda size=size: (m := ann.view.messages.value(out)) and len(m.text) > size)
                os.kill(pid, signal.SIGKILL)
            assert (await ann.messages.answer_to(asked)).text == WEEKEND
        assert demo.terminate(3 * PATIENCE) == 0, "\n".join(demo.lines)
        assert all_gone(pids)
        assert "Traceback" not in "\n".join(demo.lines)
    finally:
        demo.close()


async def test_without_haproxy_clients_are_spread_at_random_and_dead_nodes_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    def node(name):
        async def serve(reader, writer):
            writer.write(name + await reader.read(1))
            writer.close()

        return asyncio.start_server(serve, "127.0.0.1", 0)

    async def ask(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"?")
        answer = await reader.read()
        writer.close()
        return answer

    first, second = await node(b"1"), await node(b"2")
    ports = [each.sockets[0].getsockname()[1] for each in (first, second)]
    port = free_port()
    async with cluster_demo.spread(port, ports, tmp_path) as by:
        assert "HAProxy is not there" in by
        assert {await ask(port) for _ in range(40)} == {b"1?", b"2?"}
        first.close()
        assert {await ask(port) for _ in range(10)} == {b"2?"}
        second.close()
        assert await ask(port) == b""

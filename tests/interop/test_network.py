"""Real clients behind a bad network: in the end, all that are connected show the same, without being loaded anew."""

import asyncio
import random

import pytest

from crdt_sessions import connect
from crdt_sessions.testing import content
from tests.interop.node import needs_node
from tests.processes import Server
from tests.proxy import Network, Proxy

pytestmark = [pytest.mark.interop, pytest.mark.slow, needs_node]

NETWORKS = {
    "late and unsteady": Network(delay_s=0.03, jitter_s=0.05),
    "narrow": Network(bytes_per_s=20_000, piece=512),
    "in single bytes": Network(piece=1),
    "reset every few hundred bytes": Network(reset_after=(300, 3000)),
    "reset often, late, in pieces": Network(reset_after=(500, 6000), delay_s=0.01, jitter_s=0.02, piece=37),
}


class Group:
    """Two Python peers and two JavaScript clients, each behind the proxy, writing at random."""

    def __init__(self, js, proxy, peers):
        self.js, self.proxy, self.peers = js, proxy, peers
        self.written = set()

    async def open(self):
        for name, version in (("j3", 3), ("j2", 2)):
            await self.js.ask("open", peer=name, url=self.proxy.ws, room="room", version=version)

    async def write(self, rng, count):
        for number in range(len(self.written), len(self.written) + count):
            who = rng.randrange(4)
            if who < 2:
                await self.peers[who].post(f"{number} 😀", id=f"m{number}", wait=False)
            else:
                peer = ("j3", "j2")[who - 2]
                await self.js.ask("post", peer=peer, id=f"m{number}", text=f"{number} é")
                await self.js.ask("insert", peer=peer, index=0, text="ab ")
            self.written.add(f"m{number}")
            await asyncio.sleep(rng.uniform(0, 0.03))

    async def agree(self, seconds=60):
        """Return once all connected replicas are equal and hold all that was written."""
        contents = []
        for _ in range(int(seconds / 0.1)):
            contents = [content(peer._replica.document) for peer in self.peers]
            contents += [await self.js.content_async(name) for name in ("j3", "j2")]
            if all(one == contents[0] for one in contents) and self.written <= set(contents[0]["json"]["messages"]):
                return
            await asyncio.sleep(0.1)
        missing = [sorted(self.written - set(one["json"]["messages"]))[:3] for one in contents]
        raise AssertionError(f"the live replicas differ; missing: {missing}")


@pytest.fixture
def service(tmp_path):
    server = Server(tmp_path / "s.db", "--default-agent", "", "--snapshot-rows", "50")
    yield server
    server.close()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.sampled(4)
async def test_live_replicas_agree_behind_a_bad_network(service, js, name):
    async with (
        Proxy(service.port, NETWORKS[name], seed=5) as proxy,
        connect(proxy.url, "room", name="a") as a,
        connect(proxy.url, "room", name="b") as b,
    ):
        group = Group(js, proxy, (a, b))
        await group.open()
        rng = random.Random(1)
        await group.write(rng, 60)
        if any(proxy.network.reset_after):
            while proxy.resets < 8:
                await group.write(rng, 10)
                await asyncio.sleep(0.2)  # they come back, after a while
            proxy.network = Network()  # connections made from now on last
        await group.agree()


@pytest.mark.parametrize("one_way", [False, True])
@pytest.mark.sampled(2)
async def test_live_replicas_agree_after_the_network_was_cut_in_the_middle(service, js, one_way):
    """Half-open connections: nothing is closed, and nothing arrives, in both directions or in one."""
    async with (
        Proxy(service.port, Network(one_way=one_way)) as proxy,
        connect(proxy.url, "room", name="a") as a,
        connect(proxy.url, "room", name="b") as b,
    ):
        group, rng = Group(js, proxy, (a, b)), random.Random(2)
        await group.open()
        for _ in range(3):
            await group.write(rng, 5)
            proxy.cut()
            await group.write(rng, 5)
            await asyncio.sleep(0.3)
            proxy.heal()
        await group.agree()


@pytest.mark.nightly
async def test_a_restart_behind_a_bad_network_with_compaction_in_between(service, js):
    async with (
        Proxy(service.port, Network(delay_s=0.01, jitter_s=0.03, piece=100)) as proxy,
        connect(proxy.url, "room", name="a") as a,
        connect(proxy.url, "room", name="b") as b,
    ):
        group, rng = Group(js, proxy, (a, b)), random.Random(3)
        await group.open()
        server = service
        for _ in range(3):
            await group.write(rng, 15)
            await asyncio.to_thread(server.kill)
            await group.write(rng, 5)
            server = await asyncio.to_thread(server.again)
        try:
            await group.agree()
        finally:
            server.close()

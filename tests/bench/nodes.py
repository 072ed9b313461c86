"""What nodes cost, and how long clients are without one: ``python -m tests.bench.nodes``, on a machine that is quiet.

* Processor time per token, by process, of 50 agents with two viewers each at 25 tokens a second: on SQLite; of one
  node on PostgreSQL; of two where HAProxy keeps sessions together, and where it spreads clients at random; and of an
  owner and a router, where all clients come to the one that has nothing.
* How long the clients of other nodes are without a session after its owner was killed: 20 times.
* The same where the owner is frozen, which is counted as gone after its lease: 20 times.
* How long it takes to hand over 300 sessions to one node, how long their clients are away, and what each costs there.
  The clients are those of ``returning``, so that it is not themselves that they wait for.

Two cores cannot show that two nodes carry more than one: so it is processor time that is compared. Bars: one node on
PostgreSQL 1.3 times SQLite; two nodes, sessions kept together, 1.05 times one; at random 1.6 times.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from crdt_sessions import connect
from tests.bench.load import load
from tests.bench.peers import OURS, Peer, Running
from tests.cluster.nodes import Nodes
from tests.postgres import VERSIONS, PostgresServer, programs_of
from tests.processes import PATIENCE, Server, free_port

SESSIONS, VIEWERS, RATE = 50, 2, 25
FLAGS = (
    "--messages-per-s", "1000000000", "--message-burst", "1000000000", "--max-lag-s", "1000", "--connect-burst",
    "1000000", "--connects-per-s", "1000000",
)  # fmt: skip
_HAPROXY = """
global
    maxconn 4000
defaults
    mode http
    timeout connect 3s
    timeout client 75s
    timeout server 75s
    timeout tunnel 1h
frontend clients
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    balance {balance}
    hash-type consistent
{servers}
"""


@dataclass
class _Door:
    """Where the load generator goes."""

    port: int
    peer: Peer = OURS


class Engine:
    """PostgreSQL, with all its processes."""

    def __init__(self) -> None:
        self.server = PostgresServer(programs_of(VERSIONS[-1]))
        self._running = Running(OURS, self.server.port, self.server.process)

    def cpu(self) -> float:
        return self._running.cpu()


def cpu_of(server: Server) -> float:
    return Running(OURS, server.port, server.child).cpu()


# -- what a token costs ------------------------------------------------------------------------------------------------


def per_token(port: int, processes: dict[str, Any], seconds: float) -> dict[str, float]:
    """Return the microseconds of processor time per token of each process, and how late tokens arrive."""
    with load(_Door(port), "fan-out", sessions=SESSIONS, viewers=VIEWERS, seconds=seconds, rate=RATE) as running:
        running.until("begin")
        before = {name: cpu() for name, cpu in processes.items()}
        running.until("end")
        used = {name: cpu() - before[name] for name, cpu in processes.items()}
        result = running.until("result")
    tokens = max(1, result["deliveries"] / VIEWERS)
    told = {name: round(value / tokens * 1e6, 1) for name, value in used.items()}
    late = {key: value for key, value in result.items() if key.endswith("_ms")}
    return {**told, **late}


@contextmanager
def balanced(nodes: Nodes, balance: str, folder: Path) -> Iterator[tuple[int, Any]]:
    """Put HAProxy before the nodes; yield its port, and what tells its processor time."""
    port = free_port()
    servers = "\n".join(f"    server n{n} 127.0.0.1:{node.port}" for n, node in enumerate(nodes.all))
    config = folder / f"haproxy-{port}.cfg"
    config.write_text(_HAPROXY.format(port=port, balance=balance, servers=servers))
    child = subprocess.Popen([shutil.which("haproxy") or "haproxy", "-f", config, "-q"])
    try:
        until = time.monotonic() + PATIENCE
        while not _answers(f"http://127.0.0.1:{port}/readyz"):
            assert time.monotonic() < until
            time.sleep(0.02)
        yield port, Running(OURS, port, child).cpu
    finally:
        child.terminate()
        child.wait(20)


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, trust_env=False).status_code == 200
    return False


def owned_by(*nodes: Server) -> None:
    """Have each of the nodes own some sessions of the load; two that both begin with one would have clients return."""
    for number in range(SESSIONS):
        with nodes[number % len(nodes)].http() as http:
            http.post("/v1/sessions", json={"id": f"bench-{number}"}).raise_for_status()
            http.get(f"/v1/sessions/bench-{number}/messages").raise_for_status()


def costs(engine: Engine, folder: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Return what a token costs in each arrangement, by process."""
    found = {}
    sqlite = Server(folder / "s.db", "--no-sandbox", "--default-agent", "", *FLAGS)
    found["SQLite"] = per_token(sqlite.port, {"node": lambda: cpu_of(sqlite)}, seconds)
    sqlite.close()
    for name, count in (("one node", 1), ("hashed", 2), ("at random", 2), ("owner and router", 2)):
        if name in ("hashed", "at random") and shutil.which("haproxy") is None:
            found[name] = {}
            continue
        with cluster(engine, folder / name.replace(" ", "-"), count) as nodes:
            processes = {f"node {n}": lambda node=node: cpu_of(node) for n, node in enumerate(nodes.all)}
            processes["PostgreSQL"] = engine.cpu
            if name == "one node":
                found[name] = per_token(nodes.all[0].port, processes, seconds)
            elif name == "owner and router":
                owned_by(nodes.all[0])
                processes = {"owner": processes["node 0"], "router": processes["node 1"], **processes}
                found[name] = per_token(nodes.all[1].port, processes, seconds)
            else:
                if name == "at random":
                    owned_by(*nodes.all)
                balance = "hash path,field(4,/)" if name == "hashed" else "roundrobin"
                with balanced(nodes, balance, folder) as (port, haproxy):
                    found[name] = per_token(port, {**processes, "HAProxy": haproxy}, seconds)
    return found


@contextmanager
def cluster(engine: Engine, folder: Path, count: int, *flags: str) -> Iterator[Nodes]:
    """Start nodes on a database of their own."""
    folder.mkdir()
    nodes = Nodes(folder, *FLAGS, *flags, server=engine.server)
    try:
        for _ in range(count):
            nodes.start()
        yield nodes
    finally:
        nodes.close()


# -- how long clients are away -----------------------------------------------------------------------------------------


async def takeovers(engine: Engine, folder: Path, times: int, *, freeze: bool = False) -> list[float]:
    """Return the seconds from each end of an owner until a client of another node has stored something again.

    Args:
        engine: the database.
        folder: for files.
        times: how often.
        freeze: whether owners sleep, and wake up afterwards; else they are killed.
    """
    found = []
    with cluster(engine, folder / ("freezes" if freeze else "takeovers"), 3) as nodes:
        async with connect(nodes.all[1].url, "room", name="client") as peer:
            for number in range(times):
                victim = nodes.all[-1]
                room = f"room-{number}"
                async with httpx.AsyncClient(base_url=victim.url, trust_env=False) as http:
                    (await http.post("/v1/sessions", json={"id": room})).raise_for_status()
                    (await http.get(f"/v1/sessions/{room}/messages")).raise_for_status()
                async with connect(nodes.all[1].url, room, name="client") as client:
                    await client.post("before")
                    begun = time.perf_counter()
                    if freeze:
                        os.kill(victim.child.pid, signal.SIGSTOP)
                    else:
                        victim.kill()
                    await asyncio.wait_for(client.post("after"), PATIENCE)
                    await asyncio.wait_for(client.durable(), PATIENCE)
                    found.append(time.perf_counter() - begun)
                if freeze:
                    os.kill(victim.child.pid, signal.SIGCONT)
                    victim.kill()
                nodes.all.remove(victim)
                nodes.start()
            await peer.post("still here")
    return found


def drained(engine: Engine, folder: Path, sessions: int, *flags: str) -> dict[str, float]:
    """Return how long a node takes to hand over sessions that are in use, and how long their clients are away."""
    with cluster(engine, folder / "drain", 2, *flags) as nodes:
        leaving, staying = nodes.all
        with leaving.http() as http:
            for number in range(sessions):
                http.post("/v1/sessions", json={"id": f"room-{number}"}).raise_for_status()
                http.get(f"/v1/sessions/room-{number}/messages").raise_for_status()
        command = [sys.executable, "-m", "tests.bench.returning", str(staying.port), str(sessions)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
            assert clients.stdin is not None
            assert clients.stdout is not None
            assert clients.stdout.readline() == "there\n"
            used, begun = cpu_of(staying), time.perf_counter()
            clients.stdin.write("\n")
            clients.stdin.flush()
            took = _ended(leaving) - begun
            away = json.loads(clients.stdout.readline())
            used = cpu_of(staying) - used
            clients.terminate()
    shares = {"away_p50_s": 0.5, "away_p99_s": 0.99, "away_max_s": 1}
    spread = {name: _of(away, share) for name, share in shares.items()}
    return {"drain_s": round(took, 2), **spread, "heir_ms_each": round(used / sessions * 1e3, 2)}


def _ended(node: Server) -> float:
    """Have a node end in good order; return when it had."""
    assert node.terminate() == 0
    return time.perf_counter()


def spread(values: list[float]) -> dict[str, float]:
    """Return how values are spread."""
    return {"p50": round(statistics.median(values), 3), "max": round(max(values), 3), "times": len(values)}


def _of(values: list[float], share: float) -> float:
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))], 3)


# -- all of it ---------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.nodes", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement of cost")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=300, help="that are handed over")
    asked = parser.parse_args()
    os.environ.setdefault("HYPOTHESIS_PROFILE", "dev")
    with tempfile.TemporaryDirectory() as name:
        folder, engine = Path(name), Engine()
        try:
            cost = costs(engine, folder, asked.seconds)
            away = asyncio.run(takeovers(engine, folder, asked.kills))
            frozen = asyncio.run(takeovers(engine, folder, asked.kills, freeze=True))
            drain = drained(engine, folder, asked.sessions)
        finally:
            engine.server.close()
    told = {
        "us_per_token": cost,
        "ratios": ratios(cost),
        "takeover_s": {"killed": spread(away), "frozen": spread(frozen)},
        "drain": {**drain, "sessions": asked.sessions},
    }
    print(json.dumps(told, indent=2))


def ratios(cost: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return how many times as much of the nodes' time each arrangement takes as the one before it."""

    def of(name: str) -> float:
        return sum(value for key, value in cost[name].items() if key.startswith("node"))

    against = {"one node": "SQLite", "hashed": "one node", "at random": "one node", "owner and router": "one node"}
    return {name: round(of(name) / of(base), 2) for name, base in against.items() if cost[name]}


if __name__ == "__main__":
    main()

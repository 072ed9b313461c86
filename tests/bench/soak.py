"""A steady load for as long as one likes, and what the service makes of it: ``make soak``.

Agents stream tokens, people read along, others come and go, sessions are made and left, rows are folded, somebody
follows the events. Each second the service's files, memory, descriptors and threads are looked at. In the end it is
killed with SIGKILL, started again, and asked for everything it has acknowledged.

What does not depend on the machine is required (:func:`problems`); delays are only told.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sqlite3
import struct
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket

from crdt_sessions.ids import Millis
from crdt_sessions.model import Author, MessageHead, PartStream
from crdt_sessions.sync import Replica
from crdt_sessions.wire import SyncStep1, encode
from tests.processes import Server

_MB = 1024 * 1024
_ANSWER = 200
"""Tokens of a message; then the agent begins another one."""
_LEAVING = 40
"""Sessions that may be on their way out of memory: a visit makes one, and they leave after two seconds."""
_TOKEN = re.compile(rb"#(\d+)\.")
_LAG = re.compile(r'^crdt_sessions_loop_lag_seconds_bucket\{le="([^"]+)"\} ([\d.]+)', re.M)
_LIVE = re.compile(r'^crdt_sessions_live\{tenant=""\} ([\d.]+)', re.M)


@dataclass(frozen=True)
class Load:
    """What is to be done to the service."""

    seconds: float = 600.0
    sessions: int = 20
    tokens_per_s: float = 20.0
    """Of each session's agent."""
    max_wal_bytes: int = 64 * _MB
    fold_rows: int = 2000


@dataclass
class Look:
    """The service at one moment."""

    wal_bytes: int
    wal_begun: int
    """How often the write-ahead log has begun anew."""
    database_bytes: int
    memory_bytes: int
    files: int
    threads: int


@dataclass
class Found:
    """What became of it."""

    looks: list[Look] = field(default_factory=list)
    acknowledged_s: list[float] = field(default_factory=list)
    """From each token's being sent until its author heard that it is durable."""
    read_s: list[float] = field(default_factory=list)
    """From each token's being sent until somebody else had it."""
    visits: int = 0
    lost: list[str] = field(default_factory=list)
    """What was acknowledged and is not there."""
    lag_s: dict[str, int] = field(default_factory=dict)
    """How often the service's loop was late by no more than so many seconds, as it says itself."""
    live: int = 0
    """Sessions in memory at the end."""
    folded: int = 0
    """Sessions that had a snapshot then."""
    wal_at_kill: int = 0
    restart_s: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Return everything in a few numbers."""
        first, last = self.looks[len(self.looks) // 4], self.looks[-1]
        return {
            "tokens": len(self.acknowledged_s),
            "visits": self.visits,
            "sessions": {"live": self.live, "folded": self.folded},
            "wal_mb": {"most": _mb(max(look.wal_bytes for look in self.looks)), "begun_anew": last.wal_begun},
            "database_mb": _mb(last.database_bytes),
            "memory_mb": {"first": _mb(first.memory_bytes), "last": _mb(last.memory_bytes)},
            "files": [first.files, max(look.files for look in self.looks), last.files],
            "threads": [first.threads, max(look.threads for look in self.looks), last.threads],
            "acknowledged_ms": _quantiles(self.acknowledged_s),
            "read_ms": _quantiles(self.read_s),
            "loop_late_by_at_most_s": self.lag_s,
            "killed_with_wal_mb": _mb(self.wal_at_kill),
            "restart_s": round(self.restart_s, 2),
            "lost": len(self.lost),
        }


def problems(load: Load, found: Found) -> list[str]:
    """Return what should not be, whatever the machine."""
    first, last = found.looks[len(found.looks) // 4], found.looks[-1]
    tokens = len(found.acknowledged_s)
    rules = {
        f"acknowledged, and not there any more: {found.lost[:5]}": not found.lost,
        f"the write-ahead log had {_mb(max(look.wal_bytes for look in found.looks))} MB": all(
            look.wal_bytes <= load.max_wal_bytes + _MB for look in found.looks
        ),
        # 250 bytes are a token's row and its share of five compressed versions; the rest is everything else.
        f"the database has {_mb(last.database_bytes)} MB": last.database_bytes < 4 * _MB + 250 * tokens,
        # The documents themselves grow.
        f"memory grew from {_mb(first.memory_bytes)} to {_mb(last.memory_bytes)} MB": last.memory_bytes
        < first.memory_bytes + 16 * _MB + 20 * tokens,
        f"open files: {first.files}, then {last.files}": last.files <= first.files + 5,
        f"threads: {first.threads}, then {last.threads}": last.threads <= first.threads + 2,
        "nobody came and went": found.visits > 0,
        f"{found.live} sessions are in memory: those that nobody uses are not unloaded": found.live
        <= load.sessions + _LEAVING,
        "no rows were folded": found.folded > 0 or tokens < 2 * load.fold_rows * load.sessions,
    }
    return [what for what, holds in rules.items() if not holds]


def _mb(size: float) -> float:
    return round(size / _MB, 1)


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds) or [0.0]
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 1)
        for name, share in {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}.items()
    }


# -- who takes part --------------------------------------------------------------------------------------------------


def _now() -> Millis:
    return Millis(int(time.time() * 1000))


class _Peer:
    """A replica on a socket."""

    _clients = 1000

    def __init__(self, url: str, session: str) -> None:
        type(self)._clients += 1
        self.session, self.url = session, f"{url}/{session}"
        self.replica = Replica(self._clients)
        self.socket: ClientConnection

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[None]:
        """Take part, from when all that is there has arrived."""
        async with open_websocket(
            self.url, max_size=None, compression=None, ping_interval=None, proxy=None
        ) as socket:
            self.socket = socket
            self.replica.open(_now())
            await self.send()
            reading = asyncio.create_task(self._read())
            try:
                while not self.replica.synced:
                    await asyncio.sleep(0.01)
                    if reading.done():
                        reading.result()
                        raise ConnectionError(f"closed with {socket.close_code} {socket.close_reason}")
                yield
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                self.replica.close()

    async def send(self) -> None:
        for frame in self.replica.take(_now()):
            await self.socket.send(frame)

    async def durable(self) -> None:
        while self.replica.durable < self.replica.version:
            await asyncio.sleep(0.01)

    async def _read(self) -> None:
        async for message in self.socket:
            assert isinstance(message, bytes)
            self.replica.receive(message, _now())
            self.heard()
            await self.send()

    def heard(self) -> None:
        """Look at what has arrived."""

    def tokens(self) -> set[int]:
        """Return the numbers of all tokens in the session."""
        text = "".join(message.text for message in self.replica.view.messages.ordered())
        return {int(number) for number in _TOKEN.findall(text.encode())}


class _Agent(_Peer):
    """Streams tokens, one message after the other, each token a transaction and sent at once."""

    def __init__(self, url: str, session: str, found: Found) -> None:
        super().__init__(url, session)
        self._found = found
        self.sent_at: list[float] = []
        self.acknowledged = 0
        """How many tokens are known to be durable."""
        self._waiting: deque[tuple[int, int]] = deque()  # version, tokens up to there

    async def stream(self, tokens_per_s: float, until: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        stream: PartStream | None = None
        while due < until:
            number = len(self.sent_at)
            if stream is None or number % _ANSWER == 0:
                stream = self.replica.edit(lambda view, number=number: self._begin(view, f"m{number}"))
            self.replica.edit(lambda _, text=f"#{number}.", stream=stream: stream.append(text))
            self.sent_at.append(loop.time())
            self._waiting.append((self.replica.version, number + 1))
            await self.send()
            due += 1 / tokens_per_s
            await asyncio.sleep(max(0.0, due - loop.time()))
        await self.durable()

    def _begin(self, view: Any, id: str) -> PartStream:
        author = Author(id="agent", name="agent", kind="agent")
        return view.messages.add(MessageHead(id=id, role="assistant", author=author, created_at=_now())).open_text()

    def heard(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._waiting and self._waiting[0][0] <= self.replica.durable:
            _, count = self._waiting.popleft()
            self._found.acknowledged_s += [now - at for at in self.sent_at[self.acknowledged : count]]
            self.acknowledged = count


async def _read_along(agent: _Agent, found: Found) -> None:
    """Note when tokens arrive, without a document."""
    loop = asyncio.get_running_loop()
    async with open_websocket(agent.url, max_size=None, compression=None, ping_interval=None, proxy=None) as socket:
        await socket.send(encode(SyncStep1(b"\x00")))
        seen = -1
        async for message in socket:
            assert isinstance(message, bytes)
            now = loop.time()
            for number in map(int, _TOKEN.findall(message)):
                if number > seen:
                    seen = number
                    found.read_s.append(now - agent.sent_at[number])


async def _follow_events(http: str, session: str) -> None:
    async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
        async with client.stream("GET", f"{http}/v1/sessions/{session}/events") as answer:
            async for _ in answer.aiter_bytes():
                pass


async def _come_and_go(url: str, agents: list[_Agent], found: Found) -> None:
    """Join each session in turn, read all that is there, leave; and each time leave a session of one's own behind."""
    while True:
        agent = agents[found.visits % len(agents)]
        known = agent.acknowledged
        reader = _Peer(url, agent.session)
        async with reader.joined():
            missing = set(range(known)) - reader.tokens()
            found.lost += [f"{agent.session} #{number} for a visitor" for number in missing]
        own = _Agent(url, f"visit-{found.visits}", Found())
        async with own.joined():
            await own.stream(200, asyncio.get_running_loop().time() + 0.5)
        found.visits += 1
        await asyncio.sleep(0.5)


# -- the service -----------------------------------------------------------------------------------------------------


def _look(server: Server) -> Look:
    process = Path(f"/proc/{server.child.pid}")
    status = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", process.joinpath("status").read_text(), re.M))
    wal = Path(f"{server.database}-wal")
    return Look(
        wal_bytes=wal.stat().st_size,
        wal_begun=_begun(wal),
        database_bytes=server.database.stat().st_size,
        memory_bytes=int(status["VmRSS"]) * 1024,
        files=len(list(process.joinpath("fd").iterdir())),
        threads=int(status["Threads"]),
    )


def _begun(wal: Path) -> int:
    """Return the checkpoint sequence number in the header of a write-ahead log. Source: sqlite.org/walformat.html."""
    with wal.open("rb") as file:
        header = file.read(16)
    return int(struct.unpack(">I", header[12:])[0]) if len(header) == 16 else 0


async def _watch(server: Server, found: Found) -> None:
    while True:
        found.looks.append(_look(server))
        await asyncio.sleep(1)


def _ask(server: Server, found: Found) -> None:
    """Note what the service and its database say of themselves."""
    with server.http() as http:
        said = http.get("/metrics").text
    found.lag_s = {bound: int(float(count)) for bound, count in _LAG.findall(said)}
    found.live = sum(int(float(count)) for count in _LIVE.findall(said))
    with contextlib.closing(sqlite3.connect(f"{server.database.as_uri()}?mode=ro", uri=True)) as connection:
        statement = "SELECT count(DISTINCT session) FROM snapshots WHERE session LIKE 'soak-%'"
        (found.folded,) = connection.execute(statement).fetchone()


async def _carry(server: Server, load: Load, found: Found) -> list[_Agent]:
    """Put the load on the service; return its agents, whose tokens are all acknowledged."""
    agents = [_Agent(server.ws, f"soak-{number}", found) for number in range(load.sessions)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(agent.joined()) for agent in agents))
        beside = [asyncio.create_task(_read_along(agent, found)) for agent in agents]
        beside += [asyncio.create_task(_follow_events(server.url, agent.session)) for agent in agents[:3]]
        beside += [
            asyncio.create_task(_come_and_go(server.ws, agents, found)),
            asyncio.create_task(_watch(server, found)),
        ]
        end = asyncio.get_running_loop().time() + load.seconds
        streams = asyncio.gather(*(agent.stream(load.tokens_per_s, end) for agent in agents))
        await asyncio.wait({streams, *beside}, return_when=asyncio.FIRST_COMPLETED)
        if not streams.done():
            streams.cancel()
        for task in beside:
            task.cancel()
        outcomes = await asyncio.gather(streams, *beside, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
    return agents


async def _missing(server: Server, agents: list[_Agent]) -> list[str]:
    lost: list[str] = []
    for agent in agents:
        reader = _Peer(server.ws, agent.session)
        async with reader.joined():
            lost += [f"{agent.session} #{number}" for number in set(range(agent.acknowledged)) - reader.tokens()]
    return lost


def soak(folder: Path, load: Load) -> Found:
    """Put *load* on a service whose database is in *folder*; return what became of it."""
    found = Found()
    flags = ["--default-agent", "", "--idle-unload-s", "2", "--snapshot-rows", str(load.fold_rows)]
    flags += ["--max-wal-bytes", str(load.max_wal_bytes)]
    flags += ["--max-lag-s", "1000"]  # nobody is told to come back later: how slow the machine is, is no matter here
    server = Server(folder / "soak.db", *flags)
    try:
        agents = asyncio.run(_carry(server, load, found))
        found.looks.append(_look(server))
        _ask(server, found)
        found.wal_at_kill = found.looks[-1].wal_bytes
        server.kill()
        begun = time.monotonic()
        server = server.again()
        found.restart_s = time.monotonic() - begun
        found.lost += asyncio.run(_missing(server, agents))
        with contextlib.closing(sqlite3.connect(server.database)) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    finally:
        server.close()
    return found


def main() -> None:
    """Soak, print the figures as JSON, and fail if something should not be."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=Load.seconds)
    parser.add_argument("--sessions", type=int, default=Load.sessions)
    parser.add_argument("--tokens-per-s", type=float, default=Load.tokens_per_s)
    parser.add_argument("--max-wal-bytes", type=int, default=Load.max_wal_bytes)
    parser.add_argument("--fold-rows", type=int, default=Load.fold_rows)
    load = Load(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), load)
    print(json.dumps(found.figures(), indent=2))
    for problem in (wrong := problems(load, found)):
        print(f"PROBLEM: {problem}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

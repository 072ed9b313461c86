"""The servers that are measured: ours, and those a user would otherwise take. Each is started with one command."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from tests.processes import free_port

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
_LIMITS = (
    "--messages-per-s", "1000000000", "--message-burst", "1000000000", "--max-lag-s", "1000",
    "--max-connections-per-session", "100000", "--max-sessions", "100000", "--max-connections", "100000",
)  # fmt: skip
"""The load is a flood, as it should be; the others have no limits either."""


class Stored(StrEnum):
    """When what a server is sent is on disk, which is what its figures have to be read with."""

    BEFORE = "before it is passed on"
    LATER = "later"
    NEVER = "never"


@dataclass(frozen=True)
class Peer:
    """A server to be measured.

    Args:
        name: for tables.
        command: returns what starts it, from a port and a path where it may keep its data.
        prefix: what stands before the session's name in the URL's path.
        stored: when what it is sent is on disk.
        dialect: which protocol the load is to speak.
        environment: returns what its environment has besides ours.
    """

    name: str
    command: Callable[[int, Path], list[str]]
    prefix: str = "/"
    stored: Stored = Stored.LATER
    dialect: str = "y-websocket"
    environment: Callable[[int, Path], dict[str, str]] = lambda port, data: {}

    @property
    def durable(self) -> bool:
        """Whether it keeps what it is sent."""
        return self.stored is not Stored.NEVER


def _node(script: str) -> Callable[[int, Path], list[str]]:
    return lambda port, data: ["node", str(HERE / "js" / script), str(port)]


def _stored(command: Callable[[int, Path], list[str]]) -> Callable[[int, Path], list[str]]:
    return lambda port, data: [*command(port, data), str(data)]


def _pycrdt(port: int, data: Path) -> list[str]:
    return [sys.executable, str(HERE / "pycrdt_server.py"), str(port)]


def _ours(port: int, data: Path) -> list[str]:
    return [
        sys.executable, "-m", "crdt_sessions_server", "serve", "--port", str(port), "--database", str(data),
        "--log-level", "error", "--default-agent", "", *_LIMITS,
    ]  # fmt: skip


def _y_environment(port: int, data: Path) -> dict[str, str]:
    return {"HOST": "127.0.0.1", "PORT": str(port)}


_Y = "node_modules/@y/websocket-server/src/server.js"

OURS = Peer("crdt-sessions", _ours, prefix="/v1/sync/", stored=Stored.BEFORE)
OURS_FOR_HOCUSPOCUS = replace(OURS, prefix="/v1/hocuspocus", dialect="hocuspocus")
"""The same, by the endpoint for Hocuspocus' clients."""
PEERS = (
    OURS,
    Peer("y-websocket", _node(_Y), stored=Stored.NEVER, environment=_y_environment),
    Peer(
        "y-websocket + leveldb",
        _node(_Y),
        environment=lambda port, data: {**_y_environment(port, data), "YPERSISTENCE": str(data)},
    ),
    Peer("Hocuspocus", _node("hocuspocus.mjs"), stored=Stored.NEVER, dialect="hocuspocus"),
    Peer("Hocuspocus + SQLite", _stored(_node("hocuspocus.mjs")), dialect="hocuspocus"),
    Peer("pycrdt-websocket + SQLite", _stored(_pycrdt)),
)
OF_HOCUSPOCUS = (OURS_FOR_HOCUSPOCUS, *(peer for peer in PEERS if peer.dialect == "hocuspocus"))
"""Those that clients of Hocuspocus can be pointed to."""
RELAY = Peer(
    "bare relay (C)", lambda port, data: [str(generator()), "relay", "--port", str(port)], stored=Stored.NEVER
)
"""No document and no disk: what the load generator itself can take in."""


class Running:
    """A server that runs, with all its processes."""

    def __init__(self, peer: Peer, port: int, child: subprocess.Popen[bytes]) -> None:
        self.peer = peer
        self.port = port
        self.child = child

    def cpu(self) -> float:
        """Return the seconds of processor time it has used."""
        used = 0.0
        for pid in self._processes():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                used += (int(fields[11]) + int(fields[12])) / _TICKS
        return used

    def memory(self) -> int:
        """Return the bytes of memory it holds."""
        held = 0
        for pid in self._processes():
            with contextlib.suppress(OSError):
                held += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        return held

    def _processes(self) -> list[int]:
        found = [self.child.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += [int(child) for child in task.read_text().split()]
        return found


@contextmanager
def running(peer: Peer, data: Path, port: int | None = None) -> Iterator[Running]:
    """Start *peer* with its data at *data*, and stop it in the end.

    Raises:
        RuntimeError: it does not start.
    """
    port = port or free_port()
    log = data.with_suffix(".log")
    with log.open("ab") as output:
        child = subprocess.Popen(
            peer.command(port, data),
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **peer.environment(port, data)},
        )
    try:
        _await_port(peer, port, child, log)
        yield Running(peer, port, child)
    finally:
        child.send_signal(signal.SIGTERM if peer is OURS else signal.SIGINT)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _await_port(peer: Peer, port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{peer.name} does not start:\n{log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)


def generator() -> Path:
    """Return the compiled load generator, compiled anew if its source has changed.

    Raises:
        RuntimeError: there is no C compiler.
    """
    source, program = HERE / "load.c", ROOT / "build" / "load"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        try:
            subprocess.run(["cc", "-O2", "-Wall", "-o", str(program), str(source)], check=True)
        except FileNotFoundError as error:
            raise RuntimeError(
                "the load generator needs a C compiler; on Debian: apt-get install gcc libc6-dev"
            ) from error
    return program

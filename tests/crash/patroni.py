"""A PostgreSQL that looks after itself, as operators run it: three servers, Patroni with each of them, and etcd."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import httpx

from tests.networks import missing, networks
from tests.postgres import USER, _installations
from tests.processes import PATIENCE, all_gone, free_port
from tests.proxy import Proxy

SERVERS = 3
TTL_S = 20
"""For how long the primary may be silent, and the least that Patroni takes."""
PROGRAMS = ("patroni", "etcd")
MISSING = [each for each in PROGRAMS if shutil.which(each) is None]
_DYNAMIC = {
    "ttl": TTL_S,
    "loop_wait": 2,
    "retry_timeout": 5,
    "synchronous_mode": True,
    "synchronous_mode_strict": True,
    "postgresql": {
        "use_pg_rewind": True,
        "parameters": {"max_connections": 80, "shared_buffers": "32MB", "wal_log_hints": "on"},
    },
}


class Patroni:
    """Three servers in strict synchronous mode.

    Each is in a place of its own where there can be networks; else each Patroni reaches etcd over a line of its own.
    """

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="patroni-"))
        self.folder.chmod(0o755)
        self._as = {"user": "nobody"} if os.getuid() == 0 else {}
        self._etcd = None
        self._stack = AsyncExitStack()
        self._lines = []
        """What is cut to cut a server off: its cable, or its line to etcd."""
        self._hosts = ["127.0.0.1"] * SERVERS
        self._inside = [()] * SERVERS
        self._running = [None] * SERVERS
        self.ports = [free_port() for _ in range(SERVERS)]
        self._rest = [free_port() for _ in range(SERVERS)]
        self._http = httpx.AsyncClient(trust_env=False, timeout=PATIENCE)

    async def __aenter__(self):
        etcd, peers = free_port(), free_port()
        self._etcd = self._popen(
            "etcd", "--data-dir", self.folder / "etcd", "--listen-client-urls", f"http://127.0.0.1:{etcd}",
            "--advertise-client-urls", f"http://127.0.0.1:{etcd}", "--listen-peer-urls", f"http://127.0.0.1:{peers}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peers}",
            "--initial-cluster", f"default=http://127.0.0.1:{peers}", log="etcd",
        )  # fmt: skip
        await self._until(lambda: self._answers(f"http://127.0.0.1:{etcd}/health"))
        lines = await self._lines_to(etcd)
        for at in range(SERVERS):
            self._configure(at, lines[at])
            self.start(at)
        await self.whole()
        return self

    async def __aexit__(self, *error):
        for process in (*self._running, self._etcd):
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        await self._stack.aclose()
        await self._http.aclose()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _lines_to(self, etcd):
        """Return where each Patroni finds etcd."""
        if missing():
            self._lines = [await self._stack.enter_async_context(Proxy(etcd)) for _ in range(SERVERS)]
            return [f"{line.host}:{line.port}" for line in self._lines]
        made = self._stack.enter_context(networks())
        network, places = made.network(), [made.place() for _ in range(SERVERS)]
        self._lines = [place.plug(network) for place in places]
        self._hosts = [network.address(2 + at) for at in range(SERVERS)]
        self._inside = [(f"--net={place.path}",) for place in places]
        line = await self._stack.enter_async_context(Proxy(etcd, host=network.address(1)))
        return [f"{line.host}:{line.port}"] * SERVERS

    def _popen(self, *command, log, **options):
        with (self.folder / f"{log}.log").open("ab") as file:
            return subprocess.Popen(
                [*map(str, command)], stdout=file, stderr=file, cwd="/", process_group=0, **options
            )

    def _configure(self, at, etcd):
        place = self.folder / f"pg{at}"
        place.mkdir()
        if self._as:
            shutil.chown(place, "nobody")
        trusted = [
            "local all all trust",
            *(
                f"host {what} all {net} trust"
                for what in ("all", "replication")
                for net in ("127.0.0.1/32", "10.0.0.0/8")
            ),
        ]
        host = self._hosts[at]
        password = {"password": "of-a-test"}
        said = {
            "scope": "sessions",
            "name": f"pg{at}",
            "restapi": {"listen": f"{host}:{self._rest[at]}", "connect_address": f"{host}:{self._rest[at]}"},
            "etcd3": {
                "hosts": [etcd],
                "use_proxies": True,
            },  # else it finds ways around
            "bootstrap": {"dcs": _DYNAMIC, "initdb": [{"encoding": "UTF8"}, {"locale": "C"}], "pg_hba": trusted},
            "postgresql": {
                "listen": f"{host}:{self.ports[at]}",
                "connect_address": f"{host}:{self.ports[at]}",
                "data_dir": str(place / "data"),
                "bin_dir": str(_installations()[15]),
                "pgpass": str(place / "pgpass"),
                "pg_hba": trusted,
                "parameters": {"unix_socket_directories": str(place)},
                "authentication": {
                    "superuser": {"username": USER, **password},
                    "replication": {"username": "replicator", **password},
                },
            },
        }
        (self.folder / f"pg{at}.yml").write_text(json.dumps(said))  # JSON is YAML

    def start(self, at):
        """Start Patroni, which starts its server."""
        command, config = ("patroni", self.folder / f"pg{at}.yml"), f"pg{at}"
        if self._inside[at]:  # into which only root may go
            as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
            self._running[at] = self._popen("nsenter", *self._inside[at], *as_nobody, *command, log=config)
        else:
            self._running[at] = self._popen(*command, log=config, **self._as)

    def url(self, database="postgres"):
        """Return the address of a database, on whichever server takes writes."""
        hosts = ",".join(f"{host}:{port}" for host, port in zip(self._hosts, self.ports, strict=True))
        return f"postgresql://{USER}@{hosts}/{database}?target_session_attrs=read-write"

    async def _sql(self, statement, database):
        connection = await asyncpg.connect(self.url(database))
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    def sql(self, statement, database="postgres"):
        """Execute a statement on the primary; call it where there is no loop."""
        return asyncio.run(self._sql(statement, database))

    async def _answers(self, url):
        with contextlib.suppress(httpx.HTTPError):
            return (await self._http.get(url)).status_code == 200

    async def _until(self, condition):
        until = time.monotonic() + 3 * PATIENCE
        while not (found := await condition()):
            assert time.monotonic() < until, self.logs()
            await asyncio.sleep(0.1)
        return found

    def logs(self):
        """Return what was said last."""
        return {path.name: path.read_text()[-1500:] for path in self.folder.glob("*.log")}

    async def _members(self):
        for host, port in zip(self._hosts, self._rest, strict=True):
            with contextlib.suppress(httpx.HTTPError):
                return (await self._http.get(f"http://{host}:{port}/cluster", timeout=5)).json()["members"]
        return []

    async def whole(self):
        """Return the number of the primary once all three are there, and commits wait for one of the others."""

        async def found():
            members = await self._members()
            roles = {each["name"]: each["role"] for each in members if each["state"] in ("running", "streaming")}
            if sorted(roles.values()) == ["leader", "replica", "sync_standby"]:
                return next(name for name, role in roles.items() if role == "leader")
            return None

        return int((await self._until(found)).removeprefix("pg"))

    # -- what goes wrong -----------------------------------------------------------------------------------------

    async def kill(self, at):
        """Lose the machine of a server; return what brings it back."""
        process = self._running[at]
        data = self.folder / f"pg{at}" / "data"
        postmaster = int((data / "postmaster.pid").read_text().split()[0])
        children = [*map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split())]
        for pid in (process.pid, postmaster):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        assert await asyncio.to_thread(all_gone, [*children, postmaster])
        return lambda: self.start(at)

    async def switch_over(self, at):
        """Have another server be the primary, by command."""
        said = await self._http.post(
            f"http://{self._hosts[at]}:{self._rest[at]}/switchover", json={"leader": f"pg{at}"}
        )
        assert said.status_code == 200, said.text
        return lambda: None

    async def cut_off(self, at):
        """Have nobody reach a server, and it nobody; or have its Patroni not reach etcd. Return what mends it."""
        self._lines[at].cut()
        return self._lines[at].heal

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
from pathlib import Path

import asyncpg
import httpx

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
    """Three servers in strict synchronous mode. Each Patroni reaches etcd over a line of its own."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="patroni-"))
        self.folder.chmod(0o755)
        self._as = {"user": "nobody"} if os.getuid() == 0 else {}
        self._etcd = None
        self._line = []
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
        for at in range(SERVERS):
            self._line.append(await Proxy(etcd).__aenter__())
            self._configure(at)
            self.start(at)
        await self.whole()
        return self

    async def __aexit__(self, *error):
        for process in (*self._running, self._etcd):
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for line in self._line:
            await line.__aexit__()
        await self._http.aclose()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _popen(self, *command, log, **options):
        with (self.folder / f"{log}.log").open("ab") as file:
            return subprocess.Popen(
                [*map(str, command)], stdout=file, stderr=file, cwd="/", process_group=0, **options
            )

    def _configure(self, at):
        place = self.folder / f"pg{at}"
        place.mkdir()
        if self._as:
            shutil.chown(place, "nobody")
        trusted = [
            "local all all trust",
            "host all all 127.0.0.1/32 trust",
            "host replication all 127.0.0.1/32 trust",
        ]
        password = {"password": "of-a-test"}
        said = {
            "scope": "sessions",
            "name": f"pg{at}",
            "restapi": {"listen": f"127.0.0.1:{self._rest[at]}", "connect_address": f"127.0.0.1:{self._rest[at]}"},
            "etcd3": {
                "hosts": [f"127.0.0.1:{self._line[at].port}"],
                "use_proxies": True,
            },  # else it finds ways around
            "bootstrap": {"dcs": _DYNAMIC, "initdb": [{"encoding": "UTF8"}, {"locale": "C"}], "pg_hba": trusted},
            "postgresql": {
                "listen": f"127.0.0.1:{self.ports[at]}",
                "connect_address": f"127.0.0.1:{self.ports[at]}",
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
        self._running[at] = self._popen("patroni", self.folder / f"pg{at}.yml", log=f"pg{at}", **self._as)

    def url(self, database="postgres"):
        """Return the address of a database, on whichever server takes writes."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
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
        for port in self._rest:
            with contextlib.suppress(httpx.HTTPError):
                return (await self._http.get(f"http://127.0.0.1:{port}/cluster")).json()["members"]
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
        said = await self._http.post(f"http://127.0.0.1:{self._rest[at]}/switchover", json={"leader": f"pg{at}"})
        assert said.status_code == 200, said.text
        return lambda: None

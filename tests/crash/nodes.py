"""Nodes on a real PostgreSQL that is replicated, lines between them all that can be cut, and clients."""

import asyncio
import os
import random
import shutil
import signal
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from examples.cluster_demo import spread
from tests.crash.clients import Clients
from tests.crash.histories import check_commits, check_owners, check_runs
from tests.crash.lines import lines
from tests.processes import Server, free_port

NODES = 3
FLAGS = ("--no-sandbox", "--default-agent", "", "--snapshot-rows", "25", "--idle-unload-s", "600")
_WATCH = """
CREATE SEQUENCE crdt_sessions.places;
CREATE TABLE crdt_sessions.watched_rows (place bigint, sid bigint, seq bigint, node bigint);
CREATE TABLE crdt_sessions.watched_fences (place bigint, node bigint);
CREATE TABLE crdt_sessions.watched_runs (place bigint, session text, run text, epoch bigint, status text);
CREATE FUNCTION crdt_sessions.watch_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO crdt_sessions.watched_rows VALUES (nextval('crdt_sessions.places'), NEW.sid, NEW.seq,
        substr(current_setting('application_name'), 15)::bigint);
    RETURN NULL;
END $$;
CREATE FUNCTION crdt_sessions.watch_fence() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO crdt_sessions.watched_fences VALUES (nextval('crdt_sessions.places'), NEW.node);
    RETURN NULL;
END $$;
CREATE FUNCTION crdt_sessions.watch_run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO crdt_sessions.watched_runs VALUES (nextval('crdt_sessions.places'), NEW.session, NEW.id,
        (NEW.data::jsonb ->> 'epoch')::bigint, NEW.status);
    RETURN NULL;
END $$;
CREATE TRIGGER watch AFTER INSERT ON crdt_sessions.updates FOR EACH ROW EXECUTE FUNCTION crdt_sessions.watch_row();
CREATE TRIGGER watch AFTER UPDATE OF gone ON crdt_sessions.nodes FOR EACH ROW WHEN (NEW.gone)
    EXECUTE FUNCTION crdt_sessions.watch_fence();
CREATE TRIGGER watch AFTER INSERT OR UPDATE ON crdt_sessions.runs FOR EACH ROW
    EXECUTE FUNCTION crdt_sessions.watch_run();
"""
"""The database itself notes who wrote what, and when nodes were fenced, in one order."""


async def all_of(starting):
    """Wait for all of them, and then raise if one has failed: a node that is still being started cannot be ended."""
    for done in await asyncio.gather(*starting, return_exceptions=True):
        if isinstance(done, BaseException):
            raise done


class World:
    """Nodes, a database and clients.

    The first node knows both servers and goes to the one that takes writes. The others reach that one by a line of
    their own, as through a balancer, and nodes reach each other by lines, too.

    Args:
        postgres: two servers, a :class:`~tests.postgres.Pair`.
        database: the name of an empty database on it.
        folder: for files.
        number: the seed of what happens.
        flags: of the nodes.
        count: how many nodes there are.
    """

    def __init__(self, postgres, database, folder, number, *flags, count=NODES):
        self.postgres, self.database, self.folder, self.flags = postgres, database, folder, flags
        self.count = count
        self.rng = random.Random(number)
        self.ports = [free_port() for _ in range(count)]
        self.nodes = [None] * count
        self.said = []
        """What nodes logged that are no more."""
        self.lines = lines(postgres, database, self.ports, [free_port() for _ in range(count)])
        """Between nodes, and to the database."""
        self._secret = Path(tempfile.mkdtemp(prefix="nodes-")) / "secret"
        self._secret.write_text("x" * 64)
        self._stack = AsyncExitStack()
        self._stack.callback(shutil.rmtree, self._secret.parent, ignore_errors=True)
        port = free_port()
        self.clients = Clients(f"http://127.0.0.1:{port}", number)
        self.history = self.clients.history
        self._port = port

    async def __aenter__(self):
        async with self._stack as begun:  # if not everything can be, what was begun is ended
            begun.callback(self._close_nodes)
            await begun.enter_async_context(self.lines)
            await self.start(0)
            await all_of(self.start(at) for at in range(1, self.count))
            for statement in _WATCH.split(";\nCREATE"):  # a function's body has semicolons, but none of these
                words = statement.strip().rstrip(";")
                await self.sql(words if words.startswith("CREATE") else f"CREATE {words}")
            await begun.enter_async_context(spread(self._port, self.lines.fronts, self.folder))
            await begun.enter_async_context(self.clients)
            self._stack = begun.pop_all()
        return self

    async def __aexit__(self, kind, *error):
        if kind is not None:
            self._show_what_was_said()
        await self._stack.aclose()

    def _close_nodes(self):
        for node in self.nodes:
            if node is not None:
                with suppress(ProcessLookupError):
                    os.kill(node.child.pid, signal.SIGCONT)
                node.close()

    def _show_what_was_said(self):
        """Print the ends of what nodes and servers have logged: all of it is removed."""
        said = {f"node {at}": node.lines for at, node in enumerate(self.nodes) if node is not None}
        said |= {"nodes before": self.said}
        said |= {name: text.splitlines() for name, text in self.postgres.logs().items()}
        for name, lines_of in said.items():
            print(f"-- {name}", *lines_of[-60:], sep="\n")

    async def sql(self, statement):
        """Execute a statement on the primary."""
        return await asyncio.to_thread(self.postgres.sql, statement, database=self.database)

    async def start(self, at, *, fork=True, **env):
        """Start a node."""
        listen, address = self.lines.between(at)
        between = ("--cluster-listen", listen, "--cluster-address", address, "--cluster-secret-file", self._secret)
        self.nodes[at] = await asyncio.to_thread(
            Server, self.lines.url(at), *FLAGS, *between, *self.flags,
            port=self.ports[at], env={**env, **self.lines.env(at)}, fork=fork,
        )  # fmt: skip

    async def again(self, at, **how):
        """Start a node anew that has died, or kill it first."""
        await asyncio.to_thread(self.nodes[at].close)
        self.said += self.nodes[at].lines
        await self.start(at, **how)

    def redirect(self):
        """Have lines to the database lead to the server that is the primary now."""
        self.lines.redirect()

    async def check(self):
        """Have clients rest, and check what is there: through the nodes, in the database, and who wrote it."""
        await self.clients.rest()
        await self.clients.check()
        rows = await self.sql("SELECT place, sid, seq, node FROM crdt_sessions.watched_rows")
        fences = {
            node: place for place, node in await self.sql("SELECT place, node FROM crdt_sessions.watched_fences")
        }
        check_commits(rows, fences, self.history)
        check_owners(rows, self.history)
        check_runs(await self.sql("SELECT * FROM crdt_sessions.watched_runs"), self.history)
        failed = [line for line in self.logged() if "Traceback" in line]
        assert not failed, f"{failed}; {self.history}"
        return len(rows)

    def logged(self):
        """Return what all nodes have logged."""
        return [*self.said, *(line for node in self.nodes for line in node.lines)]

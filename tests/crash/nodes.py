"""Three nodes on a real PostgreSQL, what goes wrong with them, and clients that note what they have seen."""

import asyncio
import os
import random
import shutil
import signal
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from crdt_sessions import connect
from crdt_sessions.errors import NotAnswered
from crdt_sessions.failpoints import NAMES
from examples.cluster_demo import spread
from tests.agents import working
from tests.crash.histories import History, check_commits, check_epochs, check_owners, check_tokens
from tests.processes import PATIENCE, Server, attempts, free_port

NODES = 3
SESSIONS = ("room-0", "room-1")
ASKED = "asked"
"""The session in which an agent answers."""
FLAGS = ("--no-sandbox", "--default-agent", "", "--snapshot-rows", "25", "--idle-unload-s", "600")
POINTS = [
    name for name in NAMES if name in ("before-append", "before-commit", "after-commit", "snapshot", "truncate")
]
_WATCH = """
CREATE SEQUENCE crdt_sessions.places;
CREATE TABLE crdt_sessions.watched_rows (place bigint, sid bigint, seq bigint, node bigint);
CREATE TABLE crdt_sessions.watched_fences (place bigint, node bigint);
CREATE TABLE crdt_sessions.watched_runs (place bigint, session text, run text, epoch bigint);
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
        (NEW.data::jsonb ->> 'epoch')::bigint);
    RETURN NULL;
END $$;
CREATE TRIGGER watch AFTER INSERT ON crdt_sessions.updates FOR EACH ROW EXECUTE FUNCTION crdt_sessions.watch_row();
CREATE TRIGGER watch AFTER UPDATE OF gone ON crdt_sessions.nodes FOR EACH ROW WHEN (NEW.gone)
    EXECUTE FUNCTION crdt_sessions.watch_fence();
CREATE TRIGGER watch AFTER INSERT OR UPDATE ON crdt_sessions.runs FOR EACH ROW
    EXECUTE FUNCTION crdt_sessions.watch_run();
"""
"""The database itself notes who wrote what, and when nodes were fenced, in one order."""


def _said(question):
    return f"{question} is answered by six words"


async def _answer(run):
    """Answer; where another attempt has written some of it, go on."""
    before = run.out.message
    await run.out.write(_said(run.message.text)[len(before.text if before is not None else "") :])


class World:
    """Nodes, a database and clients.

    Args:
        postgres: the server.
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
        self.history = History(number)
        self.ports = [free_port() for _ in range(count)]
        self.nodes = [None] * count
        self.inside = Path(tempfile.mkdtemp(prefix="nodes-"))
        """Where nodes reach each other: the name of a socket must be short."""
        (self.inside / "secret").write_text("x" * 64)
        self._stack = AsyncExitStack()
        self._stack.callback(shutil.rmtree, self.inside, ignore_errors=True)
        self._writers = []
        self.answers = []
        """Of the agent: the message's id, what the asker saw of it when it was over, and the question."""

    async def __aenter__(self):
        for at in range(self.count):
            await self.start(at)
        for statement in _WATCH.split(";\nCREATE"):  # a function's body has semicolons, but none of these
            words = statement.strip().rstrip(";")
            self.sql(words if words.startswith("CREATE") else f"CREATE {words}")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        await self._stack.enter_async_context(spread(port, self.ports, self.folder))
        for session in SESSIONS:
            for name in "ab":
                peer = await self._stack.enter_async_context(connect(self.url, session, name=name))
                self._writers.append(asyncio.create_task(self._write(peer, f"{session}/{name}")))
        await self._stack.enter_async_context(working(self.url, _answer, shutdown_s=0.2))
        asker = await self._stack.enter_async_context(connect(self.url, ASKED, name="asker"))
        self._writers.append(asyncio.create_task(self._ask(asker)))
        return self

    async def __aexit__(self, *error):
        await self.rest()
        await self._stack.aclose()
        for node in self.nodes:
            if node is not None:
                with suppress(ProcessLookupError):
                    os.kill(node.child.pid, signal.SIGCONT)
                node.close()

    async def _write(self, peer, name):
        for number in range(1_000_000):
            token = f"{name}-{number}"
            self.history.invoked.append(token)
            await peer.post(token, id=token.replace("/", "."))
            self.history.ok.append(token)

    async def _ask(self, peer):
        """Ask one question after the other, and note those of which the answer was there."""
        for number in range(1_000_000):
            asked = await peer.post(f"question {number}", id=f"q{number}", agent="writer")
            try:
                answer = await peer.messages.answer_to(asked)
            except NotAnswered:  # its agent was thought lost too often
                continue
            self.answers.append((answer.id, answer.text, f"question {number}"))

    def sql(self, statement):
        return self.postgres.sql(statement, database=self.database)

    async def start(self, at, **env):
        between = ("--cluster-listen", f"unix:{self.inside}/{at}", "--cluster-secret-file", self.inside / "secret")
        flags = (*FLAGS, *between, *self.flags)
        self.nodes[at] = await asyncio.to_thread(
            Server, self.postgres.url(self.database), *flags, port=self.ports[at], env=env
        )

    async def again(self, at):
        """Start a node anew that has died, or kill it first."""
        await asyncio.to_thread(self.nodes[at].close)
        await self.start(at)

    async def progress(self):
        """Return once each writer has had something acknowledged from now on."""
        before = dict.fromkeys((task.get_name() for task in self._writers), 0)
        counts = self._counts()
        assert before
        for _ in attempts():
            if all(count > counts.get(name, 0) for name, count in self._counts().items()) and self._counts():
                return
            for task in self._writers:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)
        raise AssertionError(f"somebody is not acknowledged any more; {self.history}")

    def _counts(self):
        counts = {f"{session}/{name}": 0 for session in SESSIONS for name in "ab"}
        for token in self.history.ok:
            counts[token.rsplit("-", 1)[0]] += 1
        return counts

    # -- what goes wrong -----------------------------------------------------------------------------------------

    async def harm(self, fault):
        """Have something go wrong, and return once everybody is served again."""
        self.history.faults.append(fault)
        await getattr(self, f"_{fault}")(self.rng.randrange(self.count))
        await self.progress()

    async def _kill(self, at):
        await asyncio.sleep(self.rng.uniform(0, 0.2))
        os.kill(self.nodes[at].child.pid, signal.SIGKILL)
        await self.progress()  # without it
        await self.again(at)

    async def _die_at_a_point(self, at):
        """Every node has the point armed, since it is not known which of them writes."""
        point = f"{self.rng.choice(POINTS)}:{self.rng.randint(1, 5)}"
        self.history.faults[-1] += f" {point}"
        await asyncio.to_thread(self.nodes[at].close)
        await self.start(at, CRDT_SESSIONS_FAILPOINTS=point)
        others = [each for each in range(self.count) if each != at]
        for each in others:  # so that the armed one gets all sessions
            os.kill(self.nodes[each].child.pid, signal.SIGKILL)
        await asyncio.to_thread(self.nodes[at].child.wait, PATIENCE)
        for each in (*others, at):
            await self.again(each)

    async def _sleep(self, at):
        os.kill(self.nodes[at].child.pid, signal.SIGSTOP)
        await asyncio.sleep(self.rng.choice((0.5, 7.0)))  # shorter and longer than it takes to count as gone
        os.kill(self.nodes[at].child.pid, signal.SIGCONT)

    async def _end_connections(self, _):
        self._backends("pg_terminate_backend")

    async def _cancel_statements(self, _):
        for _ in range(20):
            self._backends("pg_cancel_backend")
            await asyncio.sleep(0.01)

    def _backends(self, what):
        self.sql(
            f"SELECT {what}(pid) FROM pg_stat_activity WHERE application_name LIKE 'crdt-sessions%'"
            f" AND datname = '{self.database}'"
        )

    async def _kill_postgres(self, _):
        await asyncio.to_thread(self.postgres.kill)
        await asyncio.sleep(self.rng.uniform(0, 0.5))
        await asyncio.to_thread(self.postgres.start)

    async def _fail_over(self, _):
        await asyncio.to_thread(self.postgres.fail_over)

    async def _fail_over_behind(self, _):
        """The standby that takes over has not seen the last of what was acknowledged."""
        await asyncio.to_thread(self.postgres.standby.kill)
        await self.progress()
        await asyncio.to_thread(self.postgres.primary.kill)
        await asyncio.to_thread(self.postgres.standby.start)
        await asyncio.to_thread(self.postgres.fail_over)

    # -- in the end ----------------------------------------------------------------------------------------------

    async def rest(self):
        """Have writers write no more."""
        for task in self._writers:
            task.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)

    async def check(self):
        """Have writers rest, and check what is there: through the nodes, in the database, and who wrote it."""
        await self.rest()
        await self.check_tokens()
        async with connect(self.url, ASKED, name="reader") as reader:
            there = {message.id: message.text for message in reader.messages.all()}
            for id, seen, question in self.answers:
                assert seen == there[id] == _said(question), f"{id} is {there[id]!r}, was {seen!r}; {self.history}"
        rows = self.sql("SELECT place, sid, seq, node FROM crdt_sessions.watched_rows")
        fences = {node: place for place, node in self.sql("SELECT place, node FROM crdt_sessions.watched_fences")}
        check_commits(rows, fences, self.history)
        check_owners(rows, self.history)
        check_epochs(self.sql("SELECT * FROM crdt_sessions.watched_runs"), self.history)
        return len(rows)

    async def check_tokens(self):
        """Check what clients wrote, as a new one sees it."""
        for session in SESSIONS:
            own = History(
                self.history.seed,
                [each for each in self.history.invoked if each.startswith(f"{session}/")],
                [each for each in self.history.ok if each.startswith(f"{session}/")],
                self.history.faults,
            )
            async with connect(self.url, session, name="reader") as reader:
                check_tokens(own, [message.text for message in reader.messages.all()])


FAULTS = ("kill", "end_connections", "die_at_a_point", "cancel_statements", "kill_postgres", "sleep")

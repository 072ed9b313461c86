"""What goes wrong with nodes and their database: one thing after the other, and several at once."""

import asyncio
import ctypes
import errno
import os
import shutil
import signal
import tempfile
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import asyncpg

from crdt_sessions.failpoints import NAMES
from tests.processes import PATIENCE, all_gone

POINTS = [
    name
    for name in NAMES
    if name in ("acquired", "before-append", "before-commit", "after-commit", "snapshot", "truncate")
]
BRIEF = (
    "kill", "die_at_a_point", "roll", "nap", "end_connections", "cancel_statements", "kill_postgres",
    "freeze_postgres", "freeze_standby", "fail_over", "set_clock", "fill_disk",
)  # fmt: skip
"""Faults that are over when they have been made."""
LASTING = ("freeze", "cut_from_database", "cut_from_nodes")
"""Faults that last for longer than it takes to count as gone, or not; others come meanwhile."""
_LASTS_S = (1.5, 6.5)
_FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
_MEANWHILE = 2
_DISK = 1 << 30


def schedule(rng, brief):
    """Yield what comes together: a fault alone, or one that lasts and those that come meanwhile.

    In a round each kind comes once.

    Args:
        rng: the source of their order.
        brief: those of :data:`BRIEF` that can be made.
    """
    while True:
        alone = [fault for fault in brief if fault == "roll"]  # of it more is asked if nothing else happens
        others = rng.sample([fault for fault in brief if fault not in alone], len(brief) - len(alone))
        groups = [[lasting, *(others.pop() for _ in range(_MEANWHILE))] for lasting in LASTING]
        groups += [[fault] for fault in (*others, *alone)]
        yield from rng.sample(groups, len(groups))


def faults(rng, count, brief):
    """Return the beginning of a schedule that has so many faults, or one or two more."""
    found = []
    for together in schedule(rng, brief):
        found.append(together)
        if sum(map(len, found)) >= count:
            return found


@contextmanager
def small_disk():
    """Yield a folder on a disk of its own, which can be filled; None if that takes rights that one has not."""
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    folder.chmod(0o755)
    libc = ctypes.CDLL(None, use_errno=True)
    mounted = libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=%d,mode=755" % _DISK) == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            libc.umount2(bytes(folder), 2)  # at once, and in fact when nobody uses it any more
        folder.rmdir()


class Nemesis:
    """Has things go wrong.

    Args:
        world: in which.
        disk: the folder on which the database is, if it may be filled.
    """

    def __init__(self, world, disk=None):
        self.world, self.rng, self.disk = world, world.rng, disk
        self.brief = [
            each for each in BRIEF if {"set_clock": _FAKETIME, "fill_disk": disk}.get(each, True) is not None
        ]
        """What can be made here of faults that are over at once."""
        self.counts = {}
        """Of faults, by kind."""
        self._away, self._cut_off = set(), set()
        self._clock = world.folder / "clock"

    async def harm(self, *together):
        """Have things go wrong, and return once everybody is served again."""
        first, *others = together
        if first in LASTING:
            at = self.rng.randrange(first == "cut_from_database", self.world.count)
            self._note(first, at)
            until = asyncio.get_running_loop().time() + self.rng.choice(_LASTS_S)
            self._away.add(at)
            self._cut_off = {at} if first == "cut_from_nodes" else set()
            async with getattr(self, f"_{first}")(at):
                for fault in others:
                    await self._strike(fault)
                await asyncio.sleep(until - asyncio.get_running_loop().time())
            self._away.clear()
            self._cut_off.clear()
        else:
            await self._strike(first)
        await self.world.clients.progress()

    async def _strike(self, fault):
        at = self.rng.choice(self._there())
        self._note(fault, at)
        await getattr(self, f"_{fault}")(at)

    def _note(self, fault, at):
        self.counts[fault] = self.counts.get(fault, 0) + 1
        self.world.history.faults.append(f"{fault} {at}")

    def _there(self):
        return [at for at in range(self.world.count) if at not in self._away]

    async def _served(self):
        """Return once the others serve everybody; those who came to one that sleeps cannot know yet."""
        if not self._away:
            await self.world.clients.progress()

    def _signal(self, at, number):
        os.kill(self.world.nodes[at].child.pid, number)

    # -- nodes ---------------------------------------------------------------------------------------------------

    async def _kill(self, at):
        await asyncio.sleep(self.rng.uniform(0, 0.2))
        self._signal(at, signal.SIGKILL)
        await self._served()
        await self.world.again(at)

    async def _die_at_a_point(self, at):
        """The others die first, so that the armed one gets their sessions; also one that is cut off and keeps them."""
        point = f"{self.rng.choice(POINTS)}:{self.rng.randint(1, 3)}"
        self.world.history.faults[-1] += f" {point}"
        await self.world.again(at, CRDT_SESSIONS_FAILPOINTS=point)
        others = [each for each in {*self._there(), *self._cut_off} if each != at]
        for each in others:
            self._signal(each, signal.SIGKILL)
        await asyncio.to_thread(self.world.nodes[at].child.wait, PATIENCE)
        await asyncio.gather(*(self.world.again(each) for each in (*others, at)))

    async def _roll(self, _):
        """Renew all nodes in good order while a long answer is written: its agent keeps its run."""
        number = await self.world.clients.answering(60)
        before = await self._epoch(number)
        for at in self._there():
            assert await asyncio.to_thread(self.world.nodes[at].terminate) == 0
            await self.world.again(at)
        await self._served()
        after = await self._epoch(number)
        assert after == before, f"question {number} was answered by another attempt; {self.world.history}"

    async def _epoch(self, question):
        """Return which attempt answers a question."""
        select = "SELECT max(epoch) FROM crdt_sessions.watched_runs"
        return await self.world.sql(f"{select} WHERE run LIKE '%q{question}'")

    async def _nap(self, at):
        self._signal(at, signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(0, 1))
        self._signal(at, signal.SIGCONT)

    @asynccontextmanager
    async def _freeze(self, at):
        self._signal(at, signal.SIGSTOP)
        yield
        self._signal(at, signal.SIGCONT)

    async def _set_clock(self, at):
        """Start a node whose clock is an hour off, then set it to the other side."""
        off = self.rng.choice((-3600, 3600))
        self._clock.write_text(f"{off:+d}")
        await self.world.again(
            at, fork=False, LD_PRELOAD=str(_FAKETIME), FAKETIME_TIMESTAMP_FILE=str(self._clock),
            FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1",
        )  # fmt: skip
        await self._served()
        self._clock.write_text(f"{-off:+d}")
        await self._served()
        await self.world.again(at)

    # -- lines ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _cut_from_database(self, at):
        """Nothing arrives on either side, or what the database says still does."""
        mend = self.world.lines.cut_from_database(at, one_way=self.rng.random() < 0.5)
        yield
        mend()

    @asynccontextmanager
    async def _cut_from_nodes(self, at):
        """The other nodes do not reach this one."""
        mend = self.world.lines.cut_from_nodes(at, one_way=self.rng.random() < 0.5)
        yield
        mend()

    # -- the database --------------------------------------------------------------------------------------------

    async def _end_connections(self, _):
        await self._backends("pg_terminate_backend")

    async def _cancel_statements(self, _):
        for _ in range(10):
            await self._backends("pg_cancel_backend")

    async def _backends(self, what):
        await self.world.sql(
            f"SELECT {what}(pid) FROM pg_stat_activity WHERE application_name LIKE 'crdt-sessions%'"
            f" AND datname = '{self.world.database}'"
        )

    async def _kill_postgres(self, _):
        primary = self.world.postgres.primary
        processes = primary.processes()
        primary.process.kill()
        await asyncio.to_thread(primary.process.wait, PATIENCE)
        assert await asyncio.to_thread(
            all_gone, processes
        )  # they see that they are alone, and hold its memory till then
        await asyncio.sleep(self.rng.uniform(0, 0.5))
        await asyncio.to_thread(primary.start)

    async def _freeze_postgres(self, _):
        await self._hold(self.world.postgres.primary)

    async def _freeze_standby(self, _):
        await self._hold(self.world.postgres.standby)

    async def _hold(self, server):
        processes = server.processes()
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            await asyncio.sleep(self.rng.uniform(0.2, 1.5) * (number == signal.SIGSTOP))

    async def _fail_over(self, _):
        await asyncio.to_thread(self.world.postgres.fail_over, self.world.redirect)

    async def fail_over_behind(self):
        """Lose the primary; the standby that takes over has not seen the last of what was acknowledged."""
        postgres = self.world.postgres
        self._note("fail_over_behind", 0)
        await asyncio.to_thread(postgres.standby.kill)
        await self.world.clients.progress()
        await asyncio.to_thread(postgres.primary.kill)
        await asyncio.to_thread(postgres.standby.start)
        await asyncio.to_thread(postgres.fail_over, self.world.redirect)
        await self.world.clients.progress()

    async def _fill_disk(self, _):
        """Leave no room for the next file of the log."""
        full = self.disk / "full"
        with full.open("wb") as file:
            size = shutil.disk_usage(self.disk).free
            while size > 4096:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2
        for _ in range(5):
            with suppress(asyncpg.PostgresError, OSError):
                await self.world.sql("SELECT pg_switch_wal()")
            await asyncio.sleep(0.1)
        full.unlink()
        for server in (self.world.postgres.primary, self.world.postgres.standby):
            if await asyncio.to_thread(server.revive):
                self.world.history.faults[-1] += " (PostgreSQL hung)"

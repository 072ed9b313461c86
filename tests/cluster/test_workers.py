"""``serve --workers N``: several nodes on one port by one command, which looks after them."""

import asyncio
import errno
import itertools
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from crdt_sessions import connect
from crdt_sessions_server import workers as workers_module
from crdt_sessions_server.settings import Settings
from crdt_sessions_server.workers import ANNOUNCED, Worker, Workers
from tests.postgres import VERSIONS, needs_postgres, shared_server
from tests.processes import PATIENCE, Server, all_gone, attempts, command

pytestmark = [pytest.mark.processes, needs_postgres]

FLAGS = ("--no-sandbox", "--default-agent", "", "--workers", "2")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def database():
    server, name = shared_server(VERSIONS[-1]), f"workers{next(_numbers)}_{os.getpid()}"
    server.sql(f"CREATE DATABASE {name}")
    return name


@pytest.fixture(scope="module")
def service(database):
    process = Server(shared_server(VERSIONS[-1]).url(database), *FLAGS)
    yield process
    process.close()


def pids(service):
    """Return the workers' processes."""
    children = Path(f"/proc/{service.child.pid}/task/{service.child.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def owners(database):
    found = shared_server(VERSIONS[-1]).sql("SELECT DISTINCT owner FROM crdt_sessions.sessions", database=database)
    return {owner for (owner,) in found} - {None}


def test_both_workers_get_connections_and_one_that_dies_is_started_anew(service, database):
    """Each connection makes a session, which then belongs to the node that was asked."""
    first = pids(service)
    assert len(first) == 2
    for number in attempts():
        with httpx.Client(base_url=service.url, trust_env=False, timeout=PATIENCE) as http:
            assert http.post("/v1/sessions", json={"id": f"s{number}"}).status_code == 201
        if len(owners(database)) == 2:
            break
    assert number < 60, "with chance alone one in 2**60 gets here"
    os.kill(first[0], signal.SIGKILL)
    service.wait_for(r"worker \d was killed \(SIGKILL\); it is started anew in 0.5 s")
    with service.http() as http:
        assert http.get("/healthz").status_code == 200, "the other one serves meanwhile"
    service.wait_for(r"worker \d is back")
    second = pids(service)
    assert (len(second), len(set(first) & set(second))) == (2, 1)


async def test_sighup_renews_them_one_by_one_and_what_was_said_is_there(service):
    before = pids(service)
    async with connect(service.url, "room", name="ann") as ann:
        await ann.post("one")
        service.child.send_signal(signal.SIGHUP)
        for number in (1, 2):
            await asyncio.to_thread(service.wait_for, f"worker {number} was renewed")
            await asyncio.wait_for(ann.post(f"after {number}"), PATIENCE)
        assert not set(before) & set(pids(service))
        async with connect(service.url, "room", name="bob") as bob:
            for _ in attempts():
                if len(found := [message.text for message in bob.messages.all()]) == 3:
                    break
                await asyncio.sleep(0.05)
            assert found == ["one", "after 1", "after 2"]


def test_all_end_in_order_with_the_one_that_looks_after_them(service):
    workers = pids(service)
    (folder,) = {Path(each.decode()).parent for pid in workers for each in _arguments(pid) if b"/secret" in each}
    assert oct(folder.stat().st_mode)[-3:] == "700"
    assert service.terminate() == 0
    assert all_gone(workers)
    assert not folder.exists()


@pytest.mark.nightly  # four more starts of a service, for what the kernel does
def test_workers_end_when_the_one_that_looks_after_them_is_killed(database):
    again = Server(shared_server(VERSIONS[-1]).url(database), *FLAGS)
    workers = pids(again)
    again.kill()
    assert all_gone(workers)


def _arguments(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_what_is_wrong_is_said_once_and_nothing_stays(tmp_path, database):
    done = command("serve", "--workers", "2", "--database", tmp_path / "s.db")
    assert (done.returncode, "crdt-sessions import" in done.stderr) == (2, True), done.stderr
    assert not list(tmp_path.iterdir())
    begun = time.monotonic()
    done = command("serve", "--workers", "2", "--port", "0", "--database", "postgresql://app:secret@127.0.0.1:1/s")
    assert (done.returncode, done.stderr.count("PostgreSQL"), "secret" in done.stderr) == (2, 1, False), done.stderr
    assert time.monotonic() - begun < PATIENCE, "it is not tried again and again"


# -- what the system or the moment does to them, with processes that only say that they serve --------------------------

SERVES = ("sh", "-c", f"echo '{ANNOUNCED}nobody'; exec sleep 600")


def looked_after(monkeypatch, say, *commands):
    """Return workers of these commands, which have short pauses."""
    monkeypatch.setattr(workers_module, "_FIRST_PAUSE_S", 0.01)
    all_of_them = Workers(Settings(), [], say)
    all_of_them._workers = [Worker(number, command, say) for number, command in enumerate(commands, 1)]
    return all_of_them


def fails(monkeypatch, *errors):
    """Have the next processes not start."""
    start, left = asyncio.create_subprocess_exec, list(errors)

    async def exec(*command, **options):
        if left:
            raise left.pop(0)
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", exec)


async def test_a_worker_for_which_there_is_no_process_is_started_when_there_is_one(monkeypatch):
    said = asyncio.Queue()
    workers = looked_after(monkeypatch, said.put_nowait, SERVES)
    await workers._start()
    try:
        fails(monkeypatch, BlockingIOError(errno.EAGAIN, "no process"), RuntimeError("can't start new thread"))
        os.kill(workers._workers[0].pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            assert [await said.get() for _ in range(3)] == [
                "worker 1 was killed (SIGKILL); it is started anew in 0.01 s",
                "worker 1 cannot be started (no process); it is started anew in 0.02 s",
                "worker 1 cannot be started (can't start new thread); it is started anew in 0.04 s",
            ]
            assert await said.get() == f"worker 1 is back, as process {workers._workers[0].pid}"
    finally:
        await workers._stop()


async def test_a_renewal_for_which_there_is_no_process_is_said_and_the_worker_comes_back(monkeypatch):
    said = asyncio.Queue()
    workers = looked_after(monkeypatch, said.put_nowait, SERVES, SERVES)
    await workers._start()
    try:
        fails(monkeypatch, OSError(errno.ENOMEM, "no memory"))
        workers._renew()
        async with asyncio.timeout(PATIENCE):
            assert "worker 1 does not start anew ([Errno 12] no memory); the others are left" in await said.get()
            assert await said.get() == "worker 1 was killed (SIGTERM); it is started anew in 0.01 s"
            assert "worker 1 is back" in await said.get()
    finally:
        await workers._stop()


async def test_a_worker_that_died_is_not_started_anew_while_the_others_stop(monkeypatch, tmp_path):
    os.mkfifo(gate := tmp_path / "gate")
    opened = os.open(gate, os.O_RDWR)
    slow = f"trap 'read _ <{gate}; exit' TERM; echo '{ANNOUNCED}nobody'; while :; do sleep 0.02; done"
    said, stopping, back = [], [], asyncio.Event()

    def say(line):
        said.append(line)
        if "it is started anew" in line:
            stopping.append(asyncio.create_task(workers._stop()))
        elif "is back" in line:
            back.set()

    workers = looked_after(monkeypatch, say, SERVES, ("sh", "-c", slow))
    await workers._start()
    os.kill(workers._workers[0].pid, signal.SIGKILL)
    came_back = asyncio.create_task(back.wait())
    await asyncio.wait({came_back, workers._keeping[0]}, return_when=asyncio.FIRST_COMPLETED)
    os.write(opened, b"\n")  # only now the other one ends
    await asyncio.gather(*stopping)
    came_back.cancel()
    os.close(opened)
    assert said == ["worker 1 was killed (SIGKILL); it is started anew in 0.01 s"]

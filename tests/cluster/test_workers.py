"""``serve --workers N``: several nodes on one port by one command, which looks after them."""

import asyncio
import itertools
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from crdt_sessions import connect
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

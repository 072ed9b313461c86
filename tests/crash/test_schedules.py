"""Schedules of a service that is killed with SIGKILL again and again."""

import asyncio
import random
import time

import pytest

from crdt_sessions import connect
from tests.agents import working
from tests.processes import PATIENCE, Server, attempts

FLAGS = ("--lease-s", "2", "--gone-grace-s", "0.3", "--default-agent", "", "--idle-unload-s", "0")


@pytest.fixture
def servers(tmp_path):
    """The service, and after it those that were started in its place: the last one runs."""
    started = [Server(tmp_path / "s.db", *FLAGS)]
    yield started
    for server in started:
        server.close()


def again(servers):
    servers.append(servers[-1].again())


def fired(http, schedule):
    runs = http.get("/v1/sessions/plans/runs").json()["runs"]
    asked = [run for run in runs if run["request"].get("scheduledBy") == schedule]
    return {int(run["request"]["messageId"].rpartition("@")[2]): run for run in asked}, len(asked)


async def test_each_time_is_asked_for_once_however_often_the_service_dies(servers):
    (server,) = servers

    async def answer(run):
        await run.out.write("Fine.")

    rng = random.Random(7)
    async with connect(server.url, "plans", id="ann") as ann:
        begun = int(time.time() * 1000)
        schedule = await ann.schedule("How is the weather?", "writer", every_s=1, missed="all", policy="parallel")
    async with working(server.url, answer):
        for _ in range(4):
            await asyncio.sleep(rng.uniform(0.4, 1.6))
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(rng.uniform(0, 1.5))
            await asyncio.to_thread(again, servers)  # in the thread, which ends even if the test does not wait for it
            server = servers[-1]
        with server.http() as http:
            for _ in attempts():
                times, count = fired(http, schedule)
                if len(times) >= 8 and http.get(f"/v1/sessions/plans/runs/{schedule}").json()["due"] > begun + 8000:
                    break
                await asyncio.sleep(0.1)
            stopped = http.post(f"/v1/sessions/plans/runs/{schedule}/cancel", json={}).json()
            assert (stopped["status"], stopped.get("due")) == ("cancelled", None)
            times, count = fired(http, schedule)
            assert count == len(times), "once each"
            expected = range(min(times), max(times) + 1, 1000)
            assert sorted(times) == list(expected), "and none is left out"

            def done():
                return all(run["status"] == "completed" for run in fired(http, schedule)[0].values())

            deadline = time.monotonic() + PATIENCE
            while not done() and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
            assert done(), "each was worked on"
            texts = list(http.get("/v1/sessions/plans/messages?limit=1000").json()["messages"])
    assert sum(each["role"] == "user" for each in texts) == len(times) + 1

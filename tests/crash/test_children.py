"""Ten child runs, three of them killed in mid-stream, and their parent killed or stopped: nothing stays open."""

import asyncio
import sys
from itertools import count

import pytest

from crdt_sessions import connect
from tests.crash.delegating import CHILDREN, text_of
from tests.processes import PATIENCE, Process, Server

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(600)]

VICTIMS = 3
WAIT_S = 3 * PATIENCE


class Stage:
    """The service, an agent that asks, three that work on one child each and one that works on the others."""

    def __init__(self, tmp_path):
        flags = ("--lease-s", "20", "--gone-grace-s", "0.5", "--cancel-grace-s", "1", "--max-attempts", "5")
        self.server = Server(tmp_path / "s.db", *flags)
        self.agents = []
        self.lead = self.agent("lead")
        self.victims = [self.agent("helper", "--words", "10") for _ in range(VICTIMS)]

    def agent(self, role, *options):
        process = Process(
            sys.executable, "-m", "tests.crash.delegating", "--url", self.server.url, "--role", role, *options,
            fork=True,
        )  # fmt: skip
        self.agents.append(process)
        process.wait_for("connected to")
        return process

    def kill(self, process):
        process.child.kill()
        process.child.wait()

    def close(self):
        for process in (*self.agents, self.server):
            process.close()


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    yield stage
    stage.close()


async def until(peer, condition):
    await asyncio.wait_for(peer.until(condition), WAIT_S)


def children(peer, parent):
    return {child.request.key: child for child in peer.view.runs.children(parent)}


def written(peer, run):
    message = peer.view.messages.value(run.output)
    return message.text if message is not None else ""


async def in_mid_stream(stage, peer, parent):
    """Return once three children are being written by the agents that are to be killed; then kill those."""
    begun = lambda: [child for child in children(peer, parent).values() if written(peer, child)]  # noqa: E731
    await until(peer, lambda: len(begun()) == VICTIMS and len(children(peer, parent)) == CHILDREN)
    stage.agent("helper", "--concurrency", CHILDREN)
    lost = {child.id for child in begun()}
    for victim in stage.victims:
        stage.kill(victim)
    return lost


def nothing_is_open(stage, room):
    with stage.server.http() as http:
        runs = http.get(f"/v1/sessions/{room}/runs").json()["runs"]
    assert len(runs) == CHILDREN + 1
    return [run["status"] for run in runs]


async def test_ten_children_of_whom_three_are_killed_bring_the_whole_text(stage):
    async with connect(stage.server.url, "gathered") as ann:
        question = await ann.post("?", agent="lead")
        parent = f"run-{question.id}"
        lost = await in_mid_stream(stage, ann, parent)
        stage.kill(stage.lead)
        stage.agent("lead")
        await until(ann, lambda: ann.view.runs.find(parent).over)
        run, found = ann.view.runs.find(parent), children(ann, parent)
        assert run.status == "completed"
        assert run.epoch == 2, "its agent was killed once"
        assert written(ann, run) == "\n".join(map(text_of, range(CHILDREN)))
        for number, key in zip(range(CHILDREN), map(str, count(1)), strict=False):
            assert written(ann, found[key]) == text_of(number), "no word is lost, and none stands twice"
        assert {child.id for child in found.values() if (child.epoch or 0) > 1} == lost
    assert set(nothing_is_open(stage, "gathered")) == {"completed"}


async def test_a_stop_in_mid_stream_ends_all_ten_and_those_that_were_killed(stage):
    async with connect(stage.server.url, "stopped") as ann:
        question = await ann.post("?", agent="lead")
        parent = f"run-{question.id}"
        await in_mid_stream(stage, ann, parent)
        ann.cancel(parent)
        await until(ann, lambda: all(run.over for run in ann.view.runs.all()))
        assert all(message.done for message in ann.view.messages.beside()), "a stream was left dangling"
        for number, child in zip(range(CHILDREN), children(ann, parent).values(), strict=True):
            assert any(text_of(each).startswith(written(ann, child)) for each in range(CHILDREN)), number
    assert set(nothing_is_open(stage, "stopped")) == {"cancelled"}

"""Agents die in every way at random points of a real stream: seen dead in time, continued by a successor, refused as zombies.

Five ways, of which CI tries two once, and the weekly profile each forty times (tests/profiles.py), with two stock
JavaScript clients watching each. The figures are printed with ``pytest -s``.
"""

import asyncio
import json
import random
import signal
import statistics
import sys
import time
from contextlib import AsyncExitStack

import pytest

from crdt_sessions import connect
from crdt_sessions.testing import content
from examples.replay_server import as_chat, recordings
from tests.interop.node import needs_node
from tests.processes import PATIENCE, Process, Replay, Server, attempts
from tests.profiles import sample
from tests.proxy import Proxy

pytestmark = [pytest.mark.crash, pytest.mark.slow, needs_node, pytest.mark.timeout(1800)]

LEASE_S = 2.5
SLACK_S = 10
"""What a loaded machine may add to what is to happen in time."""
SEEDS = sample("agents")
AT_ONCE = 3
STREAMS = (
    "openai-chat/groq-text-long.chunks.txt",
    "openai-chat/openai-gpt-4.1-nano-text.chunks.txt",
    "openai-chat/huggingface-reasoning-text-emoji.sse",
    "anthropic-messages/claude-compaction-long-text-emoji.chunks.txt",
)


def expected(name):
    recording = recordings()[name]
    if recording.api == "openai-chat":
        choices = (choice for chunk in recording.chunks() for choice in chunk.get("choices", ()))
    else:
        choices = as_chat(recording)
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)


class Stage:
    """The service and the model; agents come and go."""

    def __init__(self, tmp_path):
        flags = ("--lease-s", str(LEASE_S), "--gone-grace-s", "0.5", "--cancel-grace-s", "1", "--max-attempts", "5")
        self.server = Server(tmp_path / "s.db", *flags)
        self.replay = Replay(150)
        self.agents = []

    def agent(self, name, url=None):
        process = Process(
            sys.executable, "-m", "tests.crash.agent", "--url", url or self.server.url, "--name", name,
            "--block", str(2 * LEASE_S + 1),
            env=self.replay.env, fork=True,
        )  # fmt: skip
        self.agents.append(process)
        return process

    def close(self):
        for process in (*self.agents, self.replay, self.server):
            if process.child.poll() is None:
                process.child.send_signal(signal.SIGCONT)
            process.close()


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    yield stage
    stage.close()


class Figures:
    def __init__(self):
        self.detected, self.resumed = [], []

    def told(self, fault):
        def spread(values):
            ordered = sorted(values)
            return {"p50": round(statistics.median(ordered), 3), "p99": round(ordered[int(len(ordered) * 0.99)], 3)}

        return json.dumps(
            {
                "fault": fault, "n": len(self.detected), "lease_s": LEASE_S,
                "detected_in_leases": spread([value / LEASE_S for value in self.detected]),
                "resumed_s": spread(self.resumed),
            }
        )  # fmt: skip


@pytest.mark.sampled(3)  # one that ends, and one that stays
@pytest.mark.parametrize("fault", ["kill", "cut", "terminate", "hang", "block"])
async def test_a_dead_agents_run_is_continued_by_another(stage, js, fault):
    figures, gate = Figures(), asyncio.Semaphore(AT_ONCE)

    async def one(seed):
        async with gate:
            await _one(stage, js, fault, seed, figures)

    async with asyncio.TaskGroup() as group:
        for seed in range(SEEDS):
            group.create_task(one(seed))
    print(figures.told(fault))
    assert len(figures.detected) == SEEDS
    assert statistics.median(figures.detected) < LEASE_S + SLACK_S
    with stage.server.http() as http:
        for session in http.get("/v1/sessions", params={"limit": 1000}).json()["sessions"]:
            for run in http.get(f"/v1/sessions/{session['id']}/runs").json()["runs"]:
                assert run["status"] == "completed", "a run was left open"


async def _one(stage, js, fault, seed, figures):
    rng = random.Random(f"{fault}-{seed}")
    name, room = rng.choice(STREAMS), f"{fault}-{seed}"
    text = expected(name)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(stage.server.port)) if fault == "cut" else None
        for peer, version in ((f"{room}-a", 3), (f"{room}-b", 2)):
            await js.ask("open", peer=peer, url=stage.server.ws, room=room, version=version)
        ann = await stack.enter_async_context(connect(stage.server.url, room, name="Ann"))
        victim = await asyncio.to_thread(stage.agent, room, proxy.url if proxy else None)
        question = await ann.post(f"replay:{name}", agent=room)
        run_id = f"run-{question.id}"
        await _until(ann, lambda: len(_text(ann)) >= rng.random() * 0.8 * len(text))
        struck = time.monotonic()
        _strike(fault, victim, proxy)
        successor = await asyncio.to_thread(stage.agent, room)
        await _until(ann, lambda: (run := ann.view.runs.find(run_id)).lease is None or run.lease.epoch > 1)
        figures.detected.append(time.monotonic() - struck)
        detected, written = time.monotonic(), len(_text(ann))
        await _until(ann, lambda: len(_text(ann)) > written or ann.view.runs.find(run_id).over)
        figures.resumed.append(time.monotonic() - detected)
        await _until(ann, lambda: ann.view.runs.find(run_id).over)
        run = ann.view.runs.find(run_id)
        assert run.status == "completed", run
        assert run.epoch >= 2, "a slow machine may take it from the successor, too"
        await _rise(fault, victim, proxy)
        (message,) = [message for message in ann.messages.all() if message.role == "assistant"]
        assert message.text == text, f"{room}: a gap or a repetition"
        assert all(part.state == "done" for part in message.parts)
        await _agree(ann, js, f"{room}-a", f"{room}-b")
        for process in (victim, successor):
            await asyncio.to_thread(process.close)
        for peer in (f"{room}-a", f"{room}-b"):
            await js.ask("destroy", peer=peer)


def _text(peer):
    return "".join(message.text for message in peer.messages.all() if message.role == "assistant")


async def _until(peer, condition, timeout=PATIENCE):
    await asyncio.wait_for(peer.until(condition), timeout)


def _strike(fault, victim, proxy):
    if fault == "cut":
        proxy.cut()
    else:
        number = {"kill": "SIGKILL", "hang": "SIGSTOP", "block": "SIGUSR1", "terminate": "SIGTERM"}[fault]
        victim.child.send_signal(getattr(signal, number))


async def _rise(fault, victim, proxy):
    """Let the zombie speak: its late writes are refused, and it says so."""
    if fault == "hang":
        victim.child.send_signal(signal.SIGCONT)
    if fault == "cut":
        proxy.heal()
    if fault in ("hang", "cut", "block"):
        await asyncio.to_thread(victim.wait_for, "was taken away", PATIENCE)
    elif fault == "terminate":
        assert await asyncio.to_thread(victim.child.wait, PATIENCE) == 0


async def _agree(ann, js, *names):
    for _ in attempts():
        contents = [content(ann._replica.document), *[await js.content_async(name) for name in names]]
        if all(one == contents[0] for one in contents):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the replicas differ")

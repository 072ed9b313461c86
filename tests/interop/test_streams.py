"""Every recorded stream, through the agent and a real model client, into a session that four replicas watch."""

import asyncio
import os

import pytest

from crdt_sessions import connect
from crdt_sessions.model import TextPart, ToolPart
from crdt_sessions.testing import content
from examples.replay_server import recordings
from tests.interop.node import needs_node
from tests.processes import PATIENCE, ROOT, attempts, replaying
from tests.profiles import sample

pytestmark = [pytest.mark.interop, needs_node]

RECORDINGS = recordings()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with replaying(tmp_path_factory.mktemp("streams") / "sessions.db", 1500) as server:
        yield server


def _session(name):
    return name.replace("/", "-").replace(" ", "-")


@pytest.mark.parametrize("name", sorted(RECORDINGS)[:: sample("recordings")])
async def test_all_replicas_hold_what_was_recorded(world, js, name):
    facts, room = RECORDINGS[name].facts, _session(name)
    await js.ask("open", peer="early", url=world.ws, room=room, version=3)
    async with connect(world.url, room, name="Ann") as ann:
        question = await ann.post(f"replay:{name}")

        def answered():
            return [m for m in ann.messages.all() if m.parent == question.id]

        characters = sum(facts[f"{kind}_chars"] for kind in ("text", "reasoning", "tool"))
        await ann.until(lambda: sum(map(_length, answered())) >= characters / 2 or _ended(ann))
        await js.ask("open", peer="late", url=world.ws, room=room, version=2)
        await asyncio.wait_for(ann.until(lambda: _ended(ann)), PATIENCE)
        await asyncio.to_thread(js.synced, "early", "late")
        (message,), (run,) = answered(), ann.view.runs.all()
        _check(message, run, facts)
        await _equal(js, ann, world, room)
    for peer in ("early", "late"):
        await js.ask("destroy", peer=peer)


def _length(message):
    return sum(len(part.text if isinstance(part, TextPart) else part.input_text) for part in message.parts)


def _ended(peer):
    return any(run.outcome is not None for run in peer.view.runs.all())


def _check(message, run, facts):
    """The manifest's counts are the oracle."""
    choices = range(max(facts["choices"], 1))
    assert sum(len(message.text_of(choice)) for choice in choices) == facts["text_chars"]
    assert sum(len(message.text_of(choice, "reasoning")) for choice in choices) == facts["reasoning_chars"]
    tools = [part for part in message.parts if isinstance(part, ToolPart)]
    assert sum(len(part.input_text) for part in tools) == facts["tool_chars"]
    written = "".join(part.text if isinstance(part, TextPart) else part.input_text for part in message.parts)
    assert sum(ord(char) > 0xFFFF for char in written) == facts["astral_chars"]
    assert message.done
    if facts["errors"]:
        assert run.status == "failed"
        assert run.outcome.error.message
    else:
        assert run.status == "completed"
        assert run.outcome.reason == facts["finish"].split(",")[-1]


async def _equal(js, ann, world, room):
    """All four documents are equal: two JavaScript clients, a Python peer, and what the service stored."""
    for _ in attempts():
        contents = [content(ann._replica.document), *[await js.content_async(peer) for peer in ("early", "late")]]
        if all(one == contents[0] for one in contents):
            break
        await asyncio.sleep(0.05)
    assert contents[0] == contents[1] == contents[2]
    async with connect(world.url, room) as fresh:
        assert content(fresh._replica.document) == contents[0]


def test_every_recording_is_tested():
    assert len(RECORDINGS) == 44
    assert os.path.isfile(ROOT / "examples/recordings/README.md")

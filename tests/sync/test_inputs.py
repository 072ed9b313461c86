"""What those who ask give the agent: bounded, carried over, and told of where it cannot be taken."""

import pytest
from pycrdt import Map

from crdt_sessions.model import Author, MessageHead, RunInput, TextPart, ToolSpec
from crdt_sessions.model.inputs import INPUT_LIMITS
from crdt_sessions.sync import Rights

from .runs import World

KNOWN = Rights(verified=True)
TOOL = {"name": "look", "description": "Look out", "inputSchema": {"type": "object"}, "where": "client"}
INPUT = RunInput(tools=[ToolSpec.model_validate(TOOL)], model="small", settings={"temperature": 0.5})

BAD = {
    "no object": [1],
    "text": "hello",
    "a tool without a name": {"tools": [{"description": "?"}]},
    "a tool that runs nowhere": {"tools": [{"name": "look", "where": "there"}]},
    "two tools of one name": {"tools": [{"name": "look"}, {"name": "look"}]},
    "too many tools": {"tools": [{"name": f"tool{count}"} for count in range(INPUT_LIMITS.max_tools + 1)]},
    "too much context": {"context": [{"value": "?"}] * (INPUT_LIMITS.max_context + 1)},
    "context that is no text": {"context": [{"description": "?", "value": {}}]},
    "settings that are no object": {"settings": [1]},
    "too many bytes": {"forwarded": {"text": "x" * INPUT_LIMITS.max_bytes}},
}


@pytest.fixture
def world():
    world = World()
    world.post()
    return world


def write(world, run, request, who="ann"):
    value = {"messageId": "q", "agent": "writer", "createdAt": 1} | request
    world.network.edit(who, lambda view: view.document.roots.runs.update({run: Map({"request": value})}))
    world.settle()


def finish(world):
    holder = world.claim()
    world.write(holder, "Well.", close=True)
    world.report(holder, "completed")
    world.settle()


def test_an_agent_gets_what_was_given(world):
    world.ask(input=INPUT)
    world.settle()
    world.claim()
    assert world.record("r").run.input == INPUT
    assert world.run().request.to_json()["input"] == {
        "tools": [TOOL], "model": "small", "settings": {"temperature": 0.5},
    }  # fmt: skip


def test_nothing_given_is_nothing_written_and_an_empty_input_to_read(world):
    world.ask()
    world.settle()
    assert "input" not in world.network.engine.view.document.roots.runs["r"]["request"]
    assert world.run().input.empty


@pytest.mark.parametrize("what", BAD)
def test_an_input_that_cannot_be_taken_fails_its_run_and_says_why(world, what):
    write(world, "r", {"input": BAD[what]})
    run = world.run()
    assert (run.status, run.outcome.reason, run.outcome.error.code) == (
        "failed", "its input was refused", "bad-input",
    )  # fmt: skip
    assert "input" in run.outcome.error.message
    assert "ask again" in run.outcome.error.message
    assert run.request.input is None
    world.network.crash()
    assert world.run().status == "failed"


def test_a_refused_input_stops_nobody(world):
    world.ask()
    world.settle()
    holder = world.claim()
    write(world, "bad", {"input": [1], "policy": "interrupt"})
    assert world.run("bad").status == "failed"
    world.report(holder, "completed")
    world.settle()
    assert world.status() == "completed"


def test_a_deep_input_is_refused_and_not_read(world):
    deep: dict = {}
    for _ in range(INPUT_LIMITS.max_depth + 1):
        deep = {"in": deep}
    write(world, "r", {"input": {"settings": deep}})
    assert "deeper" in world.run().outcome.error.message


@pytest.mark.parametrize("trigger", ["regenerate", "continue"])
def test_a_request_that_repeats_another_one_has_its_input(world, trigger):
    world.ask(input=INPUT)
    world.settle()
    finish(world)
    asked = "q" if trigger == "regenerate" else world.run().output
    world.ask(run="again", message=asked, trigger=trigger)
    world.ask(run="without", message=asked, trigger=trigger, input=RunInput())
    world.settle()
    assert world.run("again").input == world.record("again").run.input == INPUT
    assert world.run("without").input.empty
    assert {peer.replica.view.runs.value("again").input.model for peer in world.network.peers.values()} == {"small"}


def test_a_question_asked_anew_has_no_input_but_its_own(world):
    world.ask(input=INPUT)
    world.ask(run="other")
    world.settle()
    assert world.run("other").input.empty


def test_what_was_asked_stands_whatever_somebody_writes_over_it(world):
    world.ask(input=INPUT)
    world.settle()
    changed = {"messageId": "q", "agent": "writer", "createdAt": 1, "input": {"model": "large"}}
    world.network.edit("bob", lambda view: view.document.roots.runs["r"].update({"request": changed}))
    world.settle()
    assert world.run().input == world.record("r").run.input == INPUT


def test_a_request_says_who_asks_and_not_whom_they_name():
    world = World(people=("ann", "eve"), rights=KNOWN)
    world.post()
    write(world, "forged", {"by": "ann"}, who="eve")
    write(world, "nameless", {}, who="eve")
    assert [world.run(run).request.by for run in ("forged", "nameless")] == ["eve", "eve"]
    assert [world.record(run).request.by for run in ("forged", "nameless")] == ["eve", "eve"]
    assert ("eve", "runs.request.by") in world.network.violations
    assert len([each for each in world.network.violations if each[1].startswith("runs")]) == 1


def test_a_question_that_the_session_has_answered_is_asked_by_who_sent_it():
    world = World(people=("ann", "eve"), rights=KNOWN)
    world.network.edit("ann", lambda view: view.document.roots.meta.update({"agent": "writer"}))
    world.settle()
    world.network.edit("eve", lambda view: view.messages.add(*forged_question(world)))
    world.settle()
    assert world.run("run-m").request.by == "eve"


def forged_question(world):
    head = MessageHead(id="m", role="user", author=Author(id="ann"), created_at=world.network.now)
    return head, [TextPart(type="text", text="?")]

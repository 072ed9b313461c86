"""Every string that a Yjs peer may write, at its limit and beyond: the session goes on, for everybody."""

import hashlib
from dataclasses import dataclass
from typing import Any

import pytest
from pycrdt import Array, Map, Text

from crdt_sessions.limits import RunRules
from crdt_sessions.model.strings import (
    AGENT_CHARACTERS,
    CALL_CHARACTERS,
    ERROR_CHARACTERS,
    ID_CHARACTERS,
    NAME_CHARACTERS,
    REASON_CHARACTERS,
    TITLE_CHARACTERS,
    WORD_CHARACTERS,
    derived,
    is_id,
)
from crdt_sessions.wire import Update, encode
from tests.sync.runs import World

RULES = RunRules(default_agent="writer")
AUTHOR = {"id": "eve", "name": "Eve", "kind": "human"}


def message(id="eve's", parts=None, **head):
    value = {"id": id, "role": "user", "author": AUTHOR, "parent": None, "createdAt": 1} | head
    return Map({"head": value, "parts": Array(parts or [Map({"type": "text", "text": Text("?"), "state": "done"})])})


def tool(**part):
    return Map(
        {"type": "tool", "toolCallId": "c", "toolName": "t", "inputText": Text(""), "state": "input-available"} | part
    )


def run(**entry):
    request = {"messageId": "m", "agent": "writer", "trigger": "submit", "createdAt": 1}
    return Map({"request": request} | entry)


def result(**more):
    return {"status": "failed", "epoch": 1, "at": 1} | more


def put(root, key, value):
    return lambda view: getattr(view.document.roots, root).update({key: value})


@dataclass
class Place:
    """A place in the document where anybody may write a string."""

    name: str
    limit: int
    write: Any
    """Text to change of the document."""
    unreadable: str | None = None
    """Where what is over the limit is told of; None where it is cut off, or nothing reads it."""


PLACES = [
    Place("message id", ID_CHARACTERS, lambda text: put("messages", text, message(text)), "messages"),
    Place("author id", ID_CHARACTERS, lambda text: put("messages", "e", message("e", author=AUTHOR | {"id": text})), "messages"),
    Place("author name", NAME_CHARACTERS, lambda text: put("messages", "e", message("e", author=AUTHOR | {"name": text}))),
    Place("modality", WORD_CHARACTERS, lambda text: put("messages", "e", message("e", modality=text))),
    *(
        Place(key, ID_CHARACTERS, lambda text, key=key: put("messages", "e", message("e", **{key: text})), "messages")
        for key in ("parent", "replyTo", "steers", "replaces")
    ),
    Place("toolCallId", CALL_CHARACTERS, lambda text: put("messages", "e", message("e", [tool(toolCallId=text)])), "messages"),
    Place("toolName", NAME_CHARACTERS, lambda text: put("messages", "e", message("e", [tool(toolName=text)]))),
    Place("decisions", ID_CHARACTERS, lambda text: put("messages", "e", message("e", [tool(decisions=Map({text: {"approved": True, "at": 1}}))]))),
    Place("decision reason", REASON_CHARACTERS, lambda text: put("messages", "e", message("e", [tool(decisions=Map({"eve": {"approved": True, "reason": text, "at": 1}}))]))),
    Place("run id", ID_CHARACTERS, lambda text: put("runs", text, run()), "runs"),
    Place("messageId", ID_CHARACTERS, lambda text: put("runs", "r", Map({"request": {"messageId": text, "agent": "writer", "createdAt": 1}})), "runs"),
    Place("request agent", AGENT_CHARACTERS, lambda text: put("runs", "r", Map({"request": {"messageId": "m", "agent": text, "createdAt": 1}})), "runs"),
    Place("request by", ID_CHARACTERS, lambda text: put("runs", "r", Map({"request": {"messageId": "m", "agent": "a", "by": text, "createdAt": 1}}))),
    Place("cancel by", ID_CHARACTERS, lambda text: put("runs", "r", run(cancel={"by": text, "at": 1}))),
    Place("cancel reason", REASON_CHARACTERS, lambda text: put("runs", "r", run(cancel={"by": "eve", "reason": text, "at": 1}))),
    Place("result reason", REASON_CHARACTERS, lambda text: put("runs", "r", run(result=result(reason=text)))),
    Place("result agent", AGENT_CHARACTERS, lambda text: put("runs", "r", run(result=result(agent=text))), "runs"),
    Place("error code", WORD_CHARACTERS, lambda text: put("runs", "r", run(result=result(error={"code": text})))),
    Place("error message", ERROR_CHARACTERS, lambda text: put("runs", "r", run(result=result(error={"code": "c", "message": text})))),
    Place("steers", ID_CHARACTERS, lambda text: put("runs", "r", run(steers=Map({text: True})))),
    Place("output of a run that was settled elsewhere", ID_CHARACTERS, lambda text: put("runs", "r", run(status="completed", output=text, outcome={"reason": "done", "endedAt": 1})), "runs"),
    Place("agent of a run that was settled elsewhere", AGENT_CHARACTERS, lambda text: put("runs", "r", run(status="completed", agent=text, outcome={"reason": "done", "endedAt": 1})), "runs"),
    Place("title", TITLE_CHARACTERS, lambda text: put("meta", "title", text)),
    Place("agent", AGENT_CHARACTERS, lambda text: put("meta", "agent", text), "meta.agent"),
    Place("artifact id", ID_CHARACTERS, lambda text: put("artifacts", text, Map({"head": {"id": text, "createdAt": 1}, "content": Text("")}))),
    Place("artifact title", TITLE_CHARACTERS, lambda text: put("artifacts", "a", Map({"head": {"id": "a", "title": text, "createdAt": 1}, "content": Text("")}))),
    Place("media type", WORD_CHARACTERS, lambda text: put("artifacts", "a", Map({"head": {"id": "a", "mediaType": text, "createdAt": 1}, "content": Text("")}))),
    Place("receipts", ID_CHARACTERS, lambda text: put("receipts", text, 1)),
]  # fmt: skip


def goes_on(world, id):
    """Whether an ordinary message of somebody else gets its place and is answered, and all can be read."""
    world.post(id=id)
    world.settle()
    for name in ("ann", "eve"):
        assert world.network.peers[name].connection is not None, world.network.peers[name].closed_by
        assert world.network.peers[name].replica.view.messages[id].seq is not None
    assert world.run(derived("run-", id)).agent is not None
    world.network.engine.view.export()
    return True


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_a_string_at_its_limit_counts_and_one_beyond_it_hurts_nobody(place):
    texts = {"at its limit": "x" * place.limit, "beyond": "x" * (place.limit + 1), "far beyond": "é\n" * 50_000}
    for what, text in texts.items():
        world = World(RULES, people=("ann", "eve"))
        world.network.edit("eve", place.write(text))
        world.settle()
        told = [each.where for each in world.network.unreadable]
        assert told == ([place.unreadable] if place.unreadable and what != "at its limit" else []), what
        assert goes_on(world, "before")
        world.network.crash()
        for name in ("ann", "eve"):
            world.network.connect(name)
        world.settle()
        assert goes_on(world, "after"), f"{what}: it does not outlive a restart as a poison"


@pytest.mark.parametrize("text", ["a\nb", "a\x00b", "a\x7f", "\x85"])
def test_an_id_with_control_characters_is_told_of_and_nothing_follows_from_it(text):
    world = World(RULES, people=("ann", "eve"))
    world.network.edit("eve", put("messages", text, message(text)))
    world.network.edit("eve", put("runs", text, run()))
    world.network.edit("eve", put("messages", text, message(text)))
    world.settle()
    assert sorted(each.where for each in world.network.unreadable) == ["messages", "runs"], "once each"
    assert world.record(text) is None
    assert world.network.engine.view.messages.find(text).seq is None
    assert goes_on(world, "q")


def test_a_policy_that_is_none_is_told_of_and_the_services_holds():
    world = World(RULES, people=("ann", "eve"))
    world.network.edit("eve", put("meta", "runPolicy", "sometimes"))
    world.settle()
    assert [each.where for each in world.network.unreadable] == ["meta.runPolicy"]
    assert goes_on(world, "q")
    assert world.record("run-q").policy == "queue"


def test_a_bad_agent_in_meta_is_as_if_there_were_none():
    world = World(RULES, people=("ann", "eve"))
    world.network.edit("eve", put("meta", "agent", "x" * 101))
    world.post()
    world.settle()
    assert world.run("run-q").agent == "writer"
    assert world.network.engine.view.meta.agent is None


def test_what_is_derived_from_an_id_can_be_derived_from_again():
    """An answer may be answered, and so on: no id grows beyond the limit, and replicas agree on it."""
    id = "x" * ID_CHARACTERS
    seen = set()
    for _ in range(10):
        run_id = derived("run-", id)
        output = derived("", run_id, "-out")
        assert is_id(run_id)
        assert is_id(output)
        seen |= {run_id, output}
        id = output
    assert len(seen) == 20
    assert derived("run-", "x" * 196) == "run-" + "x" * 196
    digest = hashlib.sha256(b"x" * 197).hexdigest()
    assert derived("run-", "x" * 197) == f"run-~{digest}", "as docs/protocol.md says, for other languages"


def test_the_answer_to_a_message_with_the_longest_id_is_written_like_any_other():
    world = World(RULES, people=("ann", "eve"))
    id = "x" * ID_CHARACTERS
    world.post(id=id)
    world.settle()
    holder = world.claim(run=derived("run-", id))
    world.write(holder, "Yes.", close=True)
    world.report(holder, "completed")
    world.settle()
    assert (world.status(holder.run), world.text(holder.output)) == ("completed", "Yes.")


@pytest.mark.parametrize("time", [1_700_000_000_000.5, 1234.000000001, 5.0, -1.5])
def test_a_time_with_fractions_is_a_time(time):
    """Clocks of JavaScript have them: ``performance.timeOrigin + performance.now()``."""
    world = World(RULES, people=("ann", "eve"))
    world.network.edit("eve", put("messages", "e", message("e", createdAt=time)))
    request = {"messageId": "e", "agent": "a", "createdAt": time}
    world.network.edit("eve", put("runs", "r", Map({"request": request, "cancel": {"by": "eve", "at": time}})))
    world.settle()
    found = world.network.engine.view.messages.value("e")
    assert (found.seq, found.created_at) == (1, time // 1)
    assert world.status() == "cancelled"
    assert world.network.unreadable == []


@pytest.mark.parametrize("time", [float("nan"), float("inf"), 1e300, "now", None])
def test_what_is_no_time_is_told_of(time):
    world = World(RULES, people=("ann", "eve"))
    world.network.edit("eve", put("messages", "e", message("e", createdAt=time)))
    world.settle()
    (told,) = world.network.unreadable
    assert (told.where, told.id, "head.createdAt" in told.why) == ("messages", "e", True)
    assert goes_on(world, "q")


def test_entries_that_are_no_maps_are_told_of():
    world = World(RULES, people=("ann", "eve"))
    for root in ("messages", "runs"):
        world.network.edit("eve", put(root, "e", "text"))
    world.network.edit("eve", put("messages", "f", message("f", [Text("untyped")])))
    world.settle()
    told = sorted((each.where, each.id) for each in world.network.unreadable)
    assert told == [("messages", "e"), ("messages", "f"), ("runs", "e")]
    assert all("Y.Map" in each.why for each in world.network.unreadable)
    assert goes_on(world, "q")


UNTYPED = bytes.fromhex(
    "01084d002701086d65737361676573016d0428004d00046865616401760502696477016d04726f6c6577047573657206617574686f727603"
    "026964770161046e616d657700046b696e64770568756d616e06706172656e747e096372656174656441747b427a2239e676100027004d00"
    "0570617274730407004d020428004d0304747970650177047465787427004d0304746578740408004d050577016877016577016c77016c77"
    "016f28004d03057374617465017704646f6e6500"
)
"""A message as Yjs 14.0.0-rc.7 writes it with types that are not told what they are (``new Y.Type()``)."""


def test_a_message_of_yjs_14s_untyped_types_is_told_of():
    world = World(RULES, people=("ann", "eve"))
    world.network.peers["eve"].uplink.append(encode(Update(UNTYPED)))
    world.settle()
    (told,) = world.network.unreadable
    assert (told.where, told.id, "untyped" in told.why) == ("messages", "m", True)
    assert goes_on(world, "q")
    documents = world.network.documents()
    for name in ("ann", "server", "disk"):
        assert "m" in documents[name].roots.messages, "it is kept and synced all the same"

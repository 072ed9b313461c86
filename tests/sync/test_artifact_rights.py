"""Whose a suggestion, a decision about it and a step are: what others write there is put back, and told."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Map

from crdt_sessions.model import ArtifactHead, Author
from crdt_sessions.model.steps import content_in
from crdt_sessions.model.suggestions import PieceDecision, Settled, SuggestionHead, pieces_of
from crdt_sessions.sync import Rights

from .runs import World

KNOWN = Rights(verified=True)
AGENT = Rights(decide=False, cancel=False, verified=True)
HEAD = ("artifact", "author", "pieces")


def suggest(new, author="ann", artifact="draft"):
    def change(view):
        pieces = pieces_of(content_in(view.document.doc, artifact), artifact, new, None, "tiptap")
        head = SuggestionHead(artifact=artifact, author=Author(id=author), created_at=1, pieces=pieces)
        view.suggestions.add("s", head)

    return change


@pytest.fixture
def world():
    return begun()


def begun():
    world = World(people=("ann", "bob", "eve"), rights=KNOWN, agents=AGENT)
    head = ArtifactHead(id="draft", created_at=1)
    world.network.edit("ann", lambda view: view.artifacts.add(head, "We go by car, at noon."))
    world.network.run_until_quiet()
    world.network.edit("ann", suggest("We go by train, at dawn."))
    world.network.run_until_quiet()
    return world


def write(world, who, change):
    world.network.edit(who, change)
    world.network.run_until_quiet()


def decide(world, who, piece, accepted, name=None, at=1):
    write(
        world,
        who,
        lambda view: view.suggestions.decide("s", piece, name or who, PieceDecision(accepted=accepted, at=at)),
    )


def found(world):
    """What everybody reads, which is the same."""
    read = [world.network.engine.view] + [peer.replica.view for peer in world.network.peers.values()]
    whole = [view.suggestions["s"] for view in read]
    assert all(each == whole[0] for each in whole)
    return whole[0]


def draft(world):
    return str(world.network.engine.view.artifacts.text("draft"))


def violations(world, who="eve"):
    return {what for principal, what in world.network.violations if principal == who}


def test_whose_a_suggestion_is_says_the_server(world):
    assert found(world).by == "ann"
    assert violations(world, "ann") == set()
    write(world, "eve", lambda view: view.suggestions._root["s"].update({"by": "eve"}))
    assert found(world).by == "ann"
    write(
        world,
        "eve",
        lambda view: view.suggestions._root.update({"t": Map({"head": view.suggestions.head("s"), "by": "bob"})}),
    )
    assert [peer.replica.view.suggestions["t"].by for peer in world.network.peers.values()] == ["eve"] * 3


FORGERIES = {
    "another head": lambda root: root["s"].update({"head": {**root["s"]["head"], "pieces": [{**root["s"]["head"]["pieces"][0], "after": "plane"}]}}),
    "no head": lambda root: root["s"].pop("head"),
    "a head that is none": lambda root: root["s"].update({"head": {"artifact": 7}}),
    "nothing": lambda root: root.pop("s"),
    "no map": lambda root: root.update({"s": "gone"}),
    "an empty map": lambda root: root.update({"s": Map({})}),
    "a map without maps in it": lambda root: root.update({"s": Map({"head": root["s"]["head"]})}),
    "a settled that is none": lambda root: root["s"].update({"settled": Map({"1": 7})}),
    "settled in front of all decisions": lambda root: root["s"].update({"settled": Map({"0": {"accepted": False, "by": "eve", "at": 1}, "1": {"accepted": True, "by": "bob", "at": 1}})}),
    "a late one": lambda root: root["s"].update({"late": [{"piece": 0, "by": "bob", "accepted": False, "at": 1, "why": "late"}]}),
    "a late that is none": lambda root: root["s"].update({"late": 5}),
    "no decisions": lambda root: root["s"].pop("decisions"),
    "decisions that are none": lambda root: root["s"].update({"decisions": "x"}),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_what_was_suggested_and_decided_stays_whoever_writes_over_it(world, what):
    decide(world, "bob", 0, accepted=True)
    before = found(world)
    assert (before.settled["0"].by, draft(world)) == ("bob", "We go by train, at noon.")
    write(world, "eve", lambda view: FORGERIES[what](view.suggestions._root))
    assert found(world) == before
    assert world.network.engine.view.suggestions.decisions("s").keys() == {"0:bob"}
    assert violations(world)
    world.network.crash()
    for name in world.network.peers:
        world.network.connect(name, rights=KNOWN)
    world.network.run_until_quiet()
    assert found(world) == before
    decide(world, "ann", 1, accepted=True)
    assert draft(world) == "We go by train, at dawn."


def test_a_decision_of_somebody_else_is_put_back_as_it_was(world):
    decide(world, "bob", 0, accepted=False)
    decide(world, "eve", 0, accepted=True, name="bob")
    assert found(world).settled["0"].accepted is False
    assert world.network.engine.view.suggestions.decisions("s")["0:bob"][2].accepted is False
    decide(world, "eve", 1, accepted=True, name="bob")
    assert "1" not in found(world).settled
    assert [(each.by, each.piece, each.why) for each in found(world).late] == [
        ("eve", 0, "not-yours"),
        ("eve", 1, "not-yours"),
    ]


def test_who_may_not_decide_changes_nothing(world):
    world.network.add("bot")
    world.network.connect("bot", rights=replace(AGENT))
    world.network.run_until_quiet()
    decide(world, "bot", 0, accepted=True)
    assert (found(world).settled, draft(world)) == ({}, "We go by car, at noon.")
    assert [(each.by, each.why) for each in found(world).late] == [("bot", "role")]


# -- steps -----------------------------------------------------------------------------------------------------------


def work(world, who="bob"):
    """Have somebody change the artifact in a step; return its id."""
    made = []

    def change(content, scribe):
        scribe.splice(content, 0, 2, ())

    write(world, who, lambda view: made.append(view.edits.begin("draft", change, by=who, at=1, run="r")))
    write(world, who, lambda view: view.edits.end(made[0]))
    return made[0]


def step_of(world, step_id):
    entries = [world.network.engine.view.edits.entry(step_id)]
    entries += [peer.replica.view.edits.entry(step_id) for peer in world.network.peers.values()]
    assert all(each == entries[0] for each in entries)
    return entries[0]


def test_a_step_is_by_whoever_made_it_and_ends_when_they_say(world):
    step_id = work(world)
    step = step_of(world, step_id)["step"]
    assert (step["by"], step["length"] > 0) == ("bob", True)
    assert [each["content"] for each in step["deleted"]] == [[["We", {}]]]
    assert violations(world, "bob") == set()


STEP_FORGERIES = {
    "another client": lambda root, id: root[id].update({"step": {**root[id]["step"], "client": 1001}}),
    "no end": lambda root, id: root[id].update({"step": {**root[id]["step"], "length": 10**6}}),
    "other text": lambda root, id: root[id].update({"step": {**root[id]["step"], "deleted": []}}),
    "undone": lambda root, id: root[id].update({"undone": {"by": "eve", "at": 1}}),
    "nothing": lambda root, id: root.pop(id),
    "no map": lambda root, id: root.update({id: 5}),
    "no step": lambda root, id: root[id].pop("step"),
}


@pytest.mark.parametrize("what", STEP_FORGERIES)
def test_a_step_stays_as_it_was_made(world, what):
    step_id = work(world)
    before = step_of(world, step_id)
    write(world, "eve", lambda view: STEP_FORGERIES[what](view.edits._root, step_id))
    assert step_of(world, step_id) == before
    assert violations(world) == {"edits"}


def test_who_made_a_step_cannot_say_later_that_it_was_another_one(world):
    step_id = work(world)
    before = step_of(world, step_id)
    for what in ("another client", "other text", "undone", "nothing"):
        write(world, "bob", lambda view, what=what: STEP_FORGERIES[what](view.edits._root, step_id))
        assert step_of(world, step_id) == before


def test_a_step_that_names_the_client_of_somebody_else_is_taken_away(world):
    """To undo it would take away what that client wrote."""
    client = world.network.peers["ann"].replica.document.doc.client_id
    step = {"artifact": "draft", "run": "r", "by": "ann", "at": 1, "client": client, "clock": 0, "deleted": []}
    write(world, "eve", lambda view: view.edits._root.update({f"{client}-0": Map({"step": step})}))
    assert step_of(world, f"{client}-0") is None
    assert violations(world) == {"edits"}


def test_a_step_in_somebody_elses_name_is_its_authors(world):
    own = world.network.peers["eve"].replica.document.doc.client_id
    step = {"artifact": "draft", "by": "ann", "at": 1, "client": own, "clock": 0, "deleted": []}
    write(world, "eve", lambda view: view.edits._root.update({f"{own}-0": Map({"step": step})}))
    assert step_of(world, f"{own}-0")["step"]["by"] == "eve"


@given(st.data())
def test_whatever_somebody_else_writes_there_what_was_settled_is_what_all_read(data):
    world = begun()
    decide(world, "bob", 0, accepted=True)
    step_id = work(world)
    before = found(world), step_of(world, step_id), draft(world)
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            forgery = FORGERIES[data.draw(st.sampled_from(sorted(FORGERIES)))]
            change = lambda view, forgery=forgery: forgery(view.suggestions._root)  # noqa: E731
        else:
            other = STEP_FORGERIES[data.draw(st.sampled_from(sorted(STEP_FORGERIES)))]
            change = lambda view, other=other: other(view.edits._root, step_id)  # noqa: E731
        with suppress(KeyError, TypeError, AttributeError):  # what it writes over is no more
            world.network.edit("eve", change)
        if data.draw(st.booleans()):
            world.network.run_until_quiet()
    world.network.run_until_quiet()
    assert (found(world), step_of(world, step_id), draft(world)) == before
    world.network.close()


# -- who is forgotten ------------------------------------------------------------------------------------------------


def test_what_is_kept_of_somebodys_deleted_text_can_be_forgotten(world):
    step_id = work(world)
    edits = world.network.engine.view.edits
    ann = {world.network.peers["ann"].replica.document.doc.client_id}
    assert edits.about("eve", ()) == edits.about("eve", {4711}) == []
    assert edits.about("bob", ()) == edits.about("ann", ann) == [step_id]
    write(world, "bob", lambda view: view.edits.forget(["nothing"]))
    network = world.network
    _, effects = network.engine.edit(lambda view: view.edits.forget([step_id]), network.now)
    network._perform(network.engine, effects)
    network.run_until_quiet()
    assert step_of(world, step_id) is None
    assert "We" not in str(network.engine.view.edits._root.to_py())
    assert Settled(accepted=True, by="x", at=1).outdated is None

"""What was read of runs is not read again, and is never told once something else stands there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Map, Text

from crdt_sessions.model import Run, RunCancel, RunRequest, SessionDoc, SessionView
from crdt_sessions.model.run_values import RunOutcome
from crdt_sessions.model.runs import Runs, output_id, output_of
from crdt_sessions.wire.varint import decode_state_vector

IDS = ["a", "b", "a:child"]
REQUESTS = [RunRequest(message_id=name, agent="x", created_at=at) for name, at in (("m", 1), ("n", 2))]


def _settled(run_id: str, status: str | None, superseded_by: str | None = None) -> Run:
    outcome = RunOutcome(reason="r", ended_at=1, superseded_by=superseded_by) if status == "cancelled" else None
    return Run(id=run_id, status=status, outcome=outcome)


def _settle(status: str | None, superseded_by: str | None = None) -> Any:
    return lambda doc, run_id: SessionView(doc).runs.settle(_settled(run_id, status, superseded_by))


CHANGES = [
    *(lambda doc, run_id, each=each: SessionView(doc).runs.request(run_id, each) for each in REQUESTS),
    lambda doc, run_id: SessionView(doc).runs.cancel(run_id, RunCancel(at=1)),
    lambda doc, run_id: SessionView(doc).runs.consume(run_id, "m"),
    lambda doc, run_id: SessionView(doc).runs.ask_as(run_id, "somebody"),
    lambda doc, run_id: SessionView(doc).runs.put_back(run_id, "request", {"messageId": "n", "createdAt": 3}),
    lambda doc, run_id: SessionView(doc).runs.put_back(run_id, "output", "n"),
    lambda doc, run_id: SessionView(doc).runs.put_back(run_id, "output", 7),
    lambda doc, run_id: SessionView(doc).runs.put_back(
        run_id, "request", {"messageId": "m", "createdAt": 4, "trigger": "continue", "parent": "a", "key": "child"}
    ),
    _settle("running"),
    _settle("completed"),
    _settle("cancelled", "b"),
    _settle(None),
    # What participants write, past everything that knows runs.
    lambda doc, run_id: doc.roots.runs.pop(run_id, None),
    lambda doc, run_id: doc.roots.runs.update({run_id: 7}),
    lambda doc, run_id: doc.roots.runs.update({run_id: Map({"request": Map({"messageId": "m", "createdAt": 1})})}),
]


def looked_at(runs: Runs) -> Any:
    """Return everything that can be asked of runs."""
    return (
        [runs.read(run_id) for run_id in IDS],
        runs.all(),
        runs.unfinished(),
        [runs.asked_of(message) for message in ("m", "n")],
        [runs.superseded_by(run_id) for run_id in IDS],
        runs.delegated(),
        [runs.children(run_id) for run_id in IDS],
        [runs.writers_of(message) for message in ("m", "n", *map(output_of, IDS))],
    )


def found_by_looking_through_all(runs: Runs) -> Any:
    """Return what finds runs, of the values of all of them."""
    every = runs.all()
    asked = [run for run in every if run.request is not None]
    return (
        [run for run in every if not run.over and run.due is None],
        [[run for run in asked if run.request.message_id == message] for message in ("m", "n")],
        [[run for run in every if output_id(run) == message] for message in ("m", "n", *map(output_of, IDS))],
        [[run for run in every if ":" in run.id and run.parent == parent] for parent in IDS],
    )


def looked_at_anew(doc: SessionDoc) -> Any:
    """Return the same of a replica that has read nothing."""
    fresh = SessionDoc(99)
    fresh.apply(doc.encode())
    try:
        return looked_at(SessionView(fresh).runs)
    finally:
        fresh.close()


changes = st.tuples(st.sampled_from(CHANGES), st.sampled_from(IDS))


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("here"), st.lists(changes, min_size=1, max_size=3)),
            st.tuples(st.just("there"), st.lists(changes, min_size=1, max_size=3)),
            st.tuples(st.just("merge"), st.just([])),
        ),
        max_size=12,
    )
)
def test_what_is_read_is_what_stands(steps):
    here, there = SessionDoc(1), SessionDoc(2)
    try:
        runs = SessionView(here).runs
        for kind, some in steps:
            if kind == "merge":
                here.apply(there.encode(here.state_vector()))
                there.apply(here.encode(there.state_vector()))
            else:
                doc = here if kind == "here" else there

                def change(doc: SessionDoc, some: Any = some) -> None:
                    for write, run_id in some:
                        write(doc, run_id)
                        looked_at(SessionView(doc).runs)

                doc.edit(change)
            assert looked_at(runs) == looked_at_anew(here)
            found = looked_at(runs)
            assert (found[2], found[3], found[7], found[6]) == found_by_looking_through_all(runs)
    finally:
        here.close()
        there.close()


@given(some=st.lists(changes, min_size=1, max_size=4))
def test_within_a_transaction_one_reads_what_one_wrote(some):
    doc = SessionDoc(1)
    runs = SessionView(doc).runs
    doc.edit(lambda _: [runs.request(run_id, REQUESTS[0]) for run_id in IDS])
    looked_at(runs)

    def change(doc: SessionDoc) -> None:
        for write, run_id in some:
            write(doc, run_id)
            looked_at(runs)
            found = runs.value(run_id)
            entry = doc.roots.runs.get(run_id)
            status = entry.get("status") if isinstance(entry, Map) else None
            assert (found.status if found is not None else None) == status

    doc.edit(change)
    doc.close()


@pytest.mark.parametrize("over", [10, 400])
def test_runs_that_are_over_are_not_read_again(over, monkeypatch):
    doc = SessionDoc(1)
    runs = SessionView(doc).runs

    def change(_: SessionDoc) -> None:
        for number in range(over):
            runs.request(f"r{number}", REQUESTS[0])
            runs.settle(_settled(f"r{number}", "completed"))
        runs.request("last", REQUESTS[1])

    doc.edit(change)
    assert [run.id for run in runs.unfinished()] == ["last"]
    gets: list[str] = []
    get = Map.get
    monkeypatch.setattr(Map, "get", lambda self, key, default=None: (gets.append(key), get(self, key, default))[1])
    assert [run.id for run in runs.unfinished()] == ["last"]
    assert [run.id for run in runs.asked_of("n")] == ["last"]
    assert runs.superseded_by("last") == []
    assert gets == []

    doc.edit(lambda _: runs.cancel("last", RunCancel(at=1)))
    assert runs.find("last").cancel is not None
    doc.close()


def test_a_text_within_a_run_that_goes_on_is_read_as_it_is():
    """Text that is known to go on is taken without a note of where."""
    here, there = SessionDoc(1), SessionDoc(2)
    there.edit(lambda doc: doc.roots.runs.update({"a": Map({"note": Text("one")})}))
    here.apply(there.encode())
    runs = SessionView(here).runs
    assert runs.find("a").model_extra == {"note": "one"}
    _, delta = there.edit(lambda doc: doc.roots.runs["a"]["note"].insert(3, " two"))
    clock = decode_state_vector(there.state_vector())[2]
    here.defer(2, clock, delta, delta.rindex(b" two") - 1)
    assert runs.find("a").model_extra == {"note": "one two"}
    here.close()
    there.close()

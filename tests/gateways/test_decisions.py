"""Decisions about tool calls through gateways: those that cannot count are refused with the reason."""

import pytest

from crdt_sessions.errors import AccessDenied, AlreadyDecided, NotAnApprover, NotFound, NothingToDecide
from crdt_sessions.model import RunCancel
from crdt_sessions_server.auth import Principal, Role
from tests.gateways.desk import ANN, desk

BOB = Principal("bob", name="Bob")
YES, NO = {"approved": True}, {"approved": False}


@pytest.fixture
async def asked():
    """A desk at which people are asked about c1, and ann alone about c2."""
    async with desk() as found:
        await found.ai_sdk([{"id": "q", "role": "user", "parts": [{"type": "text", "text": "?"}]}])
        found.run = await found.answer(status="suspended", asks=[("c1", None), ("c2", ["ann"])])
        yield found


async def by_ai_sdk(desk, verdicts, by):
    parts = [
        {"type": "tool-book", "toolCallId": call, "state": "approval-responded", "approval": {"id": call, **verdict}}
        for call, verdict in verdicts.items()
    ]
    return await desk.ai_sdk([{"id": desk.run.output, "role": "assistant", "parts": parts}], by=by)


async def by_ag_ui(desk, verdicts, by):
    resume = [{"interruptId": call, "status": "resolved", "payload": verdict} for call, verdict in verdicts.items()]
    return await desk.ag_ui([], f"resume-{len(verdicts)}-{by.id}", by=by, resume=resume)


DOORS = pytest.mark.parametrize("decide", [by_ai_sdk, by_ag_ui])


def approvals(desk):
    parts = desk.view.messages.value(desk.run.output).parts
    return {part.tool_call_id: part.approval and (part.approval.by, part.approval.approved) for part in parts}


async def test_a_run_that_waits_names_the_calls_and_who_is_asked(asked):
    named = [
        (call.tool_call_id, call.tool_name, call.approvers) for call in asked.view.runs.find(asked.run.id).pending
    ]
    assert named == [("c1", "book", None), ("c2", "book", ["ann"])]


@DOORS
async def test_a_decision_of_a_principal_who_is_not_asked_is_refused_and_not_written(asked, decide):
    with pytest.raises(NotAnApprover, match="'bob' does not decide about the tool call 'c2'; that is for 'ann'"):
        await decide(asked, {"c1": YES, "c2": YES}, BOB)
    assert approvals(asked) == {"c1": None, "c2": None}
    assert asked.view.messages[asked.run.output].tool("c2").decisions() == {}


@DOORS
async def test_a_late_decision_is_refused_with_the_settled_one(asked, decide):
    await decide(asked, {"c1": YES}, BOB)
    assert [call.tool_call_id for call in asked.view.runs.find(asked.run.id).pending] == ["c2"]
    with pytest.raises(AlreadyDecided, match="the tool call 'c1' was approved by 'bob' already") as refused:
        await decide(asked, {"c1": NO}, ANN)
    assert (refused.value.by, refused.value.approved) == ("bob", True)
    assert asked.view.messages.value(asked.run.output).parts[0].late is None


@DOORS
async def test_a_repeated_decision_changes_nothing(asked, decide):
    await decide(asked, {"c1": YES}, BOB)
    await decide(asked, {"c1": YES}, BOB)
    await decide(asked, {"c1": YES}, ANN)
    run = await decide(asked, {"c1": NO, "c2": YES}, ANN)  # the first came too late, and the second counts
    assert approvals(asked) == {"c1": ("bob", True), "c2": ("ann", True)}
    assert (run.id, asked.view.runs.find(run.id).status, asked.view.runs.find(run.id).pending) == (
        asked.run.id, "queued", None,
    )  # fmt: skip


@DOORS
async def test_a_role_that_may_not_decide_is_refused(asked, decide):
    with pytest.raises(AccessDenied, match="the role agent may not decide"):
        await decide(asked, {"c1": YES}, Principal("bot", role=Role.AGENT))


@DOORS
async def test_a_question_that_was_closed_with_its_run_is_not_answered(asked, decide):
    await asked.session.edit(lambda view: view.runs.cancel(asked.run.id, RunCancel(by="ann", at=1)))
    with pytest.raises(AlreadyDecided, match="is not asked about any more: cancelled"):
        await decide(asked, {"c1": YES}, ANN)


async def test_a_call_that_is_not_there_is_refused_with_those_that_wait(asked):
    with pytest.raises(NotFound, match="there is no interrupt 'x'; there are 'c1', 'c2'"):
        await by_ag_ui(asked, {"x": YES, "c1": YES}, ANN)
    with pytest.raises(NotFound, match="'x'; there are 'c1', 'c2'"):
        await by_ai_sdk(asked, {"x": YES}, ANN)
    assert approvals(asked) == {"c1": None, "c2": None}


async def test_a_decision_about_a_call_that_asks_for_none_is_refused():
    async with desk() as found:
        await found.ai_sdk([{"id": "q", "role": "user", "parts": [{"type": "text", "text": "?"}]}])
        found.run = await found.answer(tools=[("c", "look", {"is": "there"})])
        with pytest.raises(NothingToDecide, match="nobody is asked about it"):
            await by_ai_sdk(found, {"c": YES}, ANN)

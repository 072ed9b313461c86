"""How a run on record is shown in the document: writes that the steward makes, and whether they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from crdt_sessions.model import CallResult, Run, SessionView, same_request
from crdt_sessions.model.parts import StreamState
from crdt_sessions.model.run_values import RunStatus
from crdt_sessions.sync.records import ApprovalRecord, CallRecord, RunRecord

Write = Callable[[SessionView], None]


def mirror(record: RunRecord) -> Write:
    """Show what is settled about a run."""
    return lambda view: view.runs.settle(record.run)


def mirrored(record: RunRecord, run: Run) -> bool:
    """Whether the document agrees with the record."""
    request = record.request
    return record.run.settled == run.settled and (request is None or same_request(run, request))


def stands(record: RunRecord, entry: Mapping[str, Any]) -> bool:
    """Whether an entry of the document, unchecked, is what the record says. Where it tells "no", look closer."""
    asked = record.request
    if asked is not None and entry.get("request") != asked.to_json():
        return False
    return all(entry.get(key) == value for key, value in record.run.settled.items())


def overwritten(record: RunRecord, run: Run) -> bool:
    """Whether somebody has written something else over what is settled."""
    asked = record.request
    other = run.request is not None and asked is not None and not same_request(run, asked)
    return other or record.run.settled != run.settled


def close_parts(message_id: str, state: StreamState) -> Write:
    """Close what the writer of a message left open."""

    def write(view: SessionView) -> None:
        message = view.messages.find(message_id)
        if message is not None:
            message.close_parts(state)

    return write


def end_calls(message_id: str, status: RunStatus) -> Write:
    """End the tool calls of a message whose run is over."""

    def write(view: SessionView) -> None:
        message = view.messages.find(message_id)
        if message is not None:
            message.end_calls(status)

    return write


def settle_tool(run: RunRecord, call_id: str, record: ApprovalRecord) -> Write:
    """Show what became of a question to people, where it was asked."""

    def write(view: SessionView) -> None:
        tool = view.messages.find_tool(run.output, call_id)
        if tool is not None:
            tool.settle(record.approval, record.late, record.refused)
            if run.over:
                tool.end(run.status)

    return write


def settle_client_call(
    message_id: str,
    call_id: str,
    record: CallRecord,
    said: CallResult | None = None,
    *,
    gone: Iterable[str] = (),
    again: bool = False,
) -> Write:
    """Show what became of a call that a client executes.

    Args:
        message_id: the message.
        call_id: the call.
        record: what is known of it.
        said: by the device whose result counts from now on.
        gone: the devices that have lost it now; they may offer themselves again.
        again: see :meth:`ToolStream.settle_client_call`.
    """

    def write(view: SessionView) -> None:
        tool = view.messages.find_tool(message_id, call_id)
        if tool is not None:
            for device in gone:
                tool.withdraw(device)
            tool.settle_client_call(record.outcome, record.late, said=said, again=again)

    return write

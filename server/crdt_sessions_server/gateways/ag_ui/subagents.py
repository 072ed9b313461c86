"""The child runs below a run as AG-UI's subagents. Source: AG-UI 1.0, events ``SUBAGENT_*`` and ``subagentRunId``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from crdt_sessions.model import MessageBegan, MessageCursor, Run, SessionView
from crdt_sessions.model.children import task_text
from crdt_sessions.model.runs import output_id
from crdt_sessions.runtime import RunChanged, SessionEvent
from crdt_sessions_server.gateways.ag_ui.messages import Event, MessageEncoder, folded
from crdt_sessions_server.gateways.children import below, by_parent, sifted
from crdt_sessions_server.gateways.run_lookup import failure_of

_DESCRIPTION = 500


class Subagents:
    """The subagents of one stream.

    Args:
        top: the run that the stream follows; None if it follows none.
    """

    def __init__(self, top: str | None) -> None:
        self._top = top
        self._open: dict[str, list[MessageEncoder]] = {}
        self._ended: set[str] = set()

    def take(self, view: SessionView, events: Sequence[SessionEvent]) -> tuple[list[SessionEvent], list[Event]]:
        """Return the events that are about no child run, and what is told of those below the followed one."""
        rest, below = sifted(view, self._top, events)
        told: list[Event] = []
        for child, happened in below.items():
            told += self._tell(view, view.runs.find(child), happened)
        return rest, told

    def written(self, view: SessionView) -> dict[str, list[dict[str, Any]]]:
        """Return what is listed behind each message: what the child runs of those that wrote it have written.

        Those below the followed run are not among them, since events tell of them.
        """
        children = by_parent(view.runs.delegated())
        found: dict[str, list[dict[str, Any]]] = {}
        for run in view.runs.all() if children else ():
            if run.parent is None and run.id != self._top and run.id in children:
                listed = [message for child in below(run.id, children) for message in _messages(view, child)]
                found.setdefault(output_id(run), []).extend(listed)
        return found

    def close(self) -> Iterator[Event]:
        """End what is told of subagents with the stream, also of those that go on."""
        for child in sorted(self._open, key=len, reverse=True):
            yield from self._close(child)
            yield {"type": "SUBAGENT_FINISHED", "subagentRunId": child}

    def _tell(self, view: SessionView, run: Run, events: Sequence[SessionEvent]) -> Iterator[Event]:
        if run.id in self._ended:
            return
        yield from self._start(view, run)
        for event in events:
            if not isinstance(event, RunChanged):
                yield from self._say(run.id, event)
        if run.over:
            yield from self._close(run.id)
            yield _end_of(run)

    def _start(self, view: SessionView, run: Run) -> Iterator[Event]:
        if run.id in self._open:
            return
        parent = view.runs.value(run.parent or "")
        above: Event = {}
        if parent is not None and parent.id != self._top:
            if parent.id not in self._ended:
                yield from self._start(view, parent)
            above = {"parentSubagentRunId": parent.id}
        self._open[run.id] = []
        task = task_text(run.request.task)[:_DESCRIPTION] if run.request is not None else ""
        yield {
            "type": "SUBAGENT_STARTED",
            "subagentRunId": run.id,
            "name": run.agent or "*",
            **({"description": task} if task else {}),
            **above,
        }

    def _say(self, child: str, event: SessionEvent) -> Iterator[Event]:
        if isinstance(event, MessageBegan):
            self._open[child].append(MessageEncoder(event))
        for encoder in self._open[child][-1:]:
            yield from _by(child, encoder.encode(event))

    def _close(self, child: str) -> Iterator[Event]:
        self._ended.add(child)
        for encoder in self._open.pop(child):
            yield from _by(child, encoder.close())


def _messages(view: SessionView, child: Run) -> Iterator[dict[str, Any]]:
    """Yield what a child run has written, as messages."""
    message = view.messages.find(output_id(child))
    events = MessageCursor().advance(message) if message is not None else []
    if not events or not isinstance(events[0], MessageBegan):
        return
    encoder = MessageEncoder(events[0])
    told = [spelled for event in events for spelled in encoder.encode(event)]
    for listed in folded([event for event in told if event["type"] != "CUSTOM"]):
        yield {**listed, "subagentRunId": child.id}


def _by(child: str, events: Iterator[Event]) -> Iterator[Event]:
    return ({**event, "subagentRunId": child} for event in events)


def _end_of(run: Run) -> Event:
    if run.status == "completed":
        return {"type": "SUBAGENT_FINISHED", "subagentRunId": run.id, "outcome": {"type": "success"}}
    code, why = failure_of(run)
    return {"type": "SUBAGENT_ERROR", "subagentRunId": run.id, "message": why, **({"code": code} if code else {})}

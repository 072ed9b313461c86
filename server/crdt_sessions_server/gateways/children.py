"""Child runs in a stream: which events are about them, and what is told of one to clients without a form for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from crdt_sessions.model import Run, SessionView, child_order, may_be_child, output_of
from crdt_sessions.runtime import RunChanged, Session, SessionEvent

_GROWTH = 1.25
"""A text that goes on is told anew once it is so much longer: it costs what it is long, not the square of that."""


def is_about_child(view: SessionView, subject: tuple[str, str]) -> bool:
    """Whether a subject of the session is a child run, or the message of one."""
    kind, id = subject
    if kind == "message":
        return view.messages.is_beside(id)
    run = view.runs.value(id) if kind == "run" and may_be_child(id) else None
    return run is not None and run.parent is not None


def subjects_below(session: Session, run_id: str) -> Iterator[tuple[str, str]]:
    """Yield the child runs below a run as subjects of the session, and their messages."""
    for child in session.engine.runs.table.children_of(run_id):
        yield from (("run", child.id), ("message", child.output))
        yield from subjects_below(session, child.id)


def sifted(
    view: SessionView, top: str | None, events: Sequence[SessionEvent]
) -> tuple[list[SessionEvent], dict[str, list[SessionEvent]]]:
    """Return the *events* that are about no child run, and by child those about the ones below the run *top*.

    A child stands behind its parent, whose id is shorter.
    """
    rest: list[SessionEvent] = []
    nested: dict[str, list[SessionEvent]] = {}
    for event in events:
        child = _child(view, event)
        if child is None:
            rest.append(event)
        elif top is not None and view.runs.is_below(child, top):
            nested.setdefault(child, []).append(event)
    return rest, {child: nested[child] for child in sorted(nested, key=lambda id: (len(id), id))}


def _child(view: SessionView, event: SessionEvent) -> str | None:
    """Return the child run that an event is about."""
    if isinstance(event, RunChanged):
        return event.run.id if event.run.parent is not None else None
    message = getattr(event, "message", None)
    found = view.messages.find(message) if message is not None and view.messages.is_beside(message) else None
    return (found.run_id or "") if found is not None else None


class ChildRuns:
    """The child runs below a run, each as a value that takes the place of the one before.

    Args:
        top: the run; None to tell of no child.
    """

    def __init__(self, top: str | None) -> None:
        self._top = top
        self._told: dict[str, tuple[Any, ...]] = {}

    def take(
        self, view: SessionView, events: Sequence[SessionEvent]
    ) -> tuple[list[SessionEvent], list[dict[str, Any]]]:
        """Return the events that are about no child, and what is to be told of the children."""
        rest, nested = sifted(view, self._top, events)
        return rest, [told for child in nested if (told := self._progress(view, view.runs.find(child))) is not None]

    def _progress(self, view: SessionView, run: Run) -> dict[str, Any] | None:
        value = child_value(view, run)
        text = len(value["text"])
        mark = (run.status, len(run.pending or ()), run.usage)
        *known, length = self._told.get(run.id, (None, 0))
        if tuple(known) == mark and text < max(length * _GROWTH, length + 1):
            return None
        self._told[run.id] = (*mark, text)
        return value


def child_value(view: SessionView, run: Run) -> dict[str, Any]:
    """Return what is told of a child run: who does what for whom, how far that is, and what it has written."""
    message, request = view.messages.value(run.output or output_of(run.id)), run.request
    value = {
        "runId": run.id,
        "parentRunId": run.parent,
        "agent": run.agent,
        "key": request.key if request is not None else None,
        "task": request.task if request is not None else None,
        "status": run.status or "queued",
        "reason": run.outcome.reason if run.outcome is not None and run.status != "completed" else None,
        "pending": [call.tool_call_id for call in run.pending or ()] or None,
    }
    known = {name: each for name, each in value.items() if each is not None}
    return known | {"text": message.text if message is not None else ""}


def by_parent(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return the child runs among *runs*, by their parents."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.parent is not None:
            found.setdefault(run.parent, []).append(run)
    return {parent: sorted(children, key=child_order) for parent, children in found.items()}


def below(top: str, children: Mapping[str, list[Run]]) -> Iterator[Run]:
    """Yield the child runs below a run, each behind its parent; *children* are those of each run."""
    for child in children.get(top, ()):
        yield child
        yield from below(child.id, children)


def waiting_below(view: SessionView, run: Run) -> list[Run]:
    """Return the child runs below *run* that wait for people; none while any other work below it goes on."""
    return _waiting(run.id, by_parent(view.runs.unfinished())) or []


def _waiting(top: str, children: Mapping[str, list[Run]]) -> list[Run] | None:
    """Return the runs below *top* that wait for people; None if others go on."""
    found: list[Run] = []
    for child in children.get(top, ()):
        under = _waiting(child.id, children)
        asks = child.status == "suspended" and bool(child.pending)
        if under is None or not (under or asks):
            return None
        found += [*([child] if asks else []), *under]
    return found

"""Which run a client means, and how far it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from crdt_sessions.model import ANY_AGENT, Run, SessionView
from crdt_sessions_server.gateways.front_end import waits_for_device


def has_paused(run: Run) -> bool:
    """Whether a run has ended, or waits for people."""
    return run.over or run.status == "suspended"


def rests(run: Run) -> bool:
    """Whether a run has ended, or waits for what no stream of a front end can bring: the decision of people."""
    return has_paused(run) and not waits_for_device(run)


def failure_of(run: Run) -> tuple[str | None, str]:
    """Return the code and the message of a run that failed or was interrupted."""
    error = run.outcome.error if run.outcome is not None else None
    return (run.status, f"the run was {run.status}") if error is None else (error.code, error.message or error.code)


def absence(run: Run, *, away: bool) -> dict[str, Any]:
    """Return what a client of a stream is told when the agent of its run is not there, or is there again."""
    return {"runId": run.id, "agent": run.agent or ANY_AGENT, "away": away}


def active_run(view: SessionView) -> Run | None:
    """Return the running run, or the first that is queued or waits for a device; None if there is none."""
    going = [run for run in view.runs.answering() if not rests(run)]
    return next((run for run in going if run.status == "running"), going[0] if going else None)


def joined_run(view: SessionView) -> Run | None:
    """Return the run that a joining client follows: the active one, or else the last that waits for people."""
    waiting = [run for run in view.runs.answering() if run.status == "suspended"]
    return active_run(view) or (waiting[-1] if waiting else None)


def writer_of(view: SessionView, message_id: str) -> Run | None:
    """Return the run that writes a message, or wrote it last; None if there is none."""
    return _latest(view.runs.writers_of(message_id))


def takes_outputs(writer: Run | None) -> bool:
    """Whether a client may answer the calls of a message: not while the agent may do so itself."""
    return writer is None or writer.over or (writer.request is not None and writer.request.trigger == "continue")


def answering(view: SessionView, message_id: str) -> Run | None:
    """Return the run that answers a message, or answered it last; None if there is none."""
    return _latest(run for run in view.runs.asked_of(message_id) if run.parent is None)


def wants_another(view: SessionView, message_id: str) -> bool:
    """Whether a client that repeats a question, and says no more, wants another answer to it.

    It does if the question was answered and is the last one. Otherwise the client has not seen the later messages,
    and gets them.
    """
    run = answering(view, message_id)
    asked = [message.id for message in view.conversation() if message.role == "user"]
    return run is not None and run.over and asked[-1:] == [message_id]


def _latest(runs: Iterable[Run]) -> Run | None:
    found = list(runs)
    return next((run for run in reversed(found) if not run.over), found[-1] if found else None)

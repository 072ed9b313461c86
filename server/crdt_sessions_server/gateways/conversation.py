"""What gateways have in common: asking, following what is answered, deciding, stopping."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from quart import g, request

from crdt_sessions.errors import BadParameter, NotFound
from crdt_sessions.ids import Millis, SessionId, session_id
from crdt_sessions.model import (
    ANY_AGENT,
    Decision,
    MessageHead,
    Run,
    RunCancel,
    RunRequest,
    SessionView,
    answer_to,
    output_of,
)
from crdt_sessions.model.values import Role, Trigger
from crdt_sessions.runtime import Projector, RunChanged, Session, SessionEvent
from crdt_sessions_server.access import Permission, Principal, Visit, current_door
from crdt_sessions_server.asgi import Scope, http_token

_ID_CHARACTERS = 200
RUN_HEADER, SESSION_HEADER = "X-Run-Id", "X-Session-Id"


@dataclass(frozen=True, slots=True)
class Said:
    """A message as a client of a gateway sends it."""

    id: str
    role: Role
    parts: Sequence[Any]
    """Of layout 1."""
    parent: str | None = None
    """What it comes after, where a client knows branches; whatever stood last if None."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a client wants to be answered.

    Args:
        history: what it sends along, oldest first. What the session has, by id, is left as it is.
        agent: who is to answer; who the session says, or anybody, if None.
        trigger: ``regenerate`` makes another answer to what was asked before.
    """

    history: Sequence[Said]
    agent: str | None = None
    trigger: Trigger = "submit"
    asked: str | None = None
    """The message to answer; the last one of *history* if None."""
    replaces: str | None = None
    """The message that the last one of *history* is another version of."""
    run: str | None = None
    """The id of the run; made of the message's if None."""


async def visit_for(scope: Scope, token: str | None, name: str, needs: Permission) -> tuple[Visit, SessionId]:
    """Return who asks for the session *name*, and that session, where it is named in a body and not in the path.

    Raises:
        NotAuthenticated, AccessDenied, BadSessionId: they may not.
        TooMany: they ask too often.
    """
    session_id(name)
    door = current_door()
    visit = await door.admit(scope, token, name, needs)
    door.count_request(visit.principal, needs)
    return visit, session_id(name, visit.principal.tenant)


async def asked_in_body(name: str, needs: Permission = Permission.POST) -> tuple[Principal, SessionId]:
    """Return who makes the current HTTP request, and the session that its body names. Raises as :func:`visit_for`."""
    scope = dict(request.scope)
    g.visit, session = await visit_for(scope, http_token(scope), name, needs)
    return g.visit.principal, session


def checked_id(id: str, name: str) -> str:
    """Return *id* if a document can hold it as a message's or a run's.

    Raises:
        BadParameter: it is empty, or longer than 200 characters.
    """
    if not 0 < len(id) <= _ID_CHARACTERS:
        raise BadParameter(name=name, text=id[:_ID_CHARACTERS])
    return id


async def ask(session: Session, question: Question, principal: Principal, now: Millis) -> Run:
    """Write down what the session lacks of a question's history, and ask for a run; return it once both are durable.

    Doing it again changes nothing: messages are known by their ids, and so is the run that answers one.

    Raises:
        NotFound: there is nothing to be answered.
        SessionClosed, StorageError: it could not be written.
    """

    def change(view: SessionView) -> str:
        asked = question.asked or _add(view, question, principal, now)
        if asked is None or asked not in view.messages:
            raise NotFound(what="message to answer", id=asked or "")
        again = question.trigger == "regenerate"
        run_id = question.run or (f"run-{uuid.uuid4().hex}" if again else answer_to(asked))
        view.runs.request(
            run_id,
            RunRequest(
                message_id=asked,
                agent=question.agent or view.meta.agent or ANY_AGENT,
                trigger=question.trigger,
                by=principal.id,
                created_at=now,
            ),
        )
        return run_id

    run_id = await session.edit(change, by=principal.by)
    return session.view.runs.find(run_id)


def _add(view: SessionView, question: Question, principal: Principal, now: Millis) -> str | None:
    """Add what is not there; return the last message's id."""
    for said in question.history:
        last = said is question.history[-1]
        head = MessageHead(
            id=checked_id(said.id, "message id"),
            role=said.role,
            author=principal.author,
            parent=said.parent if said.parent in view.messages and not (last and question.replaces) else None,
            replaces=question.replaces if last else None,
            created_at=now,
        )
        view.messages.add(head, list(said.parts))
    return question.history[-1].id if question.history else None


async def follow_run(session: Session, run_id: str) -> AsyncIterator[list[SessionEvent]]:
    """Yield what a run does and writes, from its beginning, until it has ended or waits for people.

    Raises:
        NotFound: there is no such run.
        ShuttingDown, StorageError: the session cannot be followed any more.
    """
    run = session.view.runs.find(run_id)
    subjects = {("run", run_id), ("message", output_id(run))}
    projector = Projector(session, wants=subjects.__contains__, presence=False)
    while True:
        await projector.wait()
        events = projector.take()
        if events:
            yield events
        if any(isinstance(event, RunChanged) and has_paused(event.run) for event in events):
            return


def has_paused(run: Run) -> bool:
    """Whether nothing more comes of a run by itself: it has ended, or waits for people."""
    return run.over or run.status == "suspended"


def failure_of(run: Run) -> tuple[str | None, str]:
    """Return the code and the words for what became of a run that failed or was interrupted."""
    error = run.outcome.error if run.outcome is not None else None
    return (run.status, f"the run was {run.status}") if error is None else (error.code, error.message or error.code)


def output_id(run: Run) -> str:
    """Return the id of the message that a run writes, or will."""
    if run.output is not None:
        return run.output
    continues = run.request is not None and run.request.trigger == "continue"
    return run.request.message_id if run.request is not None and continues else output_of(run.id)


def active_run(view: SessionView) -> Run | None:
    """Return the run that is worked on, or the first that waits for its turn; None if there is none."""
    going = [run for run in view.runs.unfinished() if not has_paused(run)]
    return next((run for run in going if run.status == "running"), going[0] if going else None)


async def stop(session: Session, principal: Principal, now: Millis, run_id: str | None = None) -> list[str]:
    """Press stop: for one run, or for all that are not over; return which. It is durable when this returns.

    Raises:
        NotFound: there is no such run.
    """
    view = session.view
    runs = [view.runs.find(run_id)] if run_id is not None else view.runs.unfinished()
    wanted = [run.id for run in runs if not run.over]
    cancel = RunCancel(by=principal.id, at=now)

    def change(view: SessionView) -> None:
        for each in wanted:
            view.runs.cancel(each, cancel)

    if wanted:
        await session.edit(change)
    return wanted


async def decide(
    session: Session, principal: Principal, now: Millis, message_id: str, verdicts: dict[str, tuple[bool, str | None]]
) -> None:
    """Say what *principal* thinks of tool calls of a message; the steward settles what counts.

    The verdicts are tool call ids to whether it may go on, and why. Calls that nobody asks about are left out.

    Raises:
        AccessDenied: they may not decide.
    """
    if verdicts:
        principal.require(Permission.DECIDE)

    def change(view: SessionView) -> None:
        for call, (approved, reason) in verdicts.items():
            tool = view.messages[message_id].tool(call)
            if tool is not None and tool.approval_request is not None:
                tool.decide(principal.id, Decision(approved=approved, reason=reason, at=now))

    if verdicts:
        await session.edit(change)


async def steer(session: Session, said: Said, principal: Principal, now: Millis, run_id: str | None = None) -> Run:
    """Say something to the run *run_id*, or to the one that goes on; return it. If it is over, that is a question.

    Raises:
        NotFound: there is no such run.
    """
    run = session.view.runs.find(run_id) if run_id is not None else active_run(session.view)
    if run is None or run.over:
        return await ask(session, Question([said], run.agent if run is not None else None), principal, now)
    head = MessageHead(
        id=checked_id(said.id, "message id"), role="user", author=principal.author, steers=run.id, created_at=now
    )
    await session.edit(lambda view: view.messages.add(head, list(said.parts)), by=principal.by)
    return run


def is_answered(view: SessionView, message_id: str) -> bool:
    """Whether a run that has ended was asked to answer a message: to ask again is to want another answer."""
    requests = (run.request for run in view.runs.all() if run.over)
    return any(request is not None and request.message_id == message_id for request in requests)

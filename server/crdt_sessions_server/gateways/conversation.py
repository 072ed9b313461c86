"""The common part of all gateways: asking, following the answer, deciding, stopping."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from quart import g, request

from crdt_sessions.errors import EmptyMessage, NotFound
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
    say_nothing,
)
from crdt_sessions.model.strings import checked_id, derived
from crdt_sessions.model.values import Trigger
from crdt_sessions.runtime import Projector, RunChanged, Session, SessionEvent, SessionRegistry, known_agents
from crdt_sessions_server.asgi import Scope, http_token
from crdt_sessions_server.auth import Admission, Admitted, Permission, Principal, current_admission
from crdt_sessions_server.gateways.transcript import Said, lacking, question_of
from crdt_sessions_server.http.schemas import Answer
from crdt_sessions_server.http.streaming import compact
from crdt_sessions_server.rest.decisions import write_decisions

RUN_HEADER, SESSION_HEADER = "X-Run-Id", "X-Session-Id"


class StopRequest(BaseModel):
    """Which runs to stop."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    run_id: str | None = Field(None, description="The run; all that are not over if absent.")


class Stopped(Answer):
    """What was stopped."""

    stopped: list[str] = Field(description="The runs.")


class Going(Answer):
    """Who answers."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a client wants to be answered.

    Args:
        history: the conversation as it has it, oldest first. What the session has, by id, is left as it is.
        agent: the agent that answers; if None, the session's default, or any.
        trigger: ``regenerate`` makes another answer to an earlier question.
    """

    history: Sequence[Said]
    agent: str | None = None
    trigger: Trigger = "submit"
    asked: str | None = None
    """The message to answer; the question that *history* ends with if None."""
    run: str | None = None
    """The id of the run; made of the message's if None."""
    branches: bool = False
    """Whether the client knows the session's messages by its own ids, so that its place in them is meant."""
    also: Callable[[SessionView], None] = lambda _: None
    """What else is written down in the same change."""


async def admit_to(
    admission: Admission, scope: Scope, token: str | None, name: str, needs: Permission
) -> tuple[Admitted, SessionId]:
    """Return who asks for the session *name*, and that session, where it is named in a body and not in the path.

    Raises:
        NotAuthenticated, AccessDenied, BadSessionId: they may not.
        TooMany: they ask too often.
    """
    session_id(name)
    admitted = await admission.admit(scope, token, name, needs)
    admission.count_request(admitted.principal, needs)
    return admitted, session_id(name, admitted.principal.tenant)


async def who_asks() -> Principal:
    """Return who makes the current HTTP request, where the session's name depends on it.

    Raises:
        NotAuthenticated, TooMany: as :func:`admit_to`.
    """
    scope = dict(request.scope)
    return (await current_admission().admit(scope, http_token(scope), None)).principal


async def asked_in_body(name: str, needs: Permission = Permission.POST) -> tuple[Principal, SessionId]:
    """Return who makes the current HTTP request, and the session that its body names. Raises as :func:`admit_to`."""
    scope = dict(request.scope)
    g.admitted, session = await admit_to(current_admission(), scope, http_token(scope), name, needs)
    return g.admitted.principal, session


async def check_agent(
    registry: SessionRegistry, principal: Principal, agent: str | None, *, what: str = "agent"
) -> None:
    """Return if a client that names an agent may expect one of that name: it has been here, or answers by default.

    Raises:
        NotFound: there is none; the error has those there are.
    """
    if agent in (None, ANY_AGENT):
        return
    known = await known_agents(registry, principal.tenant)
    if agent not in known:
        raise NotFound(what=what, id=agent or "", known=known)


async def ask(session: Session, question: Question, principal: Principal, now: Millis) -> Run:
    """Write down what the session lacks of a question's history, and ask for a run; return it once both are durable.

    Doing it again changes nothing: messages are known by their ids, and so is the run that answers one. What is being
    answered is not asked again, whatever the run is called: that run is returned.

    Raises:
        NotFound: there is nothing to be answered.
        EmptyMessage: the question is empty.
        BadParameter, BadValue, TooLarge: the history cannot be taken; nothing of it was written.
        SessionClosed, StorageError: it could not be written.
    """

    def change(view: SessionView) -> str:
        asked = question.asked or question_of(question.history)
        brought = lacking(
            view,
            question.history,
            principal,
            now,
            asked=asked,
            branches=question.branches,
        )
        if asked is None or not (asked in view.messages or brought.holds(asked)):
            raise NotFound(what="message to answer", id=asked or "")
        if question.trigger != "continue":
            _check_says_something(view, asked, question.history)
        session.check_room(brought.size)
        brought.write(view)
        question.also(view)
        if (going := _going(view, asked, question)) is not None:
            return going.id
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

    run_id = await session.edit(change, by=principal.by, decides=principal.can(Permission.DECIDE))
    return session.view.runs.find(run_id)


def _check_says_something(view: SessionView, asked: str, history: Sequence[Said]) -> None:
    known = view.messages.value(asked)
    parts = (
        known.parts if known is not None else [part for said in history if said.id == asked for part in said.parts]
    )
    if say_nothing(parts):
        raise EmptyMessage


def continuation(message_id: str, calls: Iterable[str]) -> str:
    """Return the id of the run that goes on with a message when these tool calls have been answered."""
    digest = hashlib.sha256(compact(sorted(calls)).encode()).hexdigest()[:16]
    return derived("run-", message_id, f"-{digest}")


def _going(view: SessionView, asked: str, question: Question) -> Run | None:
    """Return the run that is about to do what *question* asks for, if one is."""
    if question.run is not None and question.run in view.runs:
        return None  # it is asked for again by its own id
    for run in reversed(view.runs.unfinished()):
        request = run.request
        if request is None or request.message_id != asked or view.runs.cancelled(run.id):
            continue
        another = question.agent not in (None, ANY_AGENT, request.agent)
        if another or (request.trigger == "continue") != (question.trigger == "continue"):
            continue
        missed = question.trigger == "continue" and run.status == "running"  # what is brought now it has not seen
        dismissed = question.trigger == "regenerate" and run.status == "suspended"  # it waits, and is not waited for
        if not missed and not dismissed:
            return run
    return None


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


def joined_run(view: SessionView) -> Run | None:
    """Return the run that one who joins is told of: the active one, or else the last that waits for people."""
    waiting = [run for run in view.runs.unfinished() if run.status == "suspended"]
    return active_run(view) or (waiting[-1] if waiting else None)


def writer_of(view: SessionView, message_id: str) -> Run | None:
    """Return the run that writes a message, or the last that did; None if none did."""
    return _latest(run for run in view.runs.all() if output_id(run) == message_id)


def takes_outputs(writer: Run | None) -> bool:
    """Whether the calls of a message may be answered by a client: not while the agent is about to do that itself."""
    return writer is None or writer.over or (writer.request is not None and writer.request.trigger == "continue")


def answering(view: SessionView, message_id: str) -> Run | None:
    """Return the run that answers a message, or the last that did; None if nobody was asked to."""
    runs = (run for run in view.runs.all() if run.request is not None and run.request.message_id == message_id)
    return _latest(runs)


def _latest(runs: Iterable[Run]) -> Run | None:
    found = list(runs)
    return next((run for run in reversed(found) if not run.over), found[-1] if found else None)


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

    Clients repeat what they said of earlier calls with what they say of later ones. So one that came too late, or was
    decided like that by somebody else, is left aside as long as something else counts, or nothing is against it.

    Args:
        session: the session.
        principal: who decides.
        now: the time.
        message_id: the message.
        verdicts: tool call to whether it may go on, and why.

    Raises:
        AccessDenied: they may not decide.
        NotFound, NothingToDecide: nobody is asked about one of the calls.
        AlreadyDecided: all that was said came too late.
    """
    if not verdicts:
        return
    principal.require(Permission.DECIDE)
    decisions = {
        call: Decision(approved=approved, reason=reason, at=now) for call, (approved, reason) in verdicts.items()
    }
    late = await write_decisions(session, writer_of(session.view, message_id), message_id, decisions, principal)
    for each in late:
        if len(late) == len(decisions) and decisions[each.call].approved != each.approved:
            raise each


async def steer(session: Session, said: Said, principal: Principal, now: Millis, run_id: str | None = None) -> Run:
    """Say something to the run *run_id*, or to the one that goes on; return it. If it is over, that is a question.

    Raises:
        NotFound: there is no such run.
    """
    if say_nothing(said.parts):
        raise EmptyMessage
    run = session.view.runs.find(run_id) if run_id is not None else active_run(session.view)
    if run is None or run.over:
        return await ask(session, Question([said], run.agent if run is not None else None), principal, now)
    head = MessageHead(
        id=checked_id(said.id, "message id"),
        role="user",
        author=principal.author,
        steers=run.id,
        metadata=said.metadata,
        created_at=now,
    )
    await session.edit(lambda view: view.messages.add(head, list(said.parts)), by=principal.by)
    return run


def wants_another(view: SessionView, message_id: str) -> bool:
    """Whether to ask a message again, without a word about it, is to want another answer to it.

    So it is if it was answered, and nothing was asked after it. Else it is somebody who does not know what happened
    since: to them it is told.
    """
    run = answering(view, message_id)
    asked = [message.id for message in view.conversation() if message.role == "user"]
    return run is not None and run.over and asked[-1:] == [message_id]

"""The common part of all gateways: ask, follow the answer, decide, steer, stop."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    RunInput,
    RunRequest,
    SessionView,
    answer_to,
    output_of,
    say_nothing,
)
from crdt_sessions.model.checks import json_size
from crdt_sessions.model.run_values import Trigger
from crdt_sessions.model.strings import checked_id, derived
from crdt_sessions.runtime import (
    Attendance,
    Projector,
    RunChanged,
    Session,
    SessionEvent,
    SessionRegistry,
    known_agents,
)
from crdt_sessions_server.asgi import Scope, http_token
from crdt_sessions_server.auth import Admission, Admitted, Permission, Principal, current_admission
from crdt_sessions_server.gateways.children import is_about_child
from crdt_sessions_server.gateways.front_end import waits_for_device
from crdt_sessions_server.gateways.transcript import IncomingMessage, lacking, question_of
from crdt_sessions_server.http.request_forwarding import Answered, answer_elsewhere
from crdt_sessions_server.http.schemas import Answer
from crdt_sessions_server.http.streaming import compact
from crdt_sessions_server.rest.decisions import write_decisions

RUN_HEADER, SESSION_HEADER = "X-Run-Id", "X-Session-Id"


class StopRequest(BaseModel):
    """Which runs to stop."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    run_id: str | None = Field(None, description="The run; all unfinished runs if absent.")


class Stopped(Answer):
    """The stopped runs."""

    stopped: list[str] = Field(description="The runs.")


class Going(Answer):
    """The run that answers."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Question:
    """A client's question.

    Args:
        history: the client's conversation, oldest first. Messages that the session has, by id, stay unchanged.
        agent: the agent that answers; if None, the session's default, or any.
        trigger: ``regenerate`` makes another answer to an earlier question.
    """

    history: Sequence[IncomingMessage]
    agent: str | None = None
    trigger: Trigger = "submit"
    asked: str | None = None
    """The message to answer; if None, the question at the end of *history*."""
    run: str | None = None
    """The id of the run; if None, made of the message's id."""
    branches: bool = False
    """Whether the client knows the session's message ids, so that a message follows the one before it there."""
    input: RunInput | None = None
    """What the agent gets besides the conversation; that of the run it repeats if None."""
    also: Callable[[SessionView], None] = lambda _: None
    """Writes more in the same change."""


async def admit_to(
    admission: Admission, scope: Scope, token: str | None, name: str, needs: Permission
) -> tuple[Admitted, SessionId]:
    """Admit a request that names its session in the body, not in the path; return the admission and the session.

    Raises:
        NotAuthenticated, AccessDenied, BadSessionId: the request is refused.
        TooMany: the principal sends too many requests.
    """
    session_id(name)
    admitted = await admission.admit(scope, token, name, needs)
    admission.count_request(admitted.principal, needs)
    return admitted, session_id(name, admitted.principal.tenant)


async def who_asks() -> Principal:
    """Return the principal of the current HTTP request, before the session's name is known.

    Raises:
        NotAuthenticated, TooMany: as :func:`admit_to`.
    """
    scope = dict(request.scope)
    return (await current_admission().admit(scope, http_token(scope), None)).principal


async def asked_in_body(name: str, needs: Permission = Permission.POST) -> tuple[Principal, SessionId]:
    """Return the principal of the current HTTP request and the session in its body; raises as :func:`admit_to`.

    Raises:
        Answered: another node has the session.
    """
    scope = dict(request.scope)
    g.admitted, session = await admit_to(current_admission(), scope, http_token(scope), name, needs)
    if (answer := await answer_elsewhere(session)) is not None:
        raise Answered(answer)
    return g.admitted.principal, session


async def check_agent(
    registry: SessionRegistry, principal: Principal, agent: str | None, *, what: str = "agent"
) -> None:
    """Return if the named agent is known: it has been connected, or is the default agent.

    Raises:
        NotFound: it is unknown; the error names those that are known.
    """
    if agent in (None, ANY_AGENT):
        return
    known = await known_agents(registry, principal.tenant)
    if agent not in known:
        raise NotFound(what=what, id=agent or "", known=known)


async def ask(session: Session, question: Question, principal: Principal, now: Millis) -> Run:
    """Write the missing messages of a question's history and request a run; return the run once both are durable.

    A repeated question changes nothing: messages and runs are known by their ids. If a run already answers the
    message, under any id, that run is returned.

    Raises:
        NotFound: there is no message to answer.
        EmptyMessage: the question is empty.
        AllowanceSpent: what the principal, or the tenant, may use in a day is used.
        BadParameter, BadValue, TooLarge: the history is refused; nothing of it was written.
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
        session.check_room(brought.size + (json_size(question.input.to_json()) if question.input is not None else 0))
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
                input=question.input,
            ),
        )
        return run_id

    if not _repeats(session.view, question):
        await session.check_allowance(principal.id)
    run_id = await session.edit(change, by=principal.by, decides=principal.can(Permission.DECIDE))
    return session.view.runs.find(run_id)


def _repeats(view: SessionView, question: Question) -> bool:
    """Whether a question begins no run that is not there already, or one that goes on with an answer."""
    asked = question.asked or question_of(question.history)
    if question.trigger == "continue" or asked is None:
        return True
    if question.run is not None or question.trigger == "regenerate":
        return question.run in view.runs if question.run is not None else _going(view, asked, question) is not None
    return answer_to(asked) in view.runs or _going(view, asked, question) is not None


def _check_says_something(view: SessionView, asked: str, history: Sequence[IncomingMessage]) -> None:
    known = view.messages.value(asked)
    parts = (
        known.parts
        if known is not None
        else [part for incoming in history if incoming.id == asked for part in incoming.parts]
    )
    if say_nothing(parts):
        raise EmptyMessage


def continuation(message_id: str, calls: Iterable[str]) -> str:
    """Return the id of the run that continues a message after the results of these tool calls."""
    digest = hashlib.sha256(compact(sorted(calls)).encode()).hexdigest()[:16]
    return derived("run-", message_id, f"-{digest}")


def _going(view: SessionView, asked: str, question: Question) -> Run | None:
    """Return the unfinished run that already does what *question* asks for, if there is one."""
    if question.run is not None and question.run in view.runs:
        return None  # the request repeats its id
    for run in reversed(view.runs.answering()):
        request = run.request
        if request is None or request.message_id != asked or view.runs.cancelled(run.id):
            continue
        another = question.agent not in (None, ANY_AGENT, request.agent)
        if another or (request.trigger == "continue") != (question.trigger == "continue"):
            continue
        missed = question.trigger == "continue" and run.status == "running"  # it has not seen the new results
        dismissed = (
            question.trigger == "regenerate" and run.status == "suspended"
        )  # the client no longer waits for it
        if not missed and not dismissed:
            return run
    return None


async def follow_run(
    session: Session,
    run_id: str,
    *,
    paused: Callable[[Run], bool] | None = None,
    children: bool = False,
    attendance: Attendance | None = None,
) -> AsyncIterator[list[SessionEvent]]:
    """Yield the events of a run and its message, from the beginning, until the run has ended or waits for people.

    *paused* says when that is so, if not as :func:`has_paused` does. With *children* the events of all child runs are
    told, too. With *attendance* it yields also when that has changed.

    Raises:
        NotFound: there is no such run.
        ShuttingDown, StorageError: the session can no longer be followed.
    """
    run = session.view.runs.find(run_id)
    subjects = {("run", run_id), ("message", output_id(run))}

    def wants(subject: tuple[str, str]) -> bool:
        return subject in subjects or (children and is_about_child(session.view, subject))

    projector = Projector(session, wants=wants, presence=False)
    while True:
        came_or_went = False
        if attendance is not None:
            came_or_went = await attendance.wait(projector, run_id)
        else:
            await projector.wait()
        events = projector.take()
        if events or came_or_went:
            yield events
        runs = (event.run for event in events if isinstance(event, RunChanged))
        if any(run.id == run_id and (paused or has_paused)(run) for run in runs):
            return


def absence(run: Run, *, away: bool) -> dict[str, Any]:
    """Return what a client of a stream is told when the agent of its run is not there, or is there again."""
    return {"runId": run.id, "agent": run.agent or ANY_AGENT, "away": away}


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


def output_id(run: Run) -> str:
    """Return the id of the message that a run writes, or will write."""
    if run.output is not None:
        return run.output
    continues = run.request is not None and run.request.trigger == "continue"
    return run.request.message_id if run.request is not None and continues else output_of(run.id)


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
    return _latest(run for run in view.runs.all() if output_id(run) == message_id)


def takes_outputs(writer: Run | None) -> bool:
    """Whether a client may answer the calls of a message: not while the agent may do so itself."""
    return writer is None or writer.over or (writer.request is not None and writer.request.trigger == "continue")


def answering(view: SessionView, message_id: str) -> Run | None:
    """Return the run that answers a message, or answered it last; None if there is none."""
    asked = (run for run in view.runs.all() if run.request is not None and run.parent is None)
    runs = (run for run in asked if run.request is not None and run.request.message_id == message_id)
    return _latest(runs)


def _latest(runs: Iterable[Run]) -> Run | None:
    found = list(runs)
    return next((run for run in reversed(found) if not run.over), found[-1] if found else None)


async def stop(session: Session, principal: Principal, now: Millis, run_id: str | None = None) -> list[str]:
    """Cancel one run, or all unfinished ones; return their ids once that is durable.

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


class Verdict(NamedTuple):
    """What a client says about a tool call."""

    approved: bool
    """Whether it approves, or gives an answer."""
    reason: str | None = None
    value: Any = None
    """The answer, or other input for the tool."""


async def decide(
    session: Session, principal: Principal, now: Millis, message_id: str, verdicts: Mapping[str, Verdict]
) -> None:
    """Propose decisions about tool calls of a message; the steward settles them.

    Clients repeat decisions about earlier calls together with later ones. So a late decision is ignored if another
    one in the request counts, or if it agrees with the settled one.

    Args:
        session: the session.
        principal: decides.
        now: the time.
        message_id: the message.
        verdicts: tool call to what is said about it.

    Raises:
        AccessDenied: the principal may not decide.
        NotFound, NothingToDecide: no decision is asked for one of the calls.
        NotAnAnswer: what is said does not fit what is asked.
        AlreadyDecided: all of them came too late.
    """
    if not verdicts:
        return
    principal.require(Permission.DECIDE)
    decisions = {
        call: Decision(approved=said.approved, reason=said.reason, value=said.value, at=now)
        for call, said in verdicts.items()
    }
    late = await write_decisions(session, writer_of(session.view, message_id), message_id, decisions, principal)
    for each in late:
        if len(late) == len(decisions) and decisions[each.call].approved != each.approved:
            raise each


async def steer(
    session: Session, incoming: IncomingMessage, principal: Principal, now: Millis, run_id: str | None = None
) -> Run:
    """Send a message to the run *run_id*, or the active one; return it. If it is over, the message is a question.

    Raises:
        NotFound: there is no such run.
    """
    if say_nothing(incoming.parts):
        raise EmptyMessage
    run = session.view.runs.find(run_id) if run_id is not None else active_run(session.view)
    if run is None or run.over:
        return await ask(session, Question([incoming], run.agent if run is not None else None), principal, now)
    head = MessageHead(
        id=checked_id(incoming.id, "message id"),
        role="user",
        author=principal.author,
        steers=run.id,
        metadata=incoming.metadata,
        created_at=now,
    )
    await session.edit(lambda view: view.messages.add(head, list(incoming.parts)), by=principal.by)
    return run


def wants_another(view: SessionView, message_id: str) -> bool:
    """Whether a client that repeats a question, and says no more, wants another answer to it.

    It does if the question was answered and is the last one. Otherwise the client has not seen the later messages,
    and gets them.
    """
    run = answering(view, message_id)
    asked = [message.id for message in view.conversation() if message.role == "user"]
    return run is not None and run.over and asked[-1:] == [message_id]

"""The common part of all gateways: ask, follow the answer, decide, steer, stop."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from crdt_sessions.errors import EmptyMessage, NotFound
from crdt_sessions.ids import Millis
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
    say_nothing,
)
from crdt_sessions.model.checks import json_size
from crdt_sessions.model.run_values import Trigger
from crdt_sessions.model.runs import output_id
from crdt_sessions.model.strings import checked_id, derived
from crdt_sessions.runtime import (
    AgentWatch,
    Projector,
    RunChanged,
    Session,
    SessionEvent,
)
from crdt_sessions_server.auth import Permission, Principal
from crdt_sessions_server.gateways.children import is_about_child, subjects_below
from crdt_sessions_server.gateways.run_lookup import active_run, has_paused, writer_of
from crdt_sessions_server.gateways.transcript import IncomingMessage, lacking, question_of
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
    watch: AgentWatch | None = None,
) -> AsyncIterator[list[SessionEvent]]:
    """Yield the events of a run and its message, from the beginning, until the run has ended or waits for people.

    *paused* says when that is so, if not as :func:`has_paused` does. With *children* the events of all child runs are
    told, too. With *watch* it yields also when that has changed.

    Raises:
        NotFound: there is no such run.
        ShuttingDown, StorageError: the session can no longer be followed.
    """
    run = session.view.runs.find(run_id)
    subjects = {("run", run_id), ("message", output_id(run))}
    below = subjects_below(session, run_id) if children else ()

    def wants(subject: tuple[str, str]) -> bool:
        return subject in subjects or (children and is_about_child(session.view, subject))

    projector = Projector(session, wants=wants, first=subjects.union(below), presence=False)
    while True:
        came_or_went = False
        if watch is not None:
            came_or_went = await watch.wait(projector, run_id)
        else:
            await projector.wait()
        events = projector.take()
        if events or came_or_went:
            yield events
        runs = (event.run for event in events if isinstance(event, RunChanged))
        if any(run.id == run_id and (paused or has_paused)(run) for run in runs):
            return


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

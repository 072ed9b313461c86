"""What is asked for: how a request goes on record, whom it is for, and which message it is to write."""

from __future__ import annotations

from typing import get_args

from crdt_sessions.ids import Millis
from crdt_sessions.limits import RunRules
from crdt_sessions.model import RunError, RunRequest, SessionView, output_of, say_nothing
from crdt_sessions.model.parts import being_written
from crdt_sessions.model.run_values import RunPolicy
from crdt_sessions.model.strings import is_agent
from crdt_sessions.sync.actor import Asker
from crdt_sessions.sync.records import RunRecord
from crdt_sessions.sync.runs.schedules import first_due
from crdt_sessions.sync.runs.table import RunTable

LONG_AGO = Asker(decides=False)
"""Who asked for a run that has waited for its time: whether they may decide was not asked then."""


class Requests:
    """Reads the requests of one session.

    Args:
        view: the session's document.
        table: its runs.
        rules: what holds where the session says nothing.
    """

    def __init__(self, view: SessionView, table: RunTable, rules: RunRules) -> None:
        self._view = view
        self._table = table
        self._rules = rules

    def settled(self, request: RunRequest, by: Asker) -> RunRequest:
        """Return a request as it goes on record: it says who asks, and has the input of the run that it repeats.

        That a schedule asks, only the server says. A child run works for whom its parent works for.
        """
        if request.scheduled_by is not None and by is not LONG_AGO:
            request = request.replace(scheduled_by=None)
        parent = self._table.record(request.parent)
        if parent is not None and by.lease == (parent.id, parent.epoch):
            return request.replace(by=parent.request.by if parent.request is not None else None)
        if by.principal is not None and request.by != by.principal:
            request = request.replace(by=by.principal)
        if request.trigger == "submit" or request.input is not None or "input" in request.flaws:
            return request
        continues = request.trigger == "continue"
        asked = request.message_id
        repeated = self._table.writers_of(asked) if continues else self._table.askers_of(asked)
        return with_input_of(request, self._table[repeated[-1]] if repeated else None)

    def asks_nothing(self, request: RunRequest) -> bool:
        """Whether a run would be spent on a message of somebody that says nothing."""
        message = self._view.messages.find(request.message_id) if request.trigger != "continue" else None
        if message is None or any(being_written(part) or not say_nothing([part]) for part in message.part_values()):
            return False  # mostly the first part says something, and nobody needs to read on
        head = message.head
        return head is not None and head.role == "user"

    def talks_on(self, request: RunRequest, by: Asker) -> str | None:
        """Return who says something more with a request; None if it is no message of a person."""
        message = self._view.messages.find(request.message_id)
        head = message.head if message is not None else None
        if request.trigger == "continue" or head is None or head.role != "user" or head.author.kind == "agent":
            return None
        return by.principal or request.by or head.author.id

    def output(self, run_id: str, request: RunRequest) -> str:
        """Return the message the run writes: one of its own, or the one it continues if no other run writes that."""
        message = self._view.messages.find(request.message_id) if request.trigger == "continue" else None
        head = message.head if message is not None else None
        if head is None or head.role != "assistant":
            return output_of(run_id)
        taken = any(other.output == head.id for other in self._table.active())
        return output_of(run_id) if taken else head.id

    def policy(self, request: RunRequest) -> RunPolicy:
        """Return what becomes of a run while others are active; child runs stand in no order."""
        if request.parent is not None:
            return "parallel"
        said = self._view.document.roots.meta.get("runPolicy")
        usual = next((known for known in get_args(RunPolicy) if known == said), self._rules.policy)
        return request.policy or usual

    def answerer(self) -> str:
        """Return the agent that answers what is asked of nobody in particular; empty if nobody does."""
        agent = self._view.document.roots.meta.get("agent")
        return agent if isinstance(agent, str) and (not agent or is_agent(agent)) else self._rules.default_agent


def first_time(request: RunRequest, now: Millis) -> int | None:
    """Return until when a run waits before it begins, or before its schedule is due; None if it waits for no time."""
    if request.schedule is not None:
        return first_due(request, request.schedule, now)
    return request.not_before if (request.not_before or 0) > now else None


def begins_anew(record: RunRecord) -> bool:
    """Whether a run would begin, and not go on with what is under way: an attempt, another run, or an answer."""
    request = record.request
    goes_on = request is not None and request.trigger == "continue"
    return record.status == "queued" and not record.epoch and record.parent is None and not goes_on


def with_input_of(request: RunRequest, earlier: RunRecord | None) -> RunRequest:
    """Give a question that repeats or was meant to steer a run the input of that run."""
    asked = earlier.request if earlier is not None else None
    return request.replace(input=asked.input) if asked is not None and asked.input is not None else request


def refused(key: str, why: str) -> RunError:
    """Return what is said of a run whose request has a flaw in *key*."""
    return RunError(
        code=f"bad-{key}", message=f"{why}; ask again with one that is as docs/protocol.md says, under Runs"
    )

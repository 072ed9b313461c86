"""What an agent is given with a run: the question, the conversation that led there, and what came of it so far."""

from __future__ import annotations

from typing import Any

from crdt_sessions.client.service import Assignment
from crdt_sessions.client.session import SessionPeer
from crdt_sessions.client.stream import MessageStream
from crdt_sessions.errors import NotFound
from crdt_sessions.model import Message, RunInput, Shape, shaped


class RunContext:
    """A run as it is given to an agent: what there is to read of it."""

    def __init__(self, session: SessionPeer, assignment: Assignment, out: MessageStream) -> None:
        self.session = session
        """The session, as a peer of it."""
        self.out = out
        """The message that the answer becomes."""
        self._assignment = assignment
        self._broke_off = session.view.broke_off(assignment.run)

    @property
    def id(self) -> str:
        """The run's id."""
        return self._assignment.run.id

    @property
    def attempt(self) -> int:
        """How often it was tried, this time included, since it was asked for or continued."""
        return self._assignment.run.lease.attempt if self._assignment.run.lease is not None else 1

    @property
    def message(self) -> Message:
        """What was asked; also where the request is to go on with an answer that broke off.

        A child run is asked for its :attr:`task`, and gets that as a message.

        Raises:
            NotFound: the message is not there, or not one that layout 1 can describe.
        """
        if (task := self.session.view.task_message(self._assignment.run)) is not None:
            return task
        request = self._assignment.run.request
        message = self.session.view.messages.value(request.message_id) if request is not None else None
        if message is not None and message.id == self.out.message_id:
            message = self.session.view.messages.value(message.reply_to or message.parent or "")
        if message is None:
            raise NotFound(what="question of run", id=self.id)
        return message

    @property
    def input(self) -> RunInput:
        """What whoever asked gave besides the conversation: tools, context, model, settings; perhaps nothing.

        It is what somebody in the session wished for: the agent decides what of it it heeds.
        """
        return self._assignment.run.input

    @property
    def parent(self) -> str | None:
        """The run whose agent asked for this one; None if it is no child."""
        return self._assignment.run.parent

    @property
    def task(self) -> Any:
        """What a child is to do: what :meth:`delegate` was given; None if this is no child."""
        request = self._assignment.run.request
        return request.task if request is not None else None

    @property
    def resumed(self) -> str:
        """The text of the answer as it stood when this process took the run up; empty if it begins it."""
        return self.out.resumed

    @property
    def broke_off(self) -> bool:
        """Whether this goes on with an answer that its writer did not end: it was lost, or its run failed."""
        return self._broke_off

    @property
    def cancelled(self) -> bool:
        """Whether somebody has pressed stop. Writing raises :class:`RunCancelled` then."""
        return self.out.cancelled

    def messages(self) -> list[Message]:
        """Return the conversation up to the question, the answer so far, and what was said to steer it.

        The answer has a part ``steering`` where it took that up, which :meth:`history` tells from what comes after.
        A child run has its task in place of the conversation.
        """
        request = self._assignment.run.request
        everything = self.session.messages.all()
        if (task := self.session.view.task_message(self._assignment.run)) is not None:
            thread = [task]
        else:
            thread = self.session.view.conversation(request.message_id) if request is not None else []
        answer = self.out.message
        if answer is not None and any(_says_something(part) for part in answer.parts):
            thread = [message for message in thread if message.id != answer.id] + [answer]
        taken = self.session.view.runs.find(self.id).steers
        known = {message.id for message in thread}
        return thread + [each for each in everything if taken.get(each.id) is True and each.id not in known]

    def history(self, shape: Shape = "openai") -> list[dict[str, Any]]:
        """Return :meth:`messages` in the *shape* that a provider wants: ``openai``, ``anthropic`` or ``ai-sdk``."""
        return shaped(self.messages(), shape)

    def take_steering(self) -> list[Message]:
        """Return what people said to steer this run since the last call, and record that it was taken up."""
        steering = self.session.view.steering(self.id)
        for message in steering:
            self.out.take_up(message.id)
        return steering


def _says_something(part: Any) -> bool:
    return bool(getattr(part, "text", "") or getattr(part, "tool_call_id", "") or getattr(part, "value", None))

"""What a peer says in a session: it posts and follows messages, asks for answers, steers, stops and decides."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from crdt_sessions.client.messages import FollowedMessages
from crdt_sessions.client.peer import Peer
from crdt_sessions.errors import EmptyMessage
from crdt_sessions.model import (
    ANY_AGENT,
    Decision,
    Message,
    MessageHead,
    RunCancel,
    RunInput,
    RunRequest,
    Schedule,
    SessionView,
    TextPart,
    answer_to,
    check_decision,
    find_call,
    say_nothing,
)
from crdt_sessions.model.base import Value
from crdt_sessions.model.run_values import RunPolicy, Trigger
from crdt_sessions.model.schedules import Missed
from crdt_sessions.model.strings import AGENT_CHARACTERS, checked_id
from crdt_sessions.model.values import Role


class ConversationPeer(Peer):
    """A peer that takes part in the conversation."""

    @cached_property
    def messages(self) -> FollowedMessages:
        """The conversation, to be read and followed."""
        return FollowedMessages(self)

    async def post(
        self,
        text: str,
        *,
        id: str | None = None,
        role: Role = "user",
        parent: str | None = None,
        reply_to: str | None = None,
        steers: str | None = None,
        replaces: str | None = None,
        modality: str | None = None,
        parts: list[Value] | None = None,
        agent: str | None = None,
        policy: RunPolicy | None = None,
        input: RunInput | Mapping[str, Any] | None = None,
        not_before: int | None = None,
        deadline: int | None = None,
        wait: bool = True,
    ) -> Message:
        """Post a message; return it once it is durable.

        Args:
            text: becomes a text part; leave it empty to give *parts* alone.
            id: an idempotency key: posting an id twice is posting it once.
            role: whose voice.
            parent: the message it continues from, where a conversation branches.
            reply_to: the message it answers.
            steers: the run it is meant to steer while it is active.
            replaces: the message it is another version of.
            modality: such as ``voice``.
            parts: further parts.
            agent: who is to answer; ``*`` for any agent. Without it the session says who does, if anybody.
            policy: what becomes of that while another run is active; the session's policy if None.
            input: what the agent is to work with besides the conversation: tools, context, model, settings. It is
                the agent's who is named with *agent*.
            not_before: when that is to begin at the earliest.
            deadline: when it ends as failed if it is not done.
            wait: False returns at once, also offline.

        Raises:
            EmptyMessage: it says nothing: no parts, and nothing but white space.
            BadValue, TooLarge: the input cannot be taken.
            ValueError: there is an input or a time, and no agent that it is for.
            BadId: message or agent cannot be called that.
            ConnectionClosed: the server refused this peer for good.
        """
        head = MessageHead(
            id=checked_id(id, "message id") if id else uuid.uuid4().hex,
            role=role,
            author=self.author,
            parent=parent,
            reply_to=reply_to,
            steers=steers,
            replaces=replaces,
            modality=modality,
            created_at=self._clock.now(),
        )
        content: list[Value] = [TextPart(type="text", text=text)] if text else []
        if say_nothing(content + (parts or [])):
            raise EmptyMessage
        if agent is None and (input, not_before, deadline) != (None, None, None):
            raise ValueError('input and times are for an agent: name it, or give agent="*" for any')
        times = (not_before, deadline)
        request = (
            self._request(head.id, agent, policy=policy, input=input, times=times) if agent is not None else None
        )

        def change(view: SessionView) -> None:
            view.messages.add(head, content + (parts or []))
            if request is not None:
                view.runs.request(answer_to(head.id), request)

        self.edit(change)
        if wait:
            await self.durable()
        message = self.view.messages.value(head.id)
        assert message is not None
        return message

    def mark_read(self, seq: int | None = None) -> None:
        """Record that one has read up to *seq*, or everything there is; returns at once."""
        self.edit(lambda view: view.mark_read(self.author.id, view.messages.last_seq() if seq is None else seq))

    @property
    def unread(self) -> int:
        """Number of messages of others that one has not marked as read."""
        return self.view.unread(self.author.id)

    # -- runs --------------------------------------------------------------------------------------------------

    def ask(
        self,
        message_id: str,
        agent: str = ANY_AGENT,
        *,
        trigger: Trigger = "submit",
        policy: RunPolicy | None = None,
        run_id: str | None = None,
        input: RunInput | Mapping[str, Any] | None = None,
        not_before: int | None = None,
        deadline: int | None = None,
    ) -> str:
        """Ask for a run; return its id at once, also offline.

        Args:
            message_id: what is to be answered; for the trigger ``continue``, the answer that is to go on.
            agent: who is to do it.
            trigger: submit, regenerate (an alternative to what was answered) or continue.
            policy: what becomes of it while another run is active; the session's policy if None.
            run_id: an idempotency key.
            input: what the agent is to work with besides the conversation: tools, context, model, settings. If None,
                a request that regenerates or continues gets that of the run it repeats.
            not_before: when it is to begin at the earliest; until then it holds nobody up.
            deadline: when it ends as failed if it is not done by then.

        Raises:
            BadId: message, agent or run cannot be called that.
            BadValue, TooLarge: the input cannot be taken.
        """
        wanted = run_id or f"run-{uuid.uuid4().hex}"
        times = (not_before, deadline)
        request = self._request(message_id, agent, trigger=trigger, policy=policy, input=input, times=times)
        self.edit(lambda view: view.runs.request(wanted, request))
        return wanted

    async def schedule(
        self,
        text: str,
        agent: str = ANY_AGENT,
        *,
        at: int | None = None,
        every_s: float | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        missed: Missed = "once",
        until: int | None = None,
        policy: RunPolicy | None = None,
        input: RunInput | Mapping[str, Any] | None = None,
        id: str | None = None,
        wait: bool = True,
    ) -> str:
        """Ask a question later, or again and again; return the run that stands for that, once it is durable.

        It stands in the session as a message whose run waits (:attr:`Run.due`). At each of its times the question is
        asked anew, in a message of its own. :meth:`cancel` ends it.

        Args:
            text: the question.
            agent: who is to answer.
            at: when it is asked once, in milliseconds; with *every_s* and *cron*, the earliest time.
            every_s: seconds from one time to the next.
            cron: five fields, such as ``0 9 * * mon-fri``.
            timezone: of *cron*, such as ``Europe/Berlin``.
            missed: what becomes of times that have passed while the service was away: ``skip``, ``once`` for one run
                for all of them, ``all`` for one each.
            until: when it ends, in milliseconds.
            policy: what becomes of a run while another one is active; the session's policy if None.
            input: what the agent is to work with besides the conversation.
            id: an idempotency key.
            wait: False returns at once, also offline.

        Raises:
            BadValue: it is due at no time, too often, or in a time zone that is not known.
            ValueError: none of *at*, *every_s* and *cron* says when.
        """
        repeated = every_s is not None or cron is not None
        if at is None and not repeated:
            raise ValueError("say when: at, every_s or cron")
        every = None if every_s is None else int(every_s * 1000)
        said = {"every": every, "cron": cron, "timezone": timezone, "missed": missed, "until": until}
        schedule = Schedule.of({key: value for key, value in said.items() if value is not None}) if repeated else None
        head = self._question(id)
        request = self._request(head.id, agent, policy=policy, input=input, times=(at, None), schedule=schedule)

        def change(view: SessionView) -> None:
            view.messages.add(head, [TextPart(type="text", text=text)])
            view.runs.request(answer_to(head.id), request)

        if say_nothing([TextPart(type="text", text=text)]):
            raise EmptyMessage
        self.edit(change)
        if wait:
            await self.durable()
        return answer_to(head.id)

    def _question(self, id: str | None) -> MessageHead:
        chosen = checked_id(id, "message id") if id else uuid.uuid4().hex
        return MessageHead(id=chosen, role="user", author=self.author, created_at=self._clock.now())

    def cancel(self, run_id: str, reason: str | None = None) -> None:
        """Press stop: before the run begins or while it is worked on, also offline. What was written stays.

        *reason* is for people.
        """
        self._replica.stop(run_id, RunCancel(by=self.author.id, reason=reason, at=self._clock.now()))
        self._wake()

    async def steer(self, run_id: str, text: str, *, wait: bool = True) -> Message:
        """Say *text* to a run while it goes on. If it is over by then, it is answered as a question of its own.

        Return the message once it is durable, or at once if *wait* is False.
        """
        return await self.post(text, steers=run_id, wait=wait)

    def retry(self, run_id: str) -> str:
        """Ask for a run that failed to go on where it stopped, in the same message; return the new run's id.

        Raises:
            NotFound: there is no such run.
        """
        run = self.view.runs.find(run_id)
        written = self.view.messages.find(run.output) if run.output is not None else None
        asked = run.request.message_id if run.request is not None else run_id
        if written is None or run.output is None:
            given = run.request.input if run.request is not None else None
            return self.ask(asked, run.agent or ANY_AGENT, input=given)
        return self.ask(run.output, run.agent or ANY_AGENT, trigger="continue")

    def regenerate(self, message_id: str, agent: str = ANY_AGENT) -> str:
        """Ask for another answer, as an alternative; return the run's id.

        Args:
            message_id: an answer, or the question itself.
            agent: who is to do it.

        Raises:
            NotFound: there is no such message.
        """
        head = self.view.messages[message_id].head
        answered = head.parent if head is not None and head.role == "assistant" else None
        return self.ask(answered or message_id, agent, trigger="regenerate")

    async def resubmit(self, message_id: str, text: str, agent: str = ANY_AGENT, *, wait: bool = True) -> Message:
        """Post another version of a message and ask for an answer to it; both versions stay, as branches.

        Return it once it is durable, or at once if *wait* is False. *text* is what it says now; *agent* is to answer.

        Raises:
            NotFound: there is no such message.
        """
        head = self.view.messages[message_id].head
        parent = head.parent if head is not None else None
        return await self.post(text, parent=parent, replaces=message_id, agent=agent, wait=wait)

    def decide(
        self, run_id: str, tool_call_id: str, approved: bool, reason: str | None = None, *, value: Any = None
    ) -> None:
        """Say whether one has *approved* a tool call that waits, and the *reason*. The server settles what counts.

        Where more than yes or no is asked *value* is the answer; of input that may be edited, the input.

        It is refused here if it cannot count, as far as this replica tells. What the server refuses, or hears too
        late, it writes down at the tool call (``refused``, ``late``). :attr:`Run.pending` has the calls that wait.

        Raises:
            NotFound: there is no such run or tool call.
            NotAnApprover: others are asked.
            NotAnAnswer: *value* does not fit what is asked.
            NothingToDecide: nobody is asked about it, or the run has ended.
            AlreadyDecided: it is settled.
        """
        run = self.view.runs.find(run_id)
        message, who = self.view.messages.find(run.output or ""), self.author.id
        decision = Decision(approved=approved, value=value, reason=reason, at=self._clock.now())
        tool = check_decision(run, message, tool_call_id, who, decision)
        if tool.approval is None:  # else it is what one has said before
            self.edit(lambda _: tool.decide(who, decision))

    def draft(self, run_id: str, tool_call_id: str, **fields: Any) -> dict[str, Any]:
        """Fill in fields of an answer that is asked for, and return the draft as it stands.

        All devices share it, also those that are offline for a while: of each field the last value stays. It counts
        for nothing until somebody says :meth:`decide`. A field that is None is emptied.

        Raises:
            NotFound: there is no such run or tool call.
            BadValue: a field is not JSON that every peer can hold.
        """
        run = self.view.runs.find(run_id)
        tool = find_call(run, self.view.messages.find(run.output or ""), tool_call_id)
        if fields:
            self.edit(lambda _: tool.fill_in(fields))
        return tool.draft()

    def _request(
        self,
        message_id: str,
        agent: str,
        *,
        trigger: Trigger = "submit",
        policy: RunPolicy | None = None,
        input: RunInput | Mapping[str, Any] | None = None,
        times: tuple[int | None, int | None] = (None, None),
        schedule: Schedule | None = None,
    ) -> RunRequest:
        return RunRequest(
            message_id=checked_id(message_id, "message id"),
            agent=checked_id(agent, "name of an agent", AGENT_CHARACTERS),
            trigger=trigger,
            policy=policy,
            by=self.author.id,
            created_at=self._clock.now(),
            not_before=times[0],
            deadline=times[1],
            schedule=schedule,
            input=RunInput.of(input) if input is not None else None,
        )

"""A whole session as AG-UI events, for one stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jsonpatch

from crdt_sessions.model import (
    MessageBegan,
    MessagePlaced,
    MessageRemoved,
    MessageReplaced,
    OpenCall,
    PartBegan,
    PartChanged,
    Run,
    RunInput,
    SessionView,
)
from crdt_sessions.model.runs import output_id
from crdt_sessions.runtime import PresenceChanged, RunChanged, Session, SessionEvent, StateChanged
from crdt_sessions_server.gateways.ag_ui.inputs import agent_input
from crdt_sessions_server.gateways.ag_ui.interrupts import interrupts_below, interrupts_of, tools_of
from crdt_sessions_server.gateways.ag_ui.messages import Event, MessageEncoder, content_of, folded
from crdt_sessions_server.gateways.ag_ui.subagents import Subagents
from crdt_sessions_server.gateways.children import waiting_below
from crdt_sessions_server.gateways.front_end import FrontEnd
from crdt_sessions_server.gateways.inputs import last_input
from crdt_sessions_server.gateways.run_lookup import failure_of, rests

PRESENCE = "presence"
_LATER = (PresenceChanged, StateChanged, RunChanged, MessagePlaced, PartChanged)
"""Events that may wait for the next run."""


class Nested(Protocol):
    """Tells of the child runs below a run, in the form that a client has for them."""

    def take(self, view: SessionView, events: Sequence[SessionEvent]) -> tuple[list[SessionEvent], list[Event]]:
        """Return the events that are about no child run, and what is told of the others."""

    def written(self, view: SessionView) -> dict[str, list[dict[str, Any]]]:
        """Return the messages of the others that are listed behind each message of the conversation."""

    def close(self) -> Iterator[Event]:
        """End what is told of them, since the stream ends."""


def _as_subagents(run: Run | None) -> Nested:
    return Subagents(run.id if run is not None else None)


class SessionEncoder:
    """Encodes a whole session, for one stream.

    Args:
        thread: the client's name for the session.
        run: the run that the stream follows; None for any run that comes.
        run_id: the client's name for that run; the run's own id if None.
        parent: the client's name for the run before.
        front: the stream as a device, to which calls of tools may be given.
        announces: whether a call that is given to it is also told as TanStack's clients want it.
        children: makes what tells of the child runs below the one that is followed; subagents if None.
    """

    def __init__(
        self,
        thread: str,
        run: Run | None,
        run_id: str | None = None,
        parent: str | None = None,
        *,
        front: FrontEnd | None = None,
        announces: bool = False,
        children: Callable[[Run | None], Nested] | None = None,
    ) -> None:
        self._front = front
        self._announces = announces
        self._given: set[str] = set()
        self.thread = thread
        self._run = run
        self._run_id = run_id
        self._parent = parent
        self._messages: dict[str, MessageEncoder] = {}
        self._state: dict[str, Any] = {}
        self._waiting: list[SessionEvent] = []
        self._paused: set[str] = set()
        """Runs whose end, or whose wait for people, was told."""
        self._asked: set[str] = set()
        """Those of them of whose child runs a question was told."""
        self._children = children or _as_subagents
        self._nested = self._children(run)
        self._begun = False
        self.ended = False
        """Whether the last event was a terminal one."""

    def encode(self, view: SessionView, events: Sequence[SessionEvent]) -> Iterator[Event]:
        """Yield what happened; the first time, the conversation so far."""
        rest, nested = self._nested.take(view, events)
        asks = not self._begun or any(isinstance(event, RunChanged) and event.run.parent for event in events)
        yield from self._encode(view, rest, nested)
        if not self.ended and self._run is not None:
            yield from self._give(self._run)
        if not self.ended and self._run is not None and asks:
            yield from self._ask(view, self._run)

    def another(self, run: Run) -> SessionEncoder:
        """Return an encoder that tells all anew, for the same stream, which follows *run* now."""
        return SessionEncoder(self.thread, run, front=self._front, announces=self._announces, children=self._children)

    def tell_anew(self, view: SessionView, events: Sequence[SessionEvent]) -> tuple[SessionEncoder, list[Event]]:
        """Tell all again within the run, because its answer begins anew; *events* are all there are.

        Returns:
            the encoder from now on, and what closes the old answer and tells the present one.
        """
        encoder = SessionEncoder(
            self.thread,
            self._run,
            self._run_id,
            self._parent,
            front=self._front,
            announces=self._announces,
            children=self._children,
        )
        encoder._given = self._given
        _, *told = encoder.encode(view, events)  # without the start of the run
        return encoder, [*self._close(), *told]

    def begins_anew(self, events: Sequence[SessionEvent]) -> bool:
        """Whether the answer of the run that is told begins anew."""
        output = output_id(self._run) if self._run is not None and not self.ended else None
        return output in self._messages and any(
            isinstance(event, MessageReplaced) and event.message == output and not event.value.parts
            for event in events
        )

    @property
    def run(self) -> Run | None:
        """The run that the stream follows, as it was told."""
        return self._run

    def _give(self, run: Run) -> Iterator[Event]:
        """Tell which calls the client executes, if it is given some, and end: it comes back with their results."""
        calls = [call for call in run.calls or () if self._executes(call)]
        encoder = self._messages.get(output_id(run))
        if not calls or encoder is None:
            return
        for call in calls:
            self._given.add(call.tool_call_id)
            yield from encoder.give(call.tool_call_id)
        for call in calls if self._announces else ():
            tool = encoder.input_of(call.tool_call_id)
            value = {"toolCallId": call.tool_call_id, "toolName": call.tool_name, "input": tool}
            yield {"type": "CUSTOM", "name": "tool-input-available", "value": value}
        self._paused.add(run.id)
        yield from self._finish("success", pendingToolCallIds=[call.tool_call_id for call in calls])

    def _ask(self, view: SessionView, run: Run) -> Iterator[Event]:
        """Tell what child runs ask people, if all work below the run waits for that, and end: answers come anew."""
        if interrupts := interrupts_below(view, run):
            self._asked.add(run.id)
            self._paused.add(run.id)
            yield from self._finish("interrupt", interrupts=interrupts)

    async def offer(self, session: Session) -> None:
        """Offer to do what the run that is told has clients do."""
        if self._front is not None and self._run is not None and not self.ended:
            await self._front.offer(session, self._run.id)

    async def leave(self, session: Session, *, to_work: bool) -> None:
        """Take offers back, but for calls that were given if the client leaves to do them."""
        if self._front is not None and self._run is not None:
            await self._front.leave(session, self._run.id, to_work=to_work and self.ended)

    def _executes(self, call: OpenCall) -> bool:
        return self._front is not None and self._front.has(call)

    def pauses(self, view: SessionView, run: Run) -> bool:
        """Whether there is nothing to be told of a run until somebody, perhaps this client, has done something."""
        if rests(run) or (not run.over and any(map(self._executes, run.calls or ()))):
            return True
        return run.id in self._asked and bool(waiting_below(view, run))

    def _encode(self, view: SessionView, rest: list[SessionEvent], nested: list[Event]) -> Iterator[Event]:
        if not self._begun:
            self._begun = True
            yield from self._begin(view, rest, nested)
        elif self.ended:
            yield from self._between_runs(view, rest)
        else:
            yield from nested
            yield from self._tell(view, rest)

    def _between_runs(self, view: SessionView, events: Sequence[SessionEvent]) -> Iterator[Event]:
        """Only the begin of a run may be told now, so messages among people are told as a run of their own."""
        runs = [event.run for event in events if isinstance(event, RunChanged)]
        self._paused -= {run.id for run in runs if not self.pauses(view, run)}
        following = next((run for run in runs if run.status is not None and run.id not in self._paused), None)
        if following is None and all(isinstance(event, _LATER) for event in events):
            for event in events:
                if isinstance(event, PresenceChanged | StateChanged):  # each tells all, so the last one is enough
                    self._waiting = [each for each in self._waiting if type(each) is not type(event)]
                if not isinstance(event, RunChanged | MessagePlaced):
                    self._waiting.append(event)
            return
        self._run, self._run_id, self._parent, self.ended = following, None, None, False
        self._nested = self._children(following)
        waiting, self._waiting = self._waiting, []
        told = self._tell(view, [*waiting, *events])
        if following is not None:
            yield self._started(following)
            yield from told
        elif said := [*told]:  # a late event may have nothing to say, as a part that was closed with its run
            yield self._started(None)
            yield from said
            yield from self._finish("success")
        else:
            self.ended = True

    def rewritten_by(self, view: SessionView, events: Sequence[SessionEvent]) -> Run | None:
        """Return a run that begins now and replaces the told answer, if there is one; then all is told anew."""
        runs = [event.run for event in events if isinstance(event, RunChanged)] if self.ended else []
        for run in runs:
            if run.request is None or run.parent is not None or run.status is None or run.id in self._paused:
                continue
            asked = view.messages.find(run.request.message_id)
            head = asked.head if asked is not None else None
            if run.request.trigger == "regenerate" or (head is not None and head.replaces is not None):
                return run
        return None

    @property
    def state(self) -> dict[str, Any]:
        """The session's state as it was told."""
        return self._state

    def has_begun(self, run: Run) -> bool:
        """Whether some of a run's message was told."""
        return output_id(run) in self._messages

    def fail(self, code: str, why: str) -> Iterator[Event]:
        """End the stream because the session can no longer be followed."""
        if not self._begun and self._run is not None:
            yield self._started(self._run)
        if not self.ended:
            yield from self._close()
            yield {"type": "RUN_ERROR", "message": why, "code": code}

    def _begin(self, view: SessionView, events: Sequence[SessionEvent], nested: list[Event]) -> Iterator[Event]:
        run = self._run
        yield self._started(run) | (self._last_asked(view) if run is None else {})
        conversation = {message.id: message for message in view.conversation()}
        going = [*view.runs.answering(), *([run] if run is not None else [])]
        last = next(reversed(conversation), None)  # a paused answer keeps its place among later messages
        writing = {output_id(each) for each in going if not rests(each) or output_id(each) == last}
        told: dict[str, list[Event]] = {}
        opened: list[Event] = []
        later: list[SessionEvent] = []
        for event in events:
            if isinstance(event, StateChanged):
                self._state = event.state
            elif isinstance(event, PresenceChanged | RunChanged):
                later.append(event)
                if isinstance(event, RunChanged) and rests(event.run):
                    self._paused.add(event.run.id)
            elif getattr(event, "message", None) in writing:
                opened += self._message(event)
            elif getattr(event, "message", None) in conversation:
                told.setdefault(event.message, []).extend(self._message(event))  # type: ignore[union-attr]
        for id, encoder in self._messages.items():
            if id not in writing:
                told[id] += [*encoder.end_calls(conversation[id]), *encoder.close()]
        yield {"type": "STATE_SNAPSHOT", "snapshot": self._state}
        yield {"type": "MESSAGES_SNAPSHOT", "messages": self._listed(view, told) + folded(opened, empty=True)}
        yield from opened
        yield from nested
        if run is None:  # no run to follow: the client wanted only the conversation
            yield from self._finish("success")
        else:
            yield from self._tell(view, later)

    def _listed(self, view: SessionView, told: Mapping[str, Sequence[Event]]) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = []
        nested = self._nested.written(view)
        for id, events in told.items():
            listed += folded([event for event in events if event["type"] != "CUSTOM"])
            listed += nested.get(id, ())
        for message in listed:
            value = view.messages.value(message["id"]) if message["role"] == "user" else None
            if value is not None and (content := content_of(value)) is not None:
                message["content"] = content
        return listed

    def _started(self, run: Run | None) -> Event:
        started = {"type": "RUN_STARTED", "threadId": self.thread, "runId": self._id(run), "protocolVersion": "1.0"}
        started |= {"parentRunId": self._parent} if self._parent is not None else {}
        return started | (self._request_of(run, run.input) if run is not None else {})

    def _request_of(self, run: Run, given: RunInput) -> Event:
        """Return the request that a run was started from, without what the session has of it."""
        return {"input": agent_input(self.thread, self._id(run), given)} if not given.empty else {}

    def _last_asked(self, view: SessionView) -> Event:
        """Return the last request, for a client that begins anew where nothing goes on."""
        last = last_input(view)
        return self._request_of(*last) if last is not None else {}

    def _id(self, run: Run | None) -> str:
        return self._run_id or (run.id if run is not None else f"{self.thread}-talk")

    def _tell(self, view: SessionView, events: Sequence[SessionEvent]) -> Iterator[Event]:
        paused: Run | None = None
        for event in events:
            match event:
                case StateChanged(state):
                    yield {"type": "STATE_DELTA", "delta": jsonpatch.make_patch(self._state, state).patch}
                    self._state = state
                case PresenceChanged(present):
                    yield {
                        "type": "ACTIVITY_SNAPSHOT", "messageId": PRESENCE, "activityType": PRESENCE,
                        "content": {"present": [each["state"] for each in present]}, "replace": True,
                    }  # fmt: skip
                case RunChanged(run):
                    if rests(run):
                        self._paused.add(run.id)
                    if self._run is not None and run.id == self._run.id:
                        self._run = run
                        paused = run if rests(run) else None
                case _:
                    yield from self._message(event)
        if paused is not None:
            yield from self._end(view, paused)

    def _message(self, event: SessionEvent) -> Iterator[Event]:
        match event:
            case MessageBegan(id, _, _):
                self._messages[id] = MessageEncoder(event, self._given)
            case MessageRemoved(id) | MessageReplaced(id):  # no event tells it; the next snapshot shows it
                if (known := self._messages.get(id)) is not None:
                    yield from known.close()
                return
            case _:
                pass
        encoder = self._messages.get(getattr(event, "message", ""))
        if encoder is None:
            return
        yield from encoder.encode(event)
        if encoder.spoken and not isinstance(event, MessageBegan | PartBegan):
            yield from encoder.close()

    def _end(self, view: SessionView, run: Run) -> Iterator[Event]:
        if run.status in ("failed", "interrupted"):
            code, why = failure_of(run)
            yield from self._close()
            self.ended = True
            yield {"type": "RUN_ERROR", "message": why, "code": code} | _usage(run)
        elif run.status == "suspended" and (interrupts := [*interrupts_of(view, run), *interrupts_below(view, run)]):
            yield from self._finish("interrupt", interrupts=interrupts)
        elif run.status == "suspended":
            yield from self._finish("success")
        elif run.status == "cancelled":
            yield from self._finish("cancelled", result={"reason": run.outcome.reason} if run.outcome else None)
        else:
            pending = [tool.tool_call_id for tool in tools_of(view, run) if tool.state == "input-available"]
            yield from self._finish("success", **({"pendingToolCallIds": pending} if pending else {}))

    def _finish(self, outcome: str, *, result: Any = None, **more: Any) -> Iterator[Event]:
        yield from self._close()
        self.ended = True
        finished = {"type": "RUN_FINISHED", "threadId": self.thread, "runId": self._id(self._run)}
        if self._run is not None:
            finished |= _usage(self._run)
        yield finished | ({"result": result} if result is not None else {}) | {"outcome": {"type": outcome, **more}}

    def _close(self) -> Iterator[Event]:
        yield from self._nested.close()
        for encoder in self._messages.values():
            yield from encoder.close()


def _usage(run: Run) -> dict[str, Any]:
    """Return what a run has cost, as the protocol's ``TokenUsage``."""
    if run.usage is None:
        return {}
    used = run.usage
    found = {
        "model": used.model,
        "inputTokens": used.input_tokens,
        "outputTokens": used.output_tokens,
        "totalTokens": used.tokens or None,
        "reasoningTokens": used.reasoning_tokens,
        "cachedInputTokens": used.cached_tokens,
    }
    return {"usage": [{name: value for name, value in found.items() if value is not None}]}

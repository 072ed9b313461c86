"""Tool calls of a run, as its agent sees them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from crdt_sessions.errors import BadValue, RunCancelled, RunSuspended
from crdt_sessions.model import Approval, ApprovalRequest, ClientCall, ToolStream
from crdt_sessions.model.checks import why_not
from crdt_sessions.model.client_calls import OutcomeCode

if TYPE_CHECKING:
    from crdt_sessions.client.session import SessionPeer
    from crdt_sessions.client.stream import MessageStream


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What came of a tool call that a device of a client was asked to do."""

    code: OutcomeCode
    """``done``, ``failed`` or ``refused`` (the device's word), ``deadline``, ``gone`` (no device stayed to do it), or
    ``ended`` (the run was over first)."""
    output: Any = None
    """What the tool returned, if it is done."""
    error: str | None = None
    """Why there is no output, for the model."""
    device: str | None = None
    """The device whose word it is."""
    by: str | None = None
    """Its principal."""


class ToolCall:
    """A tool call of a run. Made by :meth:`AgentRun.tool`."""

    def __init__(self, session: SessionPeer, stream: ToolStream) -> None:
        self._session = session
        self._stream = stream

    @property
    def id(self) -> str:
        """The call's id."""
        return self._stream.call_id

    @property
    def done(self) -> bool:
        """Whether its output, or its failure, was written."""
        return self._stream.state in ("output-available", "output-error", "output-denied")

    @property
    def ended(self) -> ToolOutcome | None:
        """What came of it, if it has ended."""
        match self._stream.state:
            case "output-available":
                return ToolOutcome("done", output=self._stream.output_value)
            case "output-error":
                return ToolOutcome("failed", error=self._stream.error_text)
            case "output-denied":
                reason, by = (self.approval.reason, self.approval.by) if self.approval is not None else (None, None)
                return ToolOutcome("refused", error=reason, by=by)
            case _:
                return None

    @property
    def approval(self) -> Approval | None:
        """What people decided about it, if they have."""
        return self._stream.approval

    @property
    def arguments(self) -> Any:
        """The input that the tool is to be called with: as people have edited it, or else as it was written."""
        approval = self.approval
        return approval.value if approval is not None and approval.value is not None else self._stream.input

    def ask(self, request: ApprovalRequest) -> None:
        """Ask people to decide, as *request* says; see :meth:`AgentRun.suspend_for_approval`."""
        self._session.edit(lambda _: self._stream.ask(request))

    @property
    def outcome(self) -> ToolOutcome | None:
        """What came of it, if devices were asked to do it and it is settled."""
        settled = self._stream.outcome
        if settled is None:
            return None
        return ToolOutcome(
            code=settled.code,
            output=self._stream.output_value if settled.code == "done" else None,
            error=None if settled.code == "done" else self._stream.error_text,
            device=settled.device,
            by=settled.by,
        )

    def output(self, value: Any) -> None:
        """Write the *value* that the tool returned.

        Raises:
            BadValue: it is not JSON that every peer can hold.
        """
        self._session.edit(lambda _: self._stream.output(value))

    def fail(self, error: str) -> None:
        """Write that the tool failed, and the *error*, which everybody in the session may read."""
        self._session.edit(lambda _: self._stream.fail(error))

    def deny(self) -> None:
        """Write that the tool was not called because people were against it."""
        self._session.edit(lambda _: self._stream.deny())


class ClientCalls:
    """The calls of an answer that devices of clients execute.

    Args:
        session: the session.
        out: the answer.
        run_id: the run.
    """

    def __init__(self, session: SessionPeer, out: MessageStream, run_id: str) -> None:
        self._session = session
        self._out = out
        self._run_id = run_id
        self._heard = {call.id for call in self._all() if call.outcome is not None}

    def asked(self, takers: list[str] | None, deadline_s: float | None, attempts: int) -> ClientCall:
        """Return what devices are asked; arguments and errors are those of :meth:`AgentRun.client_tool`."""
        now = self._session.now()
        deadline = None if deadline_s is None else now + int(deadline_s * 1000)
        try:
            return ClientCall(takers=takers, deadline=deadline, attempts=attempts, requested_at=now)
        except ValidationError as error:
            raise BadValue(where="the call", why="; ".join(why_not(error))) from None

    def lend(self, names: Iterable[str], takers: list[str] | None, deadline_s: float | None, attempts: int) -> None:
        """Have devices do what is written from now on as calls of *names*; all else as for :meth:`asked`."""
        self.asked(takers, deadline_s, attempts)  # raises now, and not when a model calls
        for name in names:
            self._out.client_tools[name] = lambda: self.asked(takers, deadline_s, attempts)

    async def outcomes(self, calls: Sequence[ToolCall] | None, *, suspend: bool) -> list[ToolOutcome]:
        """Return what came of *calls*; see :meth:`AgentRun.outcomes`.

        Raises:
            RunSuspended: it is not known yet, and the run waits for it.
            RunCancelled: somebody pressed stop meanwhile.
        """
        wanted = [call for call in self._all() if call.id not in self._heard] if calls is None else calls
        if suspend and any(call.outcome is None for call in wanted):
            self._out.end("suspended", "a client calls a tool")
            raise RunSuspended(run=self._run_id, why="a client must call a tool")
        await self._session.until(lambda: self._out.cancelled or all(call.outcome is not None for call in wanted))
        found = [outcome for call in wanted if (outcome := call.outcome) is not None]
        if len(found) < len(wanted):
            raise RunCancelled(run=self._run_id, why="somebody pressed stop")
        self._heard |= {call.id for call in wanted}
        return found

    def _all(self) -> list[ToolCall]:
        answer = self._session.view.messages.find(self._out.message_id)
        tools = answer.tools() if answer is not None else []
        return [ToolCall(self._session, tool) for tool in tools if tool.client_call is not None]

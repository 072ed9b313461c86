"""Tool calls of a run, as its agent sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crdt_sessions.model import Approval, ApprovalRequest, ToolStream
from crdt_sessions.model.client_calls import OutcomeCode

if TYPE_CHECKING:
    from crdt_sessions.client.session import SessionPeer


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

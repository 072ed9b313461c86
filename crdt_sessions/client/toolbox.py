"""Tools that come from elsewhere, such as an MCP server, and how a run calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from crdt_sessions.client.tool_calls import ToolCall, ToolOutcome
from crdt_sessions.errors import NotFound
from crdt_sessions.model import Approval, ToolSpec


class ToolSource(Protocol):
    """Where tools come from; :class:`crdt_sessions.bridges.mcp.Server` is one."""

    async def tools(self) -> list[ToolSpec]:
        """Return the tools there are.

        Raises:
            RunFailed: they cannot be had.
        """
        ...

    def asks(self, name: str, input: Any) -> bool:
        """Return whether people are to approve a call of tool *name* with that *input* before it is made."""
        ...

    async def call(self, name: str, input: Any, *, key: str) -> ToolOutcome:
        """Call a tool; return what came of it.

        Args:
            name: of the tool.
            input: JSON.
            key: identifies the call, however often it is tried.
        """
        ...


class _Caller(Protocol):
    """A run, as far as it is needed here."""

    def tool(self, name: str, input: Any = None, *, call_id: str | None = None) -> ToolCall: ...

    def idempotency_key(self, key: str) -> str: ...

    async def suspend_for_approval(
        self, call: ToolCall, *, approvers: list[str] | None = None, deadline_s: float | None = None
    ) -> Approval: ...


class RunTools:
    """The tools of a run's agent: what ``Agent(tools=[...])`` names. Made by :attr:`AgentRun.tools`.

    Args:
        run: the run.
        sources: where they come from.
    """

    def __init__(self, run: _Caller, sources: Sequence[ToolSource]) -> None:
        self._run = run
        self._sources = sources

    async def specs(self) -> list[ToolSpec]:
        """Return the tools, as a model is told of them.

        Raises:
            RunFailed: those of one source cannot be had.
            ValueError: two sources have a tool of the same name.
        """
        return [spec for spec, _ in (await self._all()).values()]

    async def call(
        self,
        name: str,
        input: Any = None,
        *,
        call_id: str | None = None,
        approvers: list[str] | None = None,
        deadline_s: float | None = None,
    ) -> ToolOutcome:
        """Call a tool, after people have approved it where its source says so; return what came of it.

        The call stands in the answer with what it returned. A call that has ended is not made again, however often
        the answer is tried.

        Args:
            name: of the tool.
            input: JSON. People see it when they are asked.
            call_id: its id; see :meth:`AgentRun.tool`.
            approvers: the principals who may approve it; everybody if None.
            deadline_s: seconds after which it counts as denied.

        Returns:
            ``code`` is ``done`` with the ``output``, ``failed`` with the ``error``, or ``refused`` by people.

        Raises:
            RunSuspended: people have not decided yet. Let it pass.
            NotFound: there is no such tool.
            RunFailed, ValueError: see :meth:`specs`.
            BadValue: *input* is not JSON that every peer can hold.
        """
        found = await self._all()
        if name not in found:
            raise NotFound(what="tool", id=name, known=sorted(found))
        source = found[name][1]
        call = self._run.tool(name, input, call_id=call_id)
        if (ended := call.ended) is not None:
            return ended
        if source.asks(name, input):
            approval = await self._run.suspend_for_approval(call, approvers=approvers, deadline_s=deadline_s)
            if not approval.approved:
                call.deny()
                return ToolOutcome("refused", error=approval.reason, by=approval.by)
        outcome = await source.call(name, call.arguments, key=self._run.idempotency_key(call.id))
        if outcome.code == "done":
            call.output(outcome.output)
        else:
            call.fail(outcome.error or outcome.code)
        return outcome

    async def _all(self) -> dict[str, tuple[ToolSpec, ToolSource]]:
        found: dict[str, tuple[ToolSpec, ToolSource]] = {}
        for source in self._sources:
            for spec in await source.tools():
                if spec.name in found:
                    raise ValueError(f"two sources have a tool {spec.name!r}: give one of them a prefix")
                found[spec.name] = (spec, source)
        return found

"""Tools that a peer offers to the agents of its session: it calls them when it is given a call."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from crdt_sessions.client.foreign import end_all
from crdt_sessions.defects import log_defect
from crdt_sessions.errors import ToolRefused
from crdt_sessions.model import CallResult, Offer, OpenCall, Run, SessionView
from crdt_sessions.signals import is_cancelled

if TYPE_CHECKING:
    from crdt_sessions.client.peer import Peer

Work = Callable[[Any], Awaitable[Any] | Any]

_log = logging.getLogger("crdt_sessions.client")


class OfferedTools:
    """The tools that a peer offers.

    Args:
        peer: whose they are; it is the device, under its Yjs client id.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._tools: dict[str, Work] = {}
        self._working: dict[tuple[str, str], asyncio.Task[None]] = {}
        """Run and call, to who does it, or did: it is never done twice here."""

    def add(self, name: str, work: Work) -> None:
        """Offer a tool; open calls of it count, too."""
        self._tools[name] = work
        self._look(self._peer.view.runs.unfinished())

    async def serve(self) -> None:
        """Offer, call and bring results, without end."""
        try:
            async for runs in self._peer.changed_runs():
                self._look(runs)
        finally:
            await end_all(self._working.values(), "an offered tool")

    def _look(self, runs: list[Run]) -> None:
        for run in runs:
            calls = {call.tool_call_id: call for call in run.calls or () if not run.over}
            for key in [key for key in self._working if key[0] == run.id and key[1] not in calls]:
                if self._working[key].done():
                    del self._working[key]
            for call in calls.values():
                if call.tool_name in self._tools and (run.id, call.tool_call_id) not in self._working:
                    self._consider(run, call)

    def _consider(self, run: Run, call: OpenCall) -> None:
        tool = self._peer.view.messages.find_tool(run.output, call.tool_call_id)
        if call.taken is not None and call.taken.device == self._device:
            self._working[run.id, call.tool_call_id] = asyncio.create_task(self._do(run, call))
        elif call.may_take(self._peer.author.id) and tool is not None and self._device not in tool.offers():
            self._propose(run, call, Offer(by=self._peer.author.id, at=self._peer.now()))

    @property
    def _device(self) -> str:
        return str(self._peer.client_id)

    async def _do(self, run: Run, call: OpenCall) -> None:
        self._propose(run, call, await self._result(run, call))

    async def _result(self, run: Run, call: OpenCall) -> CallResult:
        said = CallResult(by=self._peer.author.id, at=self._peer.now())
        try:
            returned = self._tools[call.tool_name](self._arguments(run, call))
            said = said.replace(output=await returned if inspect.isawaitable(returned) else returned)
            said.json_value()  # raises what the document cannot hold
        except ToolRefused as error:
            said = said.replace(status="refused", error_text=str(error))
        except (Exception, asyncio.CancelledError) as error:  # the tool is others' code
            if is_cancelled():
                raise  # this peer leaves
            found = log_defect(_log, f"a tool failed: {error}", error, run=run.id)
            text = f"the tool failed; the log of its device says more (reference {found})"
            said = said.replace(status="failed", output=None, error_text=text)
        return said.replace(at=self._peer.now())

    def _arguments(self, run: Run, call: OpenCall) -> Any:
        tool = self._peer.view.messages.find_tool(run.output, call.tool_call_id)
        return tool.input if tool is not None else None

    def _propose(self, run: Run, call: OpenCall, proposal: Offer | CallResult) -> None:
        def write(view: SessionView) -> None:
            if (tool := view.messages.find_tool(run.output, call.tool_call_id)) is not None:
                tool.propose(self._device, proposal)

        self._peer.edit(write)

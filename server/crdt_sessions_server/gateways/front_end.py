"""A chat client as a device: it is given tool calls on behalf of whoever reads one of its streams.

A stock front end knows nothing of offers. So each of its streams makes them, and a call is shown
as one to execute only where it was given to that stream. What a client does then is to end its stream and to send the
result, so the device stays for a while after its stream, or as long as a connection of the page does. A stream that
ends in any other way takes its offers back.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Sequence

from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.model import CallResult, Offer, OpenCall, Run, SessionView, ToolStream
from crdt_sessions.runtime import Session, SessionRegistry
from crdt_sessions_server.auth import Permission, Principal
from crdt_sessions_server.rest.client_calls import PAGE_PREFIX, devices_of_page

_log = logging.getLogger("crdt_sessions.gateways")


class FrontEnd:
    """One stream of a front end.

    Args:
        registry: the sessions; its rules say how long a page may take for a result after its stream has ended.
        principal: whose it is.
        tools: the tools that it can call; any if None.
        page: what the page calls itself, if it does.
        lasting: whether the page has a connection that outlives this stream; then :meth:`gone` says when that ends.
        looks: whether the page only looks what is going on, as one does that was loaded, perhaps not for the first
            time.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        principal: Principal,
        tools: Collection[str] | None = None,
        page: str | None = None,
        *,
        lasting: bool = False,
        looks: bool = False,
    ) -> None:
        self._registry = registry
        self._lasting = lasting
        self._looks = looks
        self._working: SessionId | None = None
        self._clock = registry.clock
        self._ttl = int(registry.rules.front_end_tool_s * 1000)
        self._by = principal.id
        self._may = principal.can(Permission.POST)
        self._tools = tools
        self._page = devices_of_page(page)
        self.device = f"{self._page or PAGE_PREFIX}{uuid.uuid4().hex[:12]}"
        self._offered = False

    @property
    def has_tools(self) -> bool:
        """Whether there is any tool that it can call."""
        return self._tools is None or bool(self._tools)

    def has(self, call: OpenCall) -> bool:
        """Whether this stream was given a call."""
        return call.taken is not None and call.taken.device == self.device

    async def offer(self, session: Session, run_id: str) -> None:
        """Offer to do the open calls of a run; return once it is settled who does them."""
        run = session.view.runs.find(run_id)
        wanted = [call for call in run.calls or () if self._can(call)]
        if not wanted:
            return  # as at nearly every token
        offer = Offer(by=self._by, at=self._clock.now(), ttl=self._ttl)

        def change(view: SessionView) -> None:
            for call in wanted:
                tool = view.messages.find_tool(run.output, call.tool_call_id)
                if tool is None or self.device in (offers := tool.offers()):
                    continue
                for device in filter(self._is_former, offers):
                    tool.withdraw(device)
                tool.propose(self.device, offer)

        fresh = any(
            (tool := session.view.messages.find_tool(run.output, call.tool_call_id)) is not None
            and self.device not in tool.offers()
            for call in wanted
        )
        if fresh:
            self._offered = True
            session.engine.runs.calls.attach(self.device)
            self._hurry_former(session, wanted)
            await session.edit(change)

    async def leave(self, session: Session, run_id: str, *, to_work: bool) -> None:
        """Take the offers back: the stream has ended. *To work* says that the page does what it was given."""
        run = session.view.runs.value(run_id)
        if not self._offered:
            return
        if to_work and self._lasting:
            self._working = session.id
        else:
            session.engine.runs.calls.detach(self.device, self._clock.now())
        if run is None:
            return
        left = [call for call in run.calls or () if not (to_work and self.has(call))]

        def change(view: SessionView) -> None:
            for call in left:
                if (tool := view.messages.find_tool(run.output, call.tool_call_id)) is not None:
                    tool.withdraw(self.device)

        if left:
            try:
                await session.edit(change)
            except CrdtSessionsError as error:  # the device is not heard of any more, and loses what it was given
                _log.info("offers of a stream were not taken back: %s", error, extra={"session": session.id})

    @property
    def works(self) -> bool:
        """Whether the page has left the stream to do a call, and keeps its connection meanwhile."""
        return self._working is not None

    async def gone(self) -> None:
        """Note that the connection of the page has ended: what it was given, another one is given soon."""
        if self._working is None:
            return
        grace = int(self._registry.rules.gone_grace_s * 1000)
        try:
            async with self._registry.open(self._working) as session:
                session.engine.runs.calls.detach(self.device, self._clock.now(), grace=grace)
        except CrdtSessionsError as error:  # then nobody has heard of it since, either
            _log.info("the end of a page was not noted: %s", error, extra={"session": self._working})

    def _hurry_former(self, session: Session, calls: Sequence[OpenCall]) -> None:
        """Leave a moment only to nameless pages of this principal's: this one may be one of them, loaded again.

        They have no connection while they work, so that nobody sees it end. A page that has a name is known when it
        is there again (``docs/decisions/0078-a-page-that-looks-on.md``).
        """
        if not self._looks:
            return
        now, grace = self._clock.now(), int(self._registry.rules.gone_grace_s * 1000)
        for taken in (call.taken for call in calls if call.taken is not None):
            if taken.by == self._by and _has_no_name(taken.device):
                session.engine.runs.calls.hurry(taken.device, now, grace)

    def _is_former(self, device: str) -> bool:
        """Whether a device is this page, before it was loaded again."""
        return self._page is not None and device.startswith(self._page)

    def _can(self, call: OpenCall) -> bool:
        named = self._tools is None or call.tool_name in self._tools
        return self._may and named and call.may_take(self._by)


def _has_no_name(device: str) -> bool:
    """Whether a device is a page that calls itself nothing."""
    return device.startswith(PAGE_PREFIX) and "-" not in device.removeprefix(PAGE_PREFIX)


def waits_for_device(run: Run) -> bool:
    """Whether a run waits for a device of a client, and for nobody's decision."""
    return run.status == "suspended" and bool(run.calls) and not run.pending


def called_in_client(session: Session, message_id: str, call_id: str) -> ToolStream | None:
    """Return a tool call if devices of clients are asked to do it; None if not."""
    tool = session.view.messages.find_tool(message_id, call_id)
    return tool if tool is not None and tool.client_call is not None else None


async def bring(
    session: Session, principal: Principal, message_id: str, results: dict[str, CallResult], now: Millis
) -> None:
    """Record results that a front end sends, in the name of the stream of its principal that was given the calls.

    What was not given to one, or is settled already, is recorded as a result that does not count. What says the same
    as is settled, or was said before, is one that is repeated, and leaves nothing behind.
    """
    calls = session.engine.runs.table.calls_of(message_id)

    def change(view: SessionView) -> None:
        message = view.messages.find(message_id)
        for call_id, said in results.items():
            tool = message.tool(call_id) if message is not None else None
            if tool is None or _repeats(tool, said, principal.id):
                continue
            known = calls.get(call_id)
            had = [] if known is None else [*reversed(known.former), *([known.taken] if known.taken else [])]
            own = [each.device for each in had if each.by == principal.id and each.device.startswith(PAGE_PREFIX)]
            counts = own and tool.outcome is None
            device = own[-1] if counts else f"{PAGE_PREFIX}{uuid.uuid4().hex[:12]}"
            tool.propose(device, said.replace(by=principal.id, at=now))

    await session.edit(change)


def _repeats(tool: ToolStream, said: CallResult, by: str) -> bool:
    word = (said.status, said.output, said.error_text)
    if any(each.by == by and (each.status, each.output, each.error_text) == word for each in tool.results().values()):
        return True
    if tool.outcome is None:
        return False
    return tool.error_text == said.error_text if said.status != "done" else tool.output_value == said.output

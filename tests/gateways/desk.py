"""Gateways without a network: what clients send goes straight to the functions that take it, and runs are answered
by hand, on a store in memory and a clock that stands still."""

from __future__ import annotations

from contextlib import asynccontextmanager

from ag_ui.core import RunAgentInput

from crdt_sessions.ids import session_id
from crdt_sessions.limits import RunRules
from crdt_sessions.model import ApprovalRequest, Author, RunResult, shaped
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import MemoryStore
from crdt_sessions.sync import lease_digest
from crdt_sessions.testing import FakeClock
from crdt_sessions_server.auth import Principal
from crdt_sessions_server.gateways import openai
from crdt_sessions_server.gateways.ag_ui import inbound as ag_ui
from crdt_sessions_server.gateways.ai_sdk import inbound as ai_sdk

ANN = Principal("ann", name="Ann")


class Desk:
    """A session, those who ask through gateways, and the agent."""

    def __init__(self, registry, name):
        self.registry, self.name = registry, session_id(name)
        self.session = None

    @property
    def view(self):
        return self.session.view

    async def ai_sdk(self, messages, *, by=ANN, **more):
        """Send what ``useChat`` sends; return the run to follow."""
        data = ai_sdk.ChatRequest.model_validate({"id": str(self.name), "messages": messages, **more})
        run, _ = await ai_sdk.receive(self.registry, self.name, data, by)
        return run

    async def ag_ui(self, messages, run_id, *, by=ANN, again=False, client=None, **more):
        """Send what AG-UI's and TanStack's clients send; return the run to follow."""
        body = {"threadId": str(self.name), "runId": run_id, "messages": messages, "state": {}, "tools": []}
        data = RunAgentInput.model_validate({**body, "context": [], "forwardedProps": {}, **more})
        return await ag_ui.receive(self.registry, self.name, data, by, again=again, state=client)

    async def openai(self, messages, *, by=ANN, key=None, again=False, **more):
        """Send what OpenAI's clients send; return the run to follow."""
        data = openai.Completion.model_validate({"messages": messages, **more})
        agent, model = data.asked(["writer"])
        given = data.input(model)
        attempt = openai.Attempt(key, again)
        return (await openai.receive(self.registry, self.name, data, by, attempt, agent=agent, given=given)).run

    def seen(self, run):
        """What the agent of a run is told, as (role, content)."""
        asked = self.view.runs.find(run.id).request.message_id
        return [(each["role"], each["content"]) for each in shaped(self.view.conversation(asked), "openai")]

    async def answer(self, text="", status="completed", tools=(), reason=None, asks=()):
        """Have the run whose turn it is answered, or people asked about calls; return it, or None if there is none."""
        ready = [run for run in self.view.runs.unfinished() if self.session.engine.runs.table.is_ready(run.id)]
        if not ready:
            return None
        record = self.session.decide(
            lambda runs, now: runs.claim(
                ready[0].id, agents=["writer"], owner="writer", digest=lease_digest("token"), now=now
            )
        )

        def write(view):
            run, now = view.runs.find(record.id), self.registry.clock.now()
            message = view.begin_output(run, Author(id="writer", kind="agent"), now)
            if text:
                stream = message.open_text()
                stream.append(text)
                stream.close()
            for call, name, output in tools:
                tool = message.open_tool(call, name)
                tool.close({"n": 1})
                if output is not None:
                    tool.output(output)
            for call, approvers in asks:
                tool = message.open_tool(call, "book")
                tool.close({"seat": 1})
                tool.ask(ApprovalRequest(approvers=approvers, requested_at=now))
            view.runs.report(run.id, RunResult(status=status, epoch=record.epoch, reason=reason, at=now))

        await self.session.edit(write)
        return self.view.runs.find(record.id)

    def runs(self):
        """The questions that were asked, in order."""
        order = self.session.engine.runs.table.record
        return [run.request.message_id for run in sorted(self.view.runs.all(), key=lambda run: order(run.id).order)]

    def conversation(self):
        """What people see, as (role, text)."""
        return [(message.role, message.text) for message in self.view.conversation()]


@asynccontextmanager
async def desk(name="room", *, store=None, **rules):
    """Open a desk, whose session asks an agent about what nobody in particular is asked."""
    async with SessionRegistry(
        store or MemoryStore(), clock=FakeClock(), rules=RunRules(**{"default_agent": "writer"} | rules)
    ) as registry:
        found = Desk(registry, name)
        async with registry.open(found.name, create=True) as found.session:
            yield found

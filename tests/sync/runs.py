"""Runs over a simulated network: people who ask, agents that hold leases, a server that may crash."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from crdt_sessions.limits import RunRules
from crdt_sessions.model import (
    ApprovalRequest,
    Author,
    Decision,
    MessageHead,
    RunCancel,
    RunRequest,
    RunResult,
    TextPart,
    child_of,
)
from crdt_sessions.sync import ALL, lease_digest
from crdt_sessions.testing import SimNetwork

RULES = RunRules(lease_s=10, gone_grace_s=3, cancel_grace_s=5, max_attempts=3)


@dataclass
class Holder:
    """An agent's process with a lease, or one that had one."""

    name: str
    run: str
    epoch: int
    output: str
    token: str


class World:
    """A network with runs."""

    def __init__(self, rules=RULES, people=("ann", "bob"), rights=ALL, agents=ALL):
        self.network = SimNetwork(rules=rules)
        self._count = itertools.count(1)
        for name in people:
            self.network.add(name)
            self.network.connect(name, rights=rights)
        self.network.run_until_quiet()
        self._agents = agents

    # -- people ----------------------------------------------------------------------------------------------

    def post(self, who="ann", id="q", text="?", **head):
        value = MessageHead(id=id, role="user", author=Author(id=who), created_at=self.network.now, **head)
        self.network.edit(who, lambda view: view.messages.add(value, [TextPart(type="text", text=text)]))

    def ask(self, who="ann", run="r", message="q", **request):
        value = RunRequest(message_id=message, by=who, created_at=self.network.now, **request)
        self.network.edit(who, lambda view: view.runs.request(run, value))

    def cancel(self, who="ann", run="r", reason=None):
        value = RunCancel(by=who, reason=reason, at=self.network.now)
        self.network.act(who, lambda replica: replica.stop(run, value))

    def decide(self, who, approved, call="c", output="r-out", reason=None, answer=None):
        value = Decision(approved=approved, value=answer, reason=reason, at=self.network.now)

        def change(view):
            message = view.messages.find(output)
            tool = message.tool(call) if message is not None else None
            if tool is not None:
                tool.decide(who, value)

        self.network.edit(who, change)

    def fill_in(self, who, call="c", output="r-out", **fields):
        def change(view):
            message = view.messages.find(output)
            tool = message.tool(call) if message is not None else None
            if tool is not None:
                tool.fill_in(fields)

        self.network.edit(who, change)

    def send(self, who):
        """Have the service take in what somebody wrote, while nobody hears of it yet."""
        while self.network.deliver(who, up=True):
            pass

    # -- agents ----------------------------------------------------------------------------------------------

    def claim(self, run="r", agent="writer", ttl_s=None, connect=True, worker=None, durable=True):
        holder = self._claim(f"holder-{next(self._count)}", run, agent, ttl_s, worker)
        if durable:
            self.network.commit()  # a claimant hears of it only then
        self.network.add(holder.name)
        if connect:
            self.connect(holder)
        return holder

    def take_over(self, former, run, agent="writer"):
        """Claim another run for an agent that has done its work, on the connection it has."""
        holder = self._claim(former.name, run, agent)
        self.network.commit()
        self.network.take_over(holder.name, holder.token)
        return holder

    def delegate(self, holder, key="1", agent="helper", parent=None, task="look", who=None, **request):
        """Have an agent ask for a child run; return the child's id."""
        value = RunRequest(
            message_id=holder.output,
            agent=agent,
            created_at=self.network.now,
            parent=parent or holder.run,
            key=key,
            task=task,
            **request,
        )
        run = child_of(value.parent, key)
        self.network.edit(who or holder.name, lambda view: view.runs.request(run, value))
        return run

    def _claim(self, name, run, agent, ttl_s=None, worker=None):
        token = f"token-{next(self._count)}"
        record = self.network.decide(
            lambda runs: runs.claim(
                run,
                agents=[agent],
                owner=f"agent-{agent}",
                digest=lease_digest(token),
                ttl_ms=None if ttl_s is None else int(ttl_s * 1000),
                worker=worker,
                now=self.network.now,
            )
        )
        return Holder(name, run, record.epoch, record.output, token)

    def connect(self, holder):
        self.network.connect(holder.name, lease=holder.token, rights=self._agents)
        self.network.run_until_quiet()

    def begin(self, holder):
        """Let an agent begin its answer, without a word."""
        self.network.edit(holder.name, lambda view: self._output(holder, view))

    def _output(self, holder, view):
        run = view.runs.value(holder.run)
        if run is None or run.output is None:
            return None
        return view.begin_output(run, Author(id=holder.name, kind="agent"), self.network.now)

    def write(self, holder, text, close=False):
        def change(view):
            if (message := self._output(holder, view)) is None:
                return
            part = message.resume_text() or message.open_text()
            part.append(text)
            if close:
                part.close()

        self.network.edit(holder.name, change)

    def call(self, holder, call="d"):
        """Have an agent call a tool, which has no result yet."""

        def change(view):
            if (message := self._output(holder, view)) is not None and message.tool(call) is None:
                message.open_tool(call, "look").close({"at": "Oslo"})

        self.network.edit(holder.name, change)

    def report(self, holder, status, *, approve=None, **result):
        value = RunResult(status=status, epoch=holder.epoch, at=self.network.now, **result)

        def change(view):
            message = view.messages.find(holder.output)
            if approve is not None and message is not None:
                tool = message.tool("c") or message.open_tool("c", "book")
                tool.close({"seat": 1})
                tool.ask(approve)
            if message is not None:
                message.close_parts("done" if status in ("completed", "suspended", "handoff") else "interrupted")
            view.runs.report(holder.run, value)

        self.network.edit(holder.name, change)

    def suspend(self, holder, **request):
        self.write(holder, "May I?")
        self.report(holder, "suspended", approve=ApprovalRequest(requested_at=self.network.now, **request))
        self.network.run_until_quiet()

    # -- what became of it -----------------------------------------------------------------------------------

    def settle(self):
        self.network.run_until_quiet()

    def run(self, run="r"):
        return self.network.engine.view.runs.value(run)

    def status(self, run="r"):
        return self.run(run).status

    def record(self, run="r"):
        return self.network.engine.runs.table.record(run)

    def text(self, output="r-out"):
        message = self.network.engine.view.messages.value(output)
        return message.text if message is not None else None

    def part(self, output="r-out", index=-1):
        return self.network.engine.view.messages.value(output).parts[index]

    def notices(self):
        return [notice.kind for notice in self.network.records.notices]

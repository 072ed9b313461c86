"""Devices of clients in a simulated session: they offer a tool, do what they are given, and bring results."""

from __future__ import annotations

from crdt_sessions.model import CallResult, ClientCall, Offer


class Device:
    """A tab: what it was given it does once, when it is told to."""

    def __init__(self, world, name, principal=None):
        self.world, self.name, self.principal = world, name, principal or name
        self.done = []
        """Calls and attempts that it has executed."""

    @property
    def id(self):
        return str(self.world.network.peers[self.name].replica.client_id)

    def appear(self):
        """Announce its presence, as every tab does by itself."""
        self.world.network.act(self.name, lambda replica: replica.set_presence({"user": {"id": self.principal}}))

    @property
    def view(self):
        return self.world.network.peers[self.name].replica.view

    def calls(self):
        """The calls that are open as far as it knows: (run, call)."""
        return [(run, call) for run in self.view.runs.all() for call in (run.calls or ()) if not run.over]

    def given(self):
        return [(run, call) for run, call in self.calls() if call.taken is not None and call.taken.device == self.id]

    def offer(self, ttl=None):
        """Offer to do all that is open, once each."""
        offer = Offer(by=self.principal, at=self.world.network.now, ttl=ttl)
        for run, call in self.calls():
            tool = self.view.messages.find(run.output).tool(call.tool_call_id)
            if self.id not in tool.offers():
                self._propose(run.output, call.tool_call_id, offer)

    def execute(self, **result):
        """Do what it was given, and bring the result."""
        for run, call in self.given():
            if (call.tool_call_id, self.id) not in self.done:
                self.done.append((call.tool_call_id, self.id))
                value = {"output": {"on": self.id}, "by": self.principal, "at": self.world.network.now, **result}
                self._propose(run.output, call.tool_call_id, CallResult(**value))

    def bring(self, output, call="c", value=None, **result):
        """Bring a result whether it was given the call or not."""
        said = CallResult(output=value, **({"by": self.principal, "at": self.world.network.now} | result))
        self._propose(output, call, said)

    def withdraw(self, output, call="c"):
        def change(view):
            view.messages.find(output).tool(call).withdraw(self.id)

        self.world.network.edit(self.name, change)

    def _propose(self, output, call_id, proposal):
        def change(view):
            message = view.messages.find(output)
            tool = message.tool(call_id) if message is not None else None
            if tool is not None:
                tool.propose(self.id, proposal)

        self.world.network.edit(self.name, change)


def call_in_client(world, holder, call="c", suspend=True, **request):
    """Have an agent call a tool in a client; with *suspend* its run waits for the result."""
    value = ClientCall(requested_at=world.network.now, **request)

    def change(view):
        message = world._output(holder, view)
        if message is None:
            return
        tool = message.tool(call) or message.open_tool(call, "place")
        tool.close({"at": "Oslo"})
        tool.call_in_client(value)

    world.network.edit(holder.name, change)
    if suspend:
        world.report(holder, "suspended")
    world.settle()

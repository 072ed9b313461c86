"""A run, as the agent that works on it sees it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from crdt_sessions.client.artifact_editor import ArtifactEditor
from crdt_sessions.client.child import Children, ChildRun, gathered
from crdt_sessions.client.context import RunContext
from crdt_sessions.client.questions import Questions
from crdt_sessions.client.service import Assignment, ServiceClient
from crdt_sessions.client.session import SessionPeer
from crdt_sessions.client.stream import MessageStream, TextStream
from crdt_sessions.client.tool_calls import ClientCalls, ToolCall, ToolOutcome
from crdt_sessions.client.toolbox import RunTools, ToolSource
from crdt_sessions.errors import RunSuspended
from crdt_sessions.model import (
    Approval,
    ArtifactHead,
    ClientCall,
    Orphans,
    RunInput,
    SessionView,
    Spent,
)
from crdt_sessions.model.artifacts import ContentKind
from crdt_sessions.model.dialects import Dialect

Result = TypeVar("Result")


class AgentRun(RunContext):
    """One question to answer. Made by :class:`Agent`, given to the coroutine that answers.

    If the process dies, or people must decide something first, the coroutine is called again, by this process
    or another: what it had written is there (:attr:`resumed`, :meth:`history`), tool calls with the same id are found
    again, and a :meth:`step` that was recorded is not repeated.
    """

    def __init__(
        self,
        session: SessionPeer,
        assignment: Assignment,
        service: ServiceClient,
        out: MessageStream,
        tools: Sequence[ToolSource] = (),
    ) -> None:
        super().__init__(session, assignment, out)
        self._tools = tools
        self._service = service
        self._calls = 0
        self._children = Children(session, out, assignment.run)
        self._questions = Questions(session, out)
        self._clients = ClientCalls(session, out, assignment.run.id)

    @property
    def tools(self) -> RunTools:
        """The tools that its agent has from elsewhere, such as MCP servers."""
        return RunTools(self, self._tools)

    # -- writing -----------------------------------------------------------------------------------------------

    def text(self, *, choice: int = 0) -> AbstractAsyncContextManager[TextStream]:
        """Return a context to write text: ``async with run.text() as out: await out.write(token)``.

        *choice* numbers alternatives that a model writes side by side.
        """
        return self.out.part("text", choice=choice)

    def reasoning(self, *, choice: int = 0) -> AbstractAsyncContextManager[TextStream]:
        """Return a context to write what the model thinks on the way to the answer; *choice* as in :meth:`text`."""
        return self.out.part("reasoning", choice=choice)

    def tool(self, name: str, input: Any = None, *, call_id: str | None = None) -> ToolCall:
        """Write a tool call with its input, or find it again if it was written before; return it.

        Args:
            name: of the tool.
            input: JSON.
            call_id: its id; by default the number of the call in this run, which is the same each time the
                answer is tried if it calls its tools in the same order.

        Raises:
            BadValue: *input* is not JSON that every peer can hold.
        """
        return self._call(name, input, call_id)

    def _call(self, name: str, input: Any, call_id: str | None, asked: ClientCall | None = None) -> ToolCall:
        self._calls += 1
        stream = self.out.tool(call_id or f"{self.id}-{self._calls}", name)

        def change(view: SessionView) -> None:
            if asked is not None:  # at once with its input: who reads it is not to take it for the agent's own
                stream.call_in_client(asked)
            stream.close(input)

        if stream.state == "input-streaming":
            self.session.edit(change)
        return ToolCall(self.session, stream)

    # -- child runs --------------------------------------------------------------------------------------------

    def delegate(
        self,
        agent: str,
        task: Any,
        *,
        key: str | None = None,
        input: RunInput | Mapping[str, Any] | None = None,
        orphans: Orphans = "end",
        deadline_s: float | None = None,
    ) -> ChildRun:
        """Ask *agent* for a child run and return it at once: ``text = await run.delegate("researcher", "…")``.

        It works beside this run, on a lease of its own, and writes beside the conversation. Who stops this run stops
        it, too. Asking again with the same key, as an answer does that is tried again, returns the same child.

        Args:
            agent: who is to do it.
            task: what: text, or JSON of at most ``ChildLimits.max_task_bytes``.
            key: names the child within this run. By default the number of the call, which is the same each time the
                answer is tried if it delegates in the same order.
            input: tools, context, model and settings for it; nothing of this run's is handed on by itself.
            orphans: what becomes of it when this run has ended: ``end``, or ``go-on``.
            deadline_s: seconds after which it ends as failed.

        Raises:
            BadId: *agent* or *key* cannot be one.
            BadValue, TooLarge: *task* or *input* cannot be one.

        Who asks too much (``ChildLimits``) gets a child that has failed and says why.
        """
        now = self.session.now()
        return self._children.delegate(
            agent,
            task,
            key=key,
            input=RunInput.of(input) if input is not None else None,
            orphans=orphans,
            deadline=None if deadline_s is None else now + int(deadline_s * 1000),
            now=now,
        )

    async def gather(self, *children: ChildRun, return_exceptions: bool = False) -> list[Any]:
        """Return the texts of *children* once all are completed, in their order.

        Args:
            children: what :meth:`delegate` returned.
            return_exceptions: whether the failure of one stands in its place. Else the first failure is raised; the
                other children go on until this run ends.

        Raises:
            NotAnswered: one ended otherwise.
            RunCancelled: somebody has pressed stop.
        """
        return await gathered(children, return_exceptions)

    async def step(self, key: str, work: Callable[[], Awaitable[Result] | Result]) -> Result:
        """Do something once: if *key* was recorded in this run, return what was recorded, else do it and record it.

        A process that dies between doing and recording does it again; give what you call :meth:`idempotency_key`.

        Args:
            key: names the step within the run.
            work: returns JSON, or a coroutine that does.

        Raises:
            LeaseLost: the run was taken away.
        """
        recorded, value = await self._service.step(self._assignment, key)
        if not recorded:
            done = work()
            value = await self._service.record_step(
                self._assignment, key, await done if inspect.isawaitable(done) else done
            )
        result: Result = value
        return result

    def idempotency_key(self, key: str) -> str:
        """Return what identifies the step *key* of this run to others, the same however often it is tried."""
        return f"{self.session.session_id}/{self.id}/{key}"

    async def suspend_for_approval(
        self,
        call: ToolCall,
        *,
        approvers: list[str] | None = None,
        needs: str = "any",
        deadline_s: float | None = None,
        edit: bool = False,
        schema: dict[str, Any] | None = None,
    ) -> Approval:
        """Return what people decided about a tool call; if they have not yet, leave the run to wait for them.

        The run needs no process meanwhile. Once it is decided, the answer is tried again from its beginning, by
        this process or another one of the same name, and this call returns.

        Args:
            call: what is to be decided about.
            approvers: the principals who may decide; everybody if None.
            needs: ``any`` if one of them is enough, ``all`` if all must agree.
            deadline_s: seconds after which it counts as denied.
            edit: whether they may change the input; :attr:`ToolCall.arguments` has it as they want it.
            schema: JSON Schema of the input, where it may be edited.

        Raises:
            RunSuspended: nobody has decided yet. Let it pass.
            BadValue: the schema has what forms cannot have.
        """
        asked = {"kind": "edit", "schema": schema} if edit else {}
        return self._questions.decided(call, asked, approvers, needs, deadline_s)

    async def ask(
        self,
        message: str,
        schema: dict[str, Any] | None = None,
        *,
        default: Any = None,
        approvers: list[str] | None = None,
        needs: str = "any",
        deadline_s: float | None = None,
        call_id: str | None = None,
    ) -> Approval:
        """Ask people something; return their answer, or leave the run to wait for it.

        What is asked stands in the answer as a call of the tool ``ask``. The answer is tried again once somebody has
        answered, as with :meth:`suspend_for_approval`; ask the same in the same order, or name it (*call_id*).

        Args:
            message: what is asked, for people.
            schema: JSON Schema of the answer: with ``enum`` or ``oneOf`` a choice, with ``properties`` a form; None
                to ask for yes or no. ``docs/protocol.md`` lists the keywords that forms know.
            default: the answer that counts if nobody gives one in time.
            approvers: the principals who may answer; everybody if None.
            needs: ``any`` if one of them is enough, ``all`` if all must answer; the last answer counts then.
            deadline_s: seconds after which *default* counts, or without one, that nobody answered.
            call_id: the id of the tool call.

        Returns:
            ``approved`` says whether it was answered, and not declined; ``value`` is the answer.

        Raises:
            RunSuspended: nobody has answered yet. Let it pass.
            BadValue: the schema has what forms cannot have, or the default does not fit it.
        """
        call = self.tool("ask", {"message": message}, call_id=call_id)
        kind = "approve" if schema is None else "form" if "properties" in schema else "choose"
        asked = {"kind": kind, "message": message, "schema": schema, "default": default}
        approval = self._questions.decided(call, asked, approvers, needs, deadline_s)
        if not call.done:
            call.output({"approved": approval.approved, "value": approval.value})
        return approval

    async def call_in_client(
        self,
        name: str,
        input: Any = None,
        *,
        call_id: str | None = None,
        takers: list[str] | None = None,
        deadline_s: float | None = None,
        attempts: int = 3,
        suspend: bool = True,
    ) -> ToolOutcome:
        """Have a device of a client call a tool; return what came of it, or leave the run to wait for that.

        Exactly one of the devices that offer the tool is given the call. If it goes away without a result, another
        one is. Tools that people's front ends offer are in :attr:`input`.

        Args:
            name: of the tool.
            input: JSON.
            call_id: its id; see :meth:`tool`.
            takers: the principals whose devices may take it; everybody's if None.
            deadline_s: seconds after which it counts as failed.
            attempts: how many devices may be given it, one after the other; at most 10.
            suspend: whether the run is left, as with :meth:`suspend_for_approval`, until there is a result; False
                keeps it, and waits here.

        Returns:
            ``code`` says what became of it, ``output`` is what the tool returned, ``error`` why there is none.

        Raises:
            RunSuspended: there is no result yet. Let it pass.
            RunCancelled: somebody pressed stop meanwhile.
            BadValue: *input* is not JSON that every peer can hold, or *attempts* is out of bounds.
        """
        call = self.client_tool(name, input, call_id=call_id, takers=takers, deadline_s=deadline_s, attempts=attempts)
        return (await self.outcomes([call], suspend=suspend))[0]

    def client_tool(
        self,
        name: str,
        input: Any = None,
        *,
        call_id: str | None = None,
        takers: list[str] | None = None,
        deadline_s: float | None = None,
        attempts: int = 3,
    ) -> ToolCall:
        """Write a tool call that a device of a client is to execute, or find it again; return it.

        Args:
            name: of the tool.
            input: JSON.
            call_id: its id; see :meth:`tool`.
            takers: the principals whose devices may take it; everybody's if None.
            deadline_s: seconds after which it counts as failed.
            attempts: how many devices may be given it, one after the other; at most 10.

        Raises:
            BadValue: *input* is not JSON that every peer can hold, or *attempts* is out of bounds.
        """
        asked = self._clients.asked(takers, deadline_s, attempts)
        return self._call(name, input, call_id, asked)

    def lend_client_tools(
        self, *, takers: list[str] | None = None, deadline_s: float | None = None, attempts: int = 3
    ) -> None:
        """Have a device of a client execute what a model calls of the client's tools in :attr:`input`.

        It is for calls that a bridge writes from now on; :meth:`outcomes` waits for them::

            run.lend_client_tools()
            await run.outcomes()  # of calls that an attempt before this one has left
            while True:
                await bridges.write(run.out, model(run.history(), run.input))
                if not await run.outcomes():
                    break  # the model called nothing more

        Args:
            takers: the principals whose devices may take a call; everybody's if None.
            deadline_s: seconds after which a call counts as failed.
            attempts: how many devices may be given it, one after the other; at most 10.

        Raises:
            BadValue: *attempts* is out of bounds.
        """
        names = [tool.name for tool in self.input.tools if tool.where == "client"]
        self._clients.lend(names, takers, deadline_s, attempts)

    async def outcomes(self, calls: Sequence[ToolCall] | None = None, *, suspend: bool = True) -> list[ToolOutcome]:
        """Return what came of calls that devices were asked to do (:meth:`client_tool`), once it is known of all.

        Args:
            calls: the calls; each may be done by another device, at the same time. If None, those of this answer
                that were not settled when this process took it up, and not returned since.
            suspend: as in :meth:`call_in_client`.

        Raises:
            RunSuspended: there is no result yet. Let it pass.
            RunCancelled: somebody pressed stop meanwhile.
        """
        return await self._clients.outcomes(calls, suspend=suspend)

    def restart(self) -> None:
        """Begin the answer anew: what stands there is shown to nobody any more, and stays in the document's history.

        For models that cannot go on with a text; ``Agent(on_resume="restart")`` does it wherever an answer broke off.
        Tool calls that people were asked about stay, with what they decided; steps that were recorded are not
        repeated; :attr:`resumed` is empty then.
        """
        self._calls = 0
        self.out.restart()

    def usage(
        self,
        *,
        input_tokens: int | None = None,
        cached_tokens: int | None = None,
        output_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        calls: int = 1,
        model: str | None = None,
        cost: int | None = None,
        currency: str | None = None,
    ) -> None:
        """Report what *calls* of a model have cost; it is added to what was reported before.

        The bridges do it by themselves. What is not known is left out.

        Args:
            input_tokens: what was read, cached tokens included.
            cached_tokens: of those, what came from a cache of the provider's.
            output_tokens: what was written, thoughts included.
            reasoning_tokens: of those, the thoughts.
            calls: their number.
            model: its name.
            cost: money, in millionths of the *currency*.
            currency: of the *cost*, a code such as ``USD``. A run has one.

        Raises:
            BadValue: a number is negative, or a *cost* has no *currency*.
        """
        self.out.spend(
            Spent.of(
                input_tokens=input_tokens,
                cached_tokens=cached_tokens,
                output_tokens=output_tokens,
                reasoning_tokens=reasoning_tokens,
                calls=calls,
                model=model,
                cost=cost,
                currency=currency,
            )
        )

    def handoff(self, agent: str, reason: str | None = None) -> None:
        """Let another agent go on with this run, in the same message.

        Args:
            agent: its name.
            reason: for people.

        Raises:
            RunSuspended: always. Let it pass.
        """
        self.out.end("handoff", reason, agent=agent)
        raise RunSuspended(run=self.id, why=f"handed over to {agent}")

    def artifact(
        self,
        artifact_id: str,
        *,
        title: str = "",
        content: str = "",
        kind: ContentKind = "text",
        dialect: Dialect = "tiptap",
    ) -> ArtifactEditor:
        """Return an editor of an artifact that others edit, too; it is added if it is not there.

        Args:
            artifact_id: names it within the session.
            title: for people, if it is added.
            content: its text, if it is added; of rich text as Markdown.
            kind: ``text``, or ``xml`` for rich text, if it is added.
            dialect: in whose shape rich text is written that does not tell it: ``tiptap``, ``prosemirror``,
                ``blocknote`` or ``lexical``.
        """
        head = ArtifactHead(id=artifact_id, title=title, author=self.session.author, created_at=self.session.now())
        added = self.session.edit(lambda view: view.artifacts.begin(head, kind, dialect))
        editor = ArtifactEditor(self.session, artifact_id, run=self.id, dialect=dialect)
        if added and content:
            editor.edit(content)
        return editor

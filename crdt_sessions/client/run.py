"""A run, as the agent that works on it sees it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pydantic import ValidationError

from crdt_sessions.client.artifact_editor import ArtifactEditor
from crdt_sessions.client.child import ChildRun
from crdt_sessions.client.service import Assignment, ServiceClient
from crdt_sessions.client.session import SessionPeer
from crdt_sessions.client.stream import MessageStream, TextStream
from crdt_sessions.client.tool_calls import ClientCalls, ToolCall, ToolOutcome
from crdt_sessions.client.toolbox import RunTools, ToolSource
from crdt_sessions.errors import BadValue, NotFound, RunStopped, RunSuspended
from crdt_sessions.model import (
    Approval,
    ApprovalRequest,
    ArtifactHead,
    ClientCall,
    Message,
    Orphans,
    RunInput,
    SessionView,
    Shape,
    Spent,
    child_request,
    shaped,
)
from crdt_sessions.model.artifacts import ContentKind
from crdt_sessions.model.checks import why_not
from crdt_sessions.model.dialects import Dialect

Result = TypeVar("Result")


class AgentRun:
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
        self.session = session
        """The session, as a peer of it."""
        self.out = out
        """The message that the answer becomes."""
        self._assignment = assignment
        self._tools = tools
        self._service = service
        self._calls = 0
        self._children = 0
        self._broke_off = session.view.broke_off(assignment.run)
        self._clients = ClientCalls(session, out, assignment.run.id)

    @property
    def id(self) -> str:
        """The run's id."""
        return self._assignment.run.id

    @property
    def tools(self) -> RunTools:
        """The tools that its agent has from elsewhere, such as MCP servers."""
        return RunTools(self, self._tools)

    @property
    def attempt(self) -> int:
        """How often it was tried, this time included, since it was asked for or continued."""
        return self._assignment.run.lease.attempt if self._assignment.run.lease is not None else 1

    @property
    def message(self) -> Message:
        """What was asked; also where the request is to go on with an answer that broke off.

        A child run is asked for its :attr:`task`, and gets that as a message.

        Raises:
            NotFound: the message is not there, or not one that layout 1 can describe.
        """
        if (task := self.session.view.task_message(self._assignment.run)) is not None:
            return task
        request = self._assignment.run.request
        message = self.session.view.messages.value(request.message_id) if request is not None else None
        if message is not None and message.id == self.out.message_id:
            message = self.session.view.messages.value(message.reply_to or message.parent or "")
        if message is None:
            raise NotFound(what="question of run", id=self.id)
        return message

    @property
    def input(self) -> RunInput:
        """What whoever asked gave besides the conversation: tools, context, model, settings; perhaps nothing.

        It is what somebody in the session wished for: the agent decides what of it it heeds.
        """
        return self._assignment.run.input

    @property
    def parent(self) -> str | None:
        """The run whose agent asked for this one; None if it is no child."""
        return self._assignment.run.parent

    @property
    def task(self) -> Any:
        """What a child is to do: what :meth:`delegate` was given; None if this is no child."""
        request = self._assignment.run.request
        return request.task if request is not None else None

    @property
    def resumed(self) -> str:
        """The text of the answer as it stood when this process took the run up; empty if it begins it."""
        return self.out.resumed

    @property
    def broke_off(self) -> bool:
        """Whether this goes on with an answer that its writer did not end: it was lost, or its run failed."""
        return self._broke_off

    @property
    def cancelled(self) -> bool:
        """Whether somebody has pressed stop. Writing raises :class:`RunCancelled` then."""
        return self.out.cancelled

    # -- reading -----------------------------------------------------------------------------------------------

    def messages(self) -> list[Message]:
        """Return the conversation up to the question, the answer so far, and what was said to steer it.

        The answer has a part ``steering`` where it took that up, which :meth:`history` tells from what comes after.
        A child run has its task in place of the conversation.
        """
        request = self._assignment.run.request
        everything = self.session.messages.all()
        if (task := self.session.view.task_message(self._assignment.run)) is not None:
            thread = [task]
        else:
            thread = self.session.view.conversation(request.message_id) if request is not None else []
        answer = self.out.message
        if answer is not None and any(_says_something(part) for part in answer.parts):
            thread = [message for message in thread if message.id != answer.id] + [answer]
        taken = self.session.view.runs.find(self.id).steers
        known = {message.id for message in thread}
        return thread + [each for each in everything if taken.get(each.id) is True and each.id not in known]

    def history(self, shape: Shape = "openai") -> list[dict[str, Any]]:
        """Return :meth:`messages` in the *shape* that a provider wants: ``openai``, ``anthropic`` or ``ai-sdk``."""
        return shaped(self.messages(), shape)

    def take_steering(self) -> list[Message]:
        """Return what people said to steer this run since the last call, and record that it was taken up."""
        steering = self.session.view.steering(self.id)
        for message in steering:
            self.out.take_up(message.id)
        return steering

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
        self._children += 1
        key = str(self._children) if key is None else key
        now = self.session.now()
        request = child_request(
            self._assignment.run,
            key,
            agent,
            task,
            now=now,
            deadline=None if deadline_s is None else now + int(deadline_s * 1000),
            input=RunInput.of(input) if input is not None else None,
            orphans=orphans,
        )
        run_id = self.session.edit(lambda view: view.runs.delegate(request))
        return ChildRun(self.session, self.out, run_id)

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
        results = await asyncio.gather(*(child.result() for child in children), return_exceptions=return_exceptions)
        for result in results:
            if isinstance(result, RunStopped):
                raise result
        return results

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
        return self._decided(call, asked, approvers, needs, deadline_s)

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
        approval = self._decided(call, asked, approvers, needs, deadline_s)
        if not call.done:
            call.output({"approved": approval.approved, "value": approval.value})
        return approval

    def _decided(
        self, call: ToolCall, asked: dict[str, Any], approvers: list[str] | None, needs: str, deadline_s: float | None
    ) -> Approval:
        if (approval := call.approval) is not None:
            return approval
        now = self.session.now()
        said = {
            "approvers": approvers,
            "needs": needs,
            "deadline": None if deadline_s is None else now + int(deadline_s * 1000),
            "requestedAt": now,
        }
        try:
            request = ApprovalRequest.model_validate(asked | said)
        except ValidationError as error:
            raise BadValue(where="the question", why="; ".join(why_not(error))) from None
        call.ask(request)
        self.out.end("suspended", "approval requested")
        raise RunSuspended(run=self.id, why="people must decide")

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
            dialect: in whose shape rich text is written that does not tell it: ``tiptap``, ``prosemirror`` or
                ``blocknote``.
        """
        head = ArtifactHead(id=artifact_id, title=title, author=self.session.author, created_at=self.session.now())
        added = self.session.edit(lambda view: view.artifacts.begin(head, kind))
        editor = ArtifactEditor(self.session, artifact_id, run=self.id, dialect=dialect)
        if added and content:
            editor.edit(content)
        return editor


def _says_something(part: Any) -> bool:
    return bool(getattr(part, "text", "") or getattr(part, "tool_call_id", "") or getattr(part, "value", None))

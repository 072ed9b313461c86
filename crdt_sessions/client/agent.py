"""An agent: a worker that takes runs from the service, from all sessions, and answers them.

It needs no bookkeeping of its own. The session holds the questions, and whatever an agent had begun or written
when it died. The service decides who works on which run.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Literal

from crdt_sessions.client.address import service_url
from crdt_sessions.client.answering import OnRun, answer_run
from crdt_sessions.client.backoff import Backoff
from crdt_sessions.client.console import tell_on_stderr
from crdt_sessions.client.contact import Contact
from crdt_sessions.client.handlers import check_handler
from crdt_sessions.client.obstacles import is_final
from crdt_sessions.client.parking import WarmSessions
from crdt_sessions.client.run import AgentRun
from crdt_sessions.client.service import Assignment, Me, ServiceClient
from crdt_sessions.client.session import SessionPeer, connect
from crdt_sessions.client.stream import MessageStream
from crdt_sessions.client.token import Token
from crdt_sessions.client.toolbox import ToolSource
from crdt_sessions.clock import Clock, SystemClock
from crdt_sessions.errors import (
    BadHandler,
    ConnectionClosed,
    CrdtSessionsError,
    LeaseLost,
    NoService,
    NoToken,
    RequestRefused,
    ServiceUnreachable,
)
from crdt_sessions.model import ANY_AGENT, RunResult
from crdt_sessions.model.strings import AGENT_CHARACTERS, checked_id
from crdt_sessions.sync import Replica

_log = logging.getLogger("crdt_sessions.agent")

_POLL_S = 20.0
_LATE_CLAIM_S = 0.3
"""How long an agent that gives up a claim still waits for the answer: a run may be on its way."""

_CATCH_UP_S = 5.0
"""How long an agent that stayed in a session waits until its run arrives there."""


class Agent:
    """A worker that answers the runs that are for it, in whatever session they are asked for.

    Args:
        url: the service.
        name: how people see it, and who its runs are for; it also takes those that are for anybody.
        token: if the service asks for one; or a function that gets a fresh one.
        concurrency: runs it works on at the same time.
        shutdown_s: how long runs may take to finish when it is stopped; it hands back the others.
        linger_s: how long it stays in a session after a run, connected and unseen, to begin the next one at once.
        remember_bytes: how many bytes of documents it keeps after it left, to begin the next run there sooner.
        on_resume: what becomes of an answer that broke off, since its agent died or its run failed: ``continue`` has
            it go on where it stopped (:attr:`AgentRun.resumed`), ``restart`` begins it anew
            (:meth:`AgentRun.restart`), for models that cannot go on with a text. Where people have decided
            meanwhile, it goes on in both cases.
        tools: where its runs have tools from (:attr:`AgentRun.tools`), such as MCP servers
            (:class:`crdt_sessions.bridges.mcp.Server`).
        clock: for tests.
        rng: source of jitter, for tests.
        quiet: log nothing about connections and runs. Otherwise the agent tells where it is connected and as whom,
            which runs it takes and how they end, and when the service is away and back; by the logger
            ``crdt_sessions.agent``, and on standard error if the application has configured no handler for that.
        options: passed to :func:`connect`.

    Raises:
        BadUrl: *url* cannot be the address of a service.
        BadId: *name* cannot be the name of an agent.

    ::

        agent = Agent("http://127.0.0.1:8000", name="writer")

        @agent.on_run
        async def answer(run):
            async with run.text() as out:
                async for token in llm.stream(run.history()):
                    await out.write(token)

        agent.run()
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        token: Token | None = None,
        concurrency: int = 8,
        shutdown_s: float = 10.0,
        linger_s: float = 60.0,
        remember_bytes: int = 16 * 1024 * 1024,
        on_resume: Literal["continue", "restart"] = "continue",
        tools: Sequence[ToolSource] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
        quiet: bool = False,
        **options: Any,
    ) -> None:
        if concurrency < 1:
            raise ValueError("an agent works on at least one run at a time")
        if on_resume not in ("continue", "restart"):
            raise ValueError(f'on_resume is "continue" or "restart", not {on_resume!r}')
        self.name = checked_id(name, "name of an agent", AGENT_CHARACTERS)
        self._url = service_url(url)
        self._token = token
        self._concurrency = concurrency
        self._on_resume = on_resume
        self._tools = tuple(tools)
        self._shutdown_s = shutdown_s
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._quiet = quiet
        self._contact = Contact(self._url, self._clock.now, _log, who=f"agent {name}", quiet=quiet)
        self._me: Me | None = None
        self._failure: NoService | None = None
        self._options = options
        self._answer: OnRun | None = None
        self._free = asyncio.Semaphore(concurrency)
        self._stopping = asyncio.Event()
        self._lost = asyncio.Event()  # a run was, since the last claim
        self._working: set[asyncio.Task[None]] = set()
        self._warm = WarmSessions(remember_bytes, linger_s, random.SystemRandom())

    def on_run(self, answer: OnRun) -> OnRun:
        """Register the coroutine that answers; usable as a decorator.

        It ends its run by returning (completed) or raising (failed). People read the text of a
        :class:`RunFailed`; of any other exception a reference, with which its text is found in this process's
        log. :class:`RunCancelled` and :class:`RunSuspended` are to pass through it.

        Raises:
            BadHandler: *answer* is no coroutine function, yields, takes other arguments or returns a value; or
                there is one already. What cannot be seen here fails the first run, and stands in the log.
        """
        check_handler(answer)
        if self._answer is not None:
            there, another = (getattr(each, "__qualname__", repr(each)) for each in (self._answer, answer))
            why = f"agent {self.name!r} has {there} already; make another Agent, or call both from one function"
            raise BadHandler(name=another, why=why)
        self._answer = answer
        return answer

    def run(self) -> None:
        """Work until SIGINT or SIGTERM; then finish the present runs or hand them back, at once on a second signal.

        It is all that a program does. Who wants the exceptions awaits :meth:`work`.

        Raises:
            SystemExit: what :meth:`work` raises of this package, in a line that Python prints instead of a traceback.
            ValueError: no answer was registered.
        """
        try:
            asyncio.run(self._run_until_signalled())
        except CrdtSessionsError as error:
            raise SystemExit(f"agent {self.name}: {error}") from error

    def stop(self) -> None:
        """Take no more runs, finish the present ones or hand them back, and let :meth:`work` return."""
        self._stopping.set()

    async def work(self) -> None:
        """Work until :meth:`stop` or cancelled; one failed answer ends its run, not the agent.

        Failures that may pass are waited for: a service that is not there yet, or away. After the first contact also
        something else that answers in its place, and a token that has expired, if *token* is a function.

        Raises:
            RequestRefused: the service does not know the token, or gives its principal no runs.
            NoService: from the beginning what answers is not the service, or cannot be talked to.
            NoToken: from the beginning the function *token* failed, or has not returned in time.
            ValueError: no answer was registered.
        """
        if self._answer is None:
            raise ValueError("register an answer with @agent.on_run first")
        if not self._quiet:
            tell_on_stderr()
        async with ServiceClient(self._url, self._token) as service:
            try:
                await self._take_runs(service, self._answer)
                if self._working:
                    await asyncio.wait(self._working, timeout=self._shutdown_s)
                if self._failure is not None:
                    raise self._failure
            finally:
                self._stopping.set()
                for task in self._working:
                    task.cancel()
                await asyncio.gather(*self._working, return_exceptions=True)
                await self._warm.close()

    # -- inside ------------------------------------------------------------------------------------------------

    async def _run_until_signalled(self) -> None:
        working = asyncio.ensure_future(self.work())

        def leave() -> None:
            if self._stopping.is_set():
                working.cancel()
            self.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().add_signal_handler(number, leave)
        with suppress(asyncio.CancelledError):
            await working

    async def _take_runs(self, service: ServiceClient, answer: OnRun) -> None:
        backoff = Backoff(rng=self._rng)
        let_in = sure = False
        while await self._unless_stopped(self._free.acquire()) and not self._stopping.is_set():
            assignment: Assignment | None = None
            try:
                if self._me is None:
                    self._me = await self._unless_stopped(service.whoami())
                assignment = await self._claim(service, wait_s=_POLL_S if sure else 0.0)
            except (ServiceUnreachable, NoService, NoToken, RequestRefused) as error:
                if not self._passes(error, let_in=let_in):
                    raise
                sure = sure and isinstance(error, RequestRefused)  # it is there, and keeps waiting who may wait
                self._contact.failed(self, error)
                await self._unless_stopped(self._clock.sleep(backoff.next()))
            else:
                if not self._stopping.is_set():
                    self._note_claim(first=not let_in)
                    let_in = sure = True
                    backoff.reset()
            if assignment is None:
                self._free.release()
                continue
            if self._stopping.is_set():
                await self._give_back(service, assignment)
                return
            task = asyncio.create_task(self._work_on(service, assignment, answer), name=f"run {assignment.run.id}")
            self._working.add(task)
            task.add_done_callback(self._done)

    def _passes(self, error: Exception, *, let_in: bool) -> bool:
        """Whether an error may pass."""
        if not isinstance(error, RequestRefused) or not is_final(error):
            return let_in or isinstance(error, ServiceUnreachable | RequestRefused)
        return let_in and error.status == 401 and callable(self._token)  # not without another token

    def _note_claim(self, *, first: bool) -> None:
        self._contact.works(self)
        if first and self._me is not None:
            who = "anybody, for it asks for no token" if self._me.principal is None else self._me.principal
            if self._me.tenant:
                who += f" of tenant {self._me.tenant}"
            runs = f"for {self.name} or any agent" if self.name != ANY_AGENT else "for any agent"
            what = "connected to %s as %s; takes runs %s, %s at a time"
            self._contact.tell(logging.INFO, what, self._url, who, runs, self._concurrency)

    async def _give_back(self, service: ServiceClient, assignment: Assignment) -> None:
        try:
            await service.release(assignment)
        except CrdtSessionsError as error:  # its lease runs out
            self._contact.tell(logging.WARNING, "cannot give %s back: %s", assignment.run.id, error)

    async def _claim(self, service: ServiceClient, *, wait_s: float) -> Assignment | None:
        """Ask for a run; None if there was none, the agent is stopped, or it must ask again.

        A claim made before the agent lost a run is not answered with that run, so it asks again.
        """
        self._lost.clear()
        claiming = service.claim([self.name], wait_s=wait_s)
        assignment: Assignment | None = await _unless((self._stopping, self._lost), claiming, late_s=_LATE_CLAIM_S)
        return assignment

    async def _unless_stopped(self, work: Awaitable[Any]) -> Any:
        return await _unless((self._stopping,), work)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._free.release()
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, NoService) and not self._contact.made:
            self._failure = error  # no session can be joined
            self.stop()
        else:
            _log.error("a run was left: %s", error, exc_info=error)

    async def _work_on(self, service: ServiceClient, assignment: Assignment, answer: OnRun) -> None:
        begun = self._clock.now()
        attempt = assignment.run.lease.attempt if assignment.run.lease is not None else 1
        self._tell(
            assignment, logging.INFO, "takes %s in session %s" + (f", attempt {attempt}" if attempt > 1 else "")
        )
        try:
            async with AsyncExitStack() as stack:
                peer = await self._join(assignment, stack)
                out = MessageStream(peer, assignment.run, assignment.epoch)
                run = AgentRun(peer, assignment, service, out, self._tools)
                await answer_run(answer, run, restart=self._on_resume == "restart")
                took_s = (self._clock.now() - begun) / 1000
                self._tell(assignment, logging.INFO, "%s in session %s %s", _ended(out.result, took_s))
                if not self._stopping.is_set():
                    stack.pop_all()  # it need not leave now
                    await self._warm.park(assignment.session, assignment.lineage, peer)
        except (ConnectionClosed, LeaseLost) as error:
            self._tell(assignment, logging.WARNING, "%s in session %s was taken away: %s", error)
            self._lost.set()

    def _tell(self, assignment: Assignment, level: int, what: str, *facts: object) -> None:
        session, run = assignment.session, assignment.run.id
        self._contact.tell(level, what, run, session, *facts, session=session, run=run)

    async def _join(self, assignment: Assignment, stack: AsyncExitStack) -> SessionPeer:
        """Return a peer that holds the lease and has the run; leaving *stack* makes it leave."""
        kept = self._warm.pick_up(assignment.session, assignment.lineage)
        if not isinstance(kept, SessionPeer):
            return await stack.enter_async_context(self._connect(assignment, kept))
        stack.push_async_exit(kept)
        kept.resume(assignment.token, assignment.renew_s)
        with suppress(TimeoutError):  # the answer to the claim may be faster than the document's change
            async with asyncio.timeout(_CATCH_UP_S):
                await kept.until(lambda: _knows(kept, assignment))
        return kept

    def _connect(self, assignment: Assignment, replica: Replica | None) -> SessionPeer:
        id = (self._me.principal if self._me is not None else None) or f"agent-{self.name}"
        options: dict[str, Any] = {
            "id": id,
            "name": self.name,
            "kind": "agent",
            "contact": self._contact,
        } | self._options
        return connect(
            self._url,
            assignment.session,
            token=self._token,
            lease=assignment.token,
            renew_s=assignment.renew_s,
            clock=self._clock,
            replica=replica,
            **options,
        )


def _knows(peer: SessionPeer, assignment: Assignment) -> bool:
    """Whether a peer has the run as it was when it was claimed, and with it all that was there before."""
    run = peer.view.runs.value(assignment.run.id)
    return run is not None and (run.epoch or 0) >= assignment.epoch


_ENDED = {
    "cancelled": "was cancelled",
    "handoff": "was handed over",
    "released": "was given back",
    "suspended": "waits for people",
}


def _ended(result: RunResult | None, took_s: float) -> str:
    """Return how a run ended, or goes on, as a clause."""
    if result is None:
        return f"was left after {took_s:.1f} s"
    to = f" to {result.agent}" if result.agent else ""
    why = result.error.message if result.error is not None else result.reason
    return f"{_ENDED.get(result.status, result.status)}{to} after {took_s:.1f} s" + (f": {why}" if why else "")


async def _unless(events: Sequence[asyncio.Event], work: Awaitable[Any], *, late_s: float = 0.0) -> Any:
    """Return what *work* returns, or None if one of *events* is set meanwhile and it takes *late_s* longer."""
    working, watching = asyncio.ensure_future(work), [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait({working, *watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and late_s > 0:
            await asyncio.wait({working}, timeout=late_s)
        return working.result() if working.done() else None
    finally:
        for task in (working, *watching):
            task.cancel()
        await asyncio.gather(working, *watching, return_exceptions=True)

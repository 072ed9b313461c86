"""An agent: a worker that takes runs from the service, from all sessions, and answers them.

It needs no bookkeeping of its own. What is to be answered, what it had begun and what it had written when
it died all stand in the session; who works on what is decided by the service.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx

from crdt_sessions.client.backoff import Backoff
from crdt_sessions.client.known import KnownSessions
from crdt_sessions.client.run import AgentRun
from crdt_sessions.client.service import Grant, ServiceClient
from crdt_sessions.client.session import SessionPeer, connect
from crdt_sessions.client.stream import MessageStream, failure
from crdt_sessions.client.token import Token
from crdt_sessions.clock import Clock, SystemClock
from crdt_sessions.errors import ConnectionClosed, LeaseLost, RequestRefused, RunCancelled, RunSuspended
from crdt_sessions.sync import Replica

_log = logging.getLogger("crdt_sessions.agent")

OnRun = Callable[[AgentRun], Awaitable[None]]

_POLL_S = 20.0
_LATE_CLAIM_S = 0.3
"""How long an agent that is to give up a claim waits for the answer: a run may be on its way."""

_STOP_GRACE_S = 2.0
"""How long an answer that was cancelled may go on before it is interrupted."""


class Agent:
    """A worker that answers the runs that are for it, in whatever session they are asked for.

    Args:
        url: the service.
        name: how people see it, and who its runs are for; it also takes those that are for anybody.
        token: if the service asks for one; or a function that gets a fresh one.
        concurrency: runs it works on at the same time.
        shutdown_s: how long runs may take to finish when it is stopped; what has not, is handed back.
        linger_s: how long it stays in a session after a run, connected and unseen, to begin the next one at once.
        remember_bytes: how much of the sessions it has left it keeps, to begin the next run there sooner.
        clock: for tests.
        options: passed to :func:`connect`.

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
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        if concurrency < 1:
            raise ValueError("an agent works on at least one run at a time")
        self.name = name
        self._url = url
        self._token = token
        self._shutdown_s = shutdown_s
        self._clock = clock or SystemClock()
        self._id: str | None = None
        self._options = options
        self._answer: OnRun | None = None
        self._free = asyncio.Semaphore(concurrency)
        self._stopping = asyncio.Event()
        self._lost = asyncio.Event()  # a run was, since the last claim
        self._asking: asyncio.Task[Grant | None] | None = None
        self._granted = ""
        """Token of the last grant: it is heard of twice, in answer to the claim and on the connection that waits."""
        self._working: set[asyncio.Task[None]] = set()
        self._known = KnownSessions(remember_bytes, linger_s, random.SystemRandom())

    def on_run(self, answer: OnRun) -> OnRun:
        """Register the coroutine that answers; usable as a decorator.

        It ends its run by returning (completed) or raising (failed). :class:`RunCancelled` and
        :class:`RunSuspended` are to pass through it.
        """
        self._answer = answer
        return answer

    def run(self) -> None:
        """Work until SIGINT or SIGTERM; then finish, or hand back, what is being worked on; at once if told twice.

        Raises:
            RequestRefused: the service does not give this principal any runs.
        """
        asyncio.run(self._run_until_signalled())

    def stop(self) -> None:
        """Take no more runs, finish or hand back those that are being worked on, and let :meth:`work` return."""
        self._stopping.set()

    async def work(self) -> None:
        """Work until :meth:`stop` or cancelled; one failed answer ends its run, not the agent.

        Raises:
            RequestRefused: the service does not give this principal any runs.
            ValueError: no answer was registered.
        """
        if self._answer is None:
            raise ValueError("register an answer with @agent.on_run first")
        async with ServiceClient(self._url, self._token) as service:
            try:
                await self._take_runs(service, self._answer)
                if self._working:
                    await asyncio.wait(self._working, timeout=self._shutdown_s)
            finally:
                self._stopping.set()
                for task in self._working:
                    task.cancel()
                await self._ask_no_more()
                await asyncio.gather(*self._working, return_exceptions=True)
                await self._known.close()

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
        backoff = Backoff(rng=random.Random())
        while await self._unless_stopped(self._free.acquire()) and not self._stopping.is_set():
            try:
                if self._token is not None and self._id is None:
                    self._id = await self._unless_stopped(service.whoami())
                grant = await self._claim(service)
                backoff.reset()
                if grant is not None and self._stopping.is_set():
                    await service.release(grant)
                    return
            except (httpx.TransportError, LeaseLost, RequestRefused) as error:
                if isinstance(error, RequestRefused) and error.status < 500 and error.status != 429:
                    raise
                _log.info("no runs to be had: %s", error)
                grant = None
                await self._unless_stopped(self._clock.sleep(backoff.next()))
            if grant is None:
                self._free.release()
                continue
            task = asyncio.create_task(self._work_on(service, grant, answer), name=f"run {grant.run.id}")
            self._working.add(task)
            task.add_done_callback(self._done)

    async def _claim(self, service: ServiceClient) -> Grant | None:
        """Ask for a run; None if there was none, the agent is stopped, or it is to ask anew.

        A run that was lost is not given in answer to what was asked before it was.
        """
        if self._lost.is_set():
            self._lost.clear()
            await self._ask_no_more()
        grant: Grant | None = await _unless(
            (self._stopping, self._lost), self._granting(service), late_s=_LATE_CLAIM_S
        )
        return grant

    async def _granting(self, service: ServiceClient) -> Grant | None:
        """Return what is granted, whichever way it is heard of first; None if nothing was in time."""
        while True:
            if self._asking is None:
                self._asking = asyncio.create_task(service.claim([self.name], wait_s=_POLL_S), name="claim")
            asking, hearing = self._asking, asyncio.ensure_future(self._known.given())
            try:
                await asyncio.wait({asking, hearing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                hearing.cancel()
            if hearing.done():  # the claim's answer is on its way, and looked at next time
                grant: Grant | None = hearing.result()
            else:
                self._asking = None
                grant = asking.result()
            if grant is None:
                return None
            if grant.token != self._granted:
                self._granted = grant.token
                return grant

    async def _ask_no_more(self) -> None:
        if self._asking is not None:
            await _cancel(self._asking)
            self._asking = None

    async def _unless_stopped(self, work: Awaitable[Any]) -> Any:
        return await _unless((self._stopping,), work)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._free.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a run was left: %s", error, exc_info=error)

    async def _work_on(self, service: ServiceClient, grant: Grant, answer: OnRun) -> None:
        about = {"session": grant.session, "run": grant.run.id}
        try:
            async with AsyncExitStack() as stack:
                peer = await self._join(grant, stack)
                await self._hold(service, grant, answer, peer)
                if not self._stopping.is_set():
                    stack.pop_all()  # it need not leave now
                    await self._known.keep(grant.session, grant.origin, peer)
        except (ConnectionClosed, LeaseLost) as error:
            _log.warning("the run was taken away: %s", error, extra=about)
            self._lost.set()

    async def _join(self, grant: Grant, stack: AsyncExitStack) -> SessionPeer:
        """Return a peer that holds the lease and is in sync; leaving *stack* makes it leave."""
        kept = self._known.take(grant.session, grant.origin)
        if not isinstance(kept, SessionPeer):
            return await stack.enter_async_context(self._connect(grant, kept))
        stack.push_async_exit(kept)
        kept.take_over(grant.token, grant.renew_s)
        return kept

    def _connect(self, grant: Grant, replica: Replica | None) -> SessionPeer:
        options = {"id": self._id or f"agent-{self.name}", "name": self.name, "kind": "agent"} | self._options
        return connect(
            self._url,
            grant.session,
            token=self._token,
            lease=grant.token,
            renew_s=grant.renew_s,
            clock=self._clock,
            replica=replica,
            **options,
        )

    async def _hold(self, service: ServiceClient, grant: Grant, answer: OnRun, peer: SessionPeer) -> None:
        """Answer, watch for what ends the answer from outside, and say how it ended."""
        out = MessageStream(peer, grant.run, grant.epoch)
        out.begin()
        answering = asyncio.create_task(self._answered(answer, AgentRun(peer, grant, service, out), out))
        watching = asyncio.create_task(self._watch(peer, out, answering))
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and watching.exception() is not None:
                out.stop()  # the lease is gone; what is still written would be refused
                watching.result()  # raises it
            await answering
        except asyncio.CancelledError:
            await _cancel(answering)
            out.end("released", "the agent was stopped")  # leaving the connection in good order hands it over
            return
        finally:
            await _cancel(answering)
            await _cancel(watching)
        await peer.durable()

    async def _answered(self, answer: OnRun, run: AgentRun, out: MessageStream) -> None:
        """Call the answer and report how it ended."""
        try:
            await answer(run)
        except RunSuspended:
            return
        except RunCancelled:
            out.end("cancelled")
        except asyncio.CancelledError:
            if not out.cancelled:
                raise  # the agent is stopped, or the lease lost
            out.end("cancelled")
        except LeaseLost:
            out.stop()
            raise
        except Exception as error:  # noqa: BLE001 - whatever the answer raised is the run's outcome
            _log.error("run failed: %s", error, exc_info=error, extra={"run": run.id})
            out.end("failed", *failure(type(error).__name__, str(error)))
        else:
            out.end(*out.outcome)

    async def _watch(self, peer: SessionPeer, out: MessageStream, answering: asyncio.Task[None]) -> None:
        """Stop an answer that was cancelled and goes on; raise if the service closes the connection for good."""
        await peer.until(lambda: out.cancelled)
        await asyncio.wait({answering}, timeout=_STOP_GRACE_S)
        if not answering.done():
            answering.cancel()


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


async def _cancel(task: asyncio.Task[Any]) -> None:
    if not task.done():
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)

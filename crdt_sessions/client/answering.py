"""Answers one run: calls the agent's coroutine, stops it when the run ends from outside, and reports how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from crdt_sessions.client.handlers import call_handler
from crdt_sessions.client.run import AgentRun
from crdt_sessions.client.stream import failure_by
from crdt_sessions.errors import LeaseLost, RunCancelled, RunSuspended

OnRun = Callable[[AgentRun], Awaitable[None]]

_STOP_GRACE_S = 2.0
"""How long an answer that was cancelled may go on before it is interrupted."""


async def answer_run(answer: OnRun, run: AgentRun, *, restart: bool = False) -> None:
    """Call *answer* for a run and report how it ended; return once that is durable.

    If *restart*, an answer that broke off begins anew. A run is handed back if this is cancelled meanwhile, which
    then returns.

    Raises:
        LeaseLost, ConnectionClosed: the run was taken away.
    """
    out = run.out
    out.begin()
    if restart and run.broke_off:
        run.restart()
    answering = asyncio.create_task(_answered(answer, run))
    watching = asyncio.create_task(_watch(run, answering))
    try:
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done() and watching.exception() is not None:
            out.stop()  # the lease is gone; what is still written would be refused
            watching.result()  # raises it
        await asyncio.wait({answering})  # unlike to await it, this is cancelled only if this task is
    except asyncio.CancelledError:
        await _cancel(answering)
        out.end("released", "the agent was stopped")  # leaving the connection in good order hands it over
        return
    finally:
        await _cancel(answering)
        await _cancel(watching)
    try:
        answering.result()
    except asyncio.CancelledError as error:  # nobody has stopped it: it has awaited something that was cancelled
        out.end("failed", *failure_by(error, run=run.id))
    await run.session.durable()


async def _answered(answer: OnRun, run: AgentRun) -> None:
    """Call the answer and report how it ended."""
    out = run.out
    try:
        await call_handler(answer, run)
    except RunSuspended:
        return
    except RunCancelled:
        out.end("cancelled")
    except asyncio.CancelledError:
        if not out.cancelled:
            raise  # the agent is stopped, the lease lost, or it is the answer's own
        out.end("cancelled")
    except LeaseLost:
        out.stop()
        raise
    except Exception as error:  # noqa: BLE001 - whatever the answer raised is the run's outcome
        out.end("failed", *failure_by(error, run=run.id))
    else:
        out.end(*out.outcome)


async def _watch(run: AgentRun, answering: asyncio.Task[None]) -> None:
    """Stop an answer that was cancelled and goes on; raise if the service closes the connection for good."""
    await run.session.until(lambda: run.out.cancelled)
    await asyncio.wait({answering}, timeout=_STOP_GRACE_S)
    if not answering.done():
        answering.cancel()


async def _cancel(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)

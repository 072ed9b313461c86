"""A message that a peer writes as it comes into being: a run of its own, asked for, claimed and held by it."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from crdt_sessions.client.backoff import Backoff
from crdt_sessions.client.conversation import ConversationPeer
from crdt_sessions.client.obstacles import is_final
from crdt_sessions.client.peer import Peer
from crdt_sessions.client.service import Assignment, ServiceClient
from crdt_sessions.client.stream import MessageStream, failure_by
from crdt_sessions.errors import RequestRefused, RunCancelled, RunNotClaimable, ServiceUnreachable
from crdt_sessions.model import RunError, answer_to
from crdt_sessions.model.run_values import ResultStatus


@asynccontextmanager
async def stream_run(
    peer: ConversationPeer,
    service: ServiceClient,
    session: str,
    hold: Callable[[Assignment], Peer],
    *,
    reply_to: str | None,
    run_id: str | None,
    agent: str,
    resume: bool,
) -> AsyncIterator[MessageStream]:
    """Write a run from its request to its end. See :meth:`SessionPeer.stream`, whose arguments the last four are.

    Args:
        peer: asks for the run.
        service: where it is claimed; closed at the end.
        session: the session's name.
        hold: makes the peer that holds the lease and writes.
        reply_to: see there.
        run_id: see there.
        agent: see there.
        resume: see there.
    """
    wanted = run_id or (answer_to(reply_to) if reply_to else f"run-{uuid.uuid4().hex}")
    peer.ask(reply_to or wanted, agent, policy="parallel", run_id=wanted)
    async with service:
        assignment = await _claimed(peer, service, session, wanted, agent)
    async with hold(assignment) as holder:
        out = MessageStream(holder, assignment.run, assignment.epoch, resume=resume)
        out.begin()
        left_by: BaseException | None = None
        try:
            yield out
        except BaseException as error:  # noqa: BLE001 - raised again, once the end of the run is handed over
            left_by = error
        out.end(*_ending(out, left_by))
        if left_by is None:
            await holder.durable()
    if left_by is not None:
        raise left_by
    await peer.until(lambda: not peer.connected or peer.view.runs.find(wanted).over)


async def _claimed(peer: Peer, service: ServiceClient, session: str, run_id: str, agent: str) -> Assignment:
    """Claim a run as soon as it is queued, which it is not while a former writer still has its lease."""
    backoff = Backoff(rng=random.Random())
    async for _ in peer.changes():
        while (run := peer.view.runs.value(run_id)) is not None and (run.status == "queued" or run.over):
            try:
                return await service.claim_one(session, run_id, agent)
            except RunNotClaimable:
                if peer.view.runs.find(run_id).over:
                    raise
                break
            except (ServiceUnreachable, RequestRefused) as error:
                if is_final(error):
                    raise
                await peer.clock.sleep(backoff.next())  # the connection tells that the service is away
    raise AssertionError("a peer's changes never end")


def _ending(out: MessageStream, error: BaseException | None) -> tuple[ResultStatus, str | None, RunError | None]:
    """Return how a run ends whose writer was left by *error*."""
    if error is None:
        return out.outcome
    if isinstance(error, RunCancelled):
        return "cancelled", None, None
    if isinstance(error, Exception):
        return "failed", *failure_by(error, run=out.run_id)
    return "released", None, None  # the process is stopping, not the run: a successor may continue it

"""A session as AG-UI events, for the gateways of AG-UI and TanStack AI.

Source: AG-UI 1.0, "Events" and "Serialization". A stream begins with ``RUN_STARTED`` and the conversation so far
(``MESSAGES_SNAPSHOT``). Messages that are still being written are empty there; their text follows from its first
character, and then new events. The stream ends with one terminal event, after which nothing is open.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from crdt_sessions.errors import CrdtSessionsError, ShuttingDown
from crdt_sessions.ids import SessionId
from crdt_sessions.model import Run, SessionView
from crdt_sessions.runtime import AgentWatch, Projector, Session, SessionRegistry
from crdt_sessions_server.gateways.ag_ui.messages import Event
from crdt_sessions_server.gateways.ag_ui.session import SessionEncoder
from crdt_sessions_server.gateways.ag_ui.state import ClientState
from crdt_sessions_server.gateways.run_lookup import absence, active_run
from crdt_sessions_server.http.problems import type_of


async def events(
    registry: SessionRegistry,
    name: SessionId,
    encoder: SessionEncoder,
    *,
    follow: bool,
    come_back: bool = False,
    client: ClientState | None = None,
) -> AsyncGenerator[list[Event], None]:
    """Yield a session as AG-UI events, in batches, to the end of the run or, with *follow*, without end.

    The last event is a terminal one. *client* notes what it was told of the session's state.

    Raises:
        ShuttingDown: the service stops, and the client comes back by itself (*come_back*).
    """
    try:
        async with registry.open(name) as session:
            projector = _projector(session)
            try:
                watch = AgentWatch(registry, session)
                while True:
                    run_id = encoder.run.id if encoder.run is not None and not encoder.ended else None
                    came_or_went = await watch.wait(projector, run_id)
                    encoder, projector, batch = _batch(session, encoder, projector)
                    if came_or_went and encoder.run is not None and not encoder.ended:
                        value = absence(encoder.run, away=watch.away)
                        batch.append({"type": "CUSTOM", "name": "agent-away", "value": value})
                    if batch:
                        await session.readable()
                        yield batch
                    if encoder.ended:
                        _note(client, session, encoder, whole=True)
                    if encoder.ended and not follow:
                        return
                    if (beside := _begun_beside(session.view, encoder)) is not None:
                        encoder, projector = encoder.another(beside), _projector(session)
                    await encoder.offer(session)
            finally:
                _note(client, session, encoder, whole=False)
                await encoder.leave(session, to_work=not follow)
    except CrdtSessionsError as error:
        if come_back and isinstance(error, ShuttingDown):
            raise
        yield list(encoder.fail(type_of(error).slug, f"{error}; the answer goes on, join again to see it"))


def _batch(
    session: Session, encoder: SessionEncoder, projector: Projector
) -> tuple[SessionEncoder, Projector, list[Event]]:
    """Return what is to be told now, and what tells the rest: another encoder, if all was told anew."""
    happened = projector.take()
    if encoder.begins_anew(happened):
        projector = _projector(session)
        encoder, batch = encoder.tell_anew(session.view, projector.take())
        return encoder, projector, batch
    if (rewriting := encoder.rewritten_by(session.view, happened)) is not None:
        encoder, projector = encoder.another(rewriting), _projector(session)
        happened = projector.take()
    return encoder, projector, list(encoder.encode(session.view, happened))


def _projector(session: Session) -> Projector:
    return Projector(session, wants=lambda subject: subject[0] != "meta")


def _begun_beside(view: SessionView, encoder: SessionEncoder) -> Run | None:
    """Return the active run if it has begun beside the one that has ended: then all is told anew."""
    going = active_run(view) if encoder.ended else None
    return going if going is not None and encoder.has_begun(going) and not encoder.pauses(view, going) else None


def _note(client: ClientState | None, session: Session, encoder: SessionEncoder, *, whole: bool) -> None:
    if client is not None:
        client.told(session.view, encoder.state, whole=whole)

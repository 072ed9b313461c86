"""The methods of streams that show a session: read its events, read a message's text."""

from __future__ import annotations

from quart import Blueprint, Response, request

from crdt_sessions import errors
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.runtime.recent import Recent
from crdt_sessions_server.auth import asked_session
from crdt_sessions_server.gateways.durable_streams.headers import as_the_protocol_says
from crdt_sessions_server.gateways.durable_streams.reading import QUERY, answered_view
from crdt_sessions_server.gateways.durable_streams.views import Cursors, Events, Text
from crdt_sessions_server.http.describing import LINES, SSE, Parameter, answers, reads, refuses, tag
from crdt_sessions_server.http.schemas import JSON

_CURSORS = 256
"""So many places are remembered at which readers know what is being written."""
_REFUSES = (errors.BadStreamRequest, errors.BadSessionId, errors.StreamNotFound)


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of streams that show a session."""
    streams = Blueprint("session-streams", __name__, url_prefix="/v1/streams/sessions")
    as_the_protocol_says(streams)
    cursors: Cursors = Recent(_CURSORS)

    @streams.get("/<name>/events")
    @tag(["streams"])
    @reads(*QUERY, Parameter("text", "`added`: of a message that is written, what is added is told.", "query"))
    @answers(200, {JSON: {"type": "array"}, SSE: LINES}, "Change messages of Durable State.")
    @refuses(*_REFUSES)
    async def read_events(name: str) -> Response:
        """Follow a session as Durable State: messages, runs, state and session, each as it is now."""
        text = request.args.get("text")
        if text not in (None, "added"):
            raise errors.BadStreamRequest(why=f"text should be added, or be left out, not {text[:40]!r}")
        events = Events(registry, asked_session(name), cursors if text else None)
        return await answered_view(events, registry.clock, registry.long_poll_s)

    @streams.get("/<name>/messages/<message>/text")
    @tag(["streams"])
    @reads(*QUERY)
    @answers(200, {"text/plain": LINES, SSE: LINES}, "The text; closed once nobody writes it any more.")
    @refuses(*_REFUSES, errors.OffsetExpired)
    async def read_text(name: str, message: str) -> Response:
        """Read the text of a message while it is written."""
        text = Text(registry, asked_session(name), message)
        return await answered_view(text, registry.clock, registry.long_poll_s)

    return streams

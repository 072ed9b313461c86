"""``GET /v1/sessions/<id>/events``: a session as events, for readers that know no Yjs.

As server-sent events, as lines of JSON, or a page at a time for clients that cannot hold a connection (long poll).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import aclosing
from typing import NamedTuple

from pydantic import Field, JsonValue
from quart import Blueprint, Response, request

from crdt_sessions.errors import BadParameter, CrdtSessionsError, ShuttingDown
from crdt_sessions.ids import SessionId
from crdt_sessions.runtime import EVENT_KINDS, FeedEvent, SessionRegistry, follow, page
from crdt_sessions_server.auth import asked_session, current_admitted, live_access
from crdt_sessions_server.http.describing import LINES, SSE, Parameter, answers, reads, tag
from crdt_sessions_server.http.problem_documents import told
from crdt_sessions_server.http.schemas import JSON, NDJSON, Answer, Query
from crdt_sessions_server.http.streaming import COMMENT, compact, going_on, with_silence
from crdt_sessions_server.http.validation import validate_querystring

_MAX_WAIT_S = 60


class EventQuery(Query):
    """Which events, and how."""

    cursor: str | None = Field(None, description="Where to go on; everything first if absent.")
    kinds: str | None = Field(None, description="Only these events, with commas in between.")
    children: bool = Field(
        False, description="Whether what child runs write is told, too; it is no part of the conversation."
    )
    wait_s: float | None = Field(
        None,
        ge=0,
        le=_MAX_WAIT_S,
        description="Answer with what there is, once there is something, or after so long.",
    )


class EventEntry(Answer):
    """Something of the session, as it is now."""

    event: str
    data: JsonValue


class EventPage(Answer):
    """A page of events."""

    events: list[EventEntry]
    cursor: str | None = Field(description="Ask with this to go on.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the route for events."""
    events = Blueprint("events", __name__, url_prefix="/v1/sessions")

    @events.get("/<name>/events")
    @tag(["messages"])
    @validate_querystring(EventQuery)
    @reads(Parameter("Last-Event-ID", "Where to go on, as browsers say when they come back."))
    @answers(
        200,
        {SSE: LINES, NDJSON: LINES, JSON: EventPage},
        "Events, as they happen; a page of them if `waitS` is given.",
    )
    async def stream_events(name: str, query_args: EventQuery) -> Response:
        """Follow the session: everything first, or what changed since the cursor, then what happens.

        Server-sent events, which go on where ``Last-Event-ID`` says; lines of JSON if ``Accept`` asks for
        ``application/x-ndjson``; one page as JSON if ``waitS`` is given. Event types: session, state, message, part,
        text, message-removed, run, presence; docs/protocol.md describes them.
        """
        wanted = asked_session(name)
        async with registry.open(wanted):  # a missing session is a 404, not an empty stream
            pass
        events_wanted = _Wanted(_kinds(query_args.kinds), query_args.children)
        cursor = request.headers.get("Last-Event-ID") or query_args.cursor
        if query_args.wait_s is not None:
            asked = _page(registry, wanted, cursor, events_wanted, query_args.wait_s)
            return await live_access().allowed(current_admitted(), asked)
        if request.accept_mimetypes.best == NDJSON:
            return going_on(_told(registry, wanted, cursor, events_wanted, _line, b"\n"), NDJSON)
        return going_on(_told(registry, wanted, cursor, events_wanted, _sse, COMMENT, b"retry: 1000\n\n"))

    return events


class _Wanted(NamedTuple):
    """Which events are wanted."""

    kinds: Collection[str] | None
    children: bool


def _kinds(text: str | None) -> Collection[str] | None:
    if text is None:
        return None
    kinds = set(text.split(","))
    if unknown := kinds - set(EVENT_KINDS):
        raise BadParameter(name="kinds", text=",".join(sorted(unknown)))
    return kinds


def _sse(event: FeedEvent) -> bytes:
    return f"id: {event.cursor}\nevent: {event.kind}\ndata: {compact(event.data)}\n\n".encode()


def _line(event: FeedEvent) -> bytes:
    return f"{compact({'event': event.kind, 'cursor': event.cursor, 'data': event.data})}\n".encode()


async def _told(
    registry: SessionRegistry,
    name: SessionId,
    cursor: str | None,
    events: _Wanted,
    spell: Callable[[FeedEvent], bytes],
    silence: bytes,
    begin: bytes = b"",
) -> AsyncIterator[bytes]:
    """Yield the session's feed, spelled; something now and then keeps proxies awake."""
    if begin:
        yield begin
    try:
        async with (
            registry.open(name) as session,
            aclosing(with_silence(follow(session, cursor, kinds=events.kinds, children=events.children))) as feed,
        ):
            async for batch in feed:
                yield silence if batch is None else b"".join(map(spell, batch))
    except ShuttingDown:
        return  # the client comes back with its cursor
    except CrdtSessionsError as error:
        yield spell(FeedEvent("error", told(error), cursor or ""))


async def _page(
    registry: SessionRegistry, name: SessionId, cursor: str | None, events: _Wanted, wait_s: float
) -> Response:
    async with registry.open(name) as session:
        batch = await page(session, cursor, kinds=events.kinds, children=events.children, wait_s=wait_s)
    body = {
        "events": [{"event": event.kind, "data": event.data} for event in batch],
        "cursor": batch[-1].cursor if batch else cursor,
    }
    return Response(compact(body), content_type="application/json")

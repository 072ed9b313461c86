"""``GET /v1/sessions/<id>/events``: a session as server-sent events, for readers that know no Yjs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from quart import Blueprint, Response, request
from quart_schema import tag

from crdt_sessions.errors import CrdtSessionsError, ShuttingDown
from crdt_sessions.ids import SessionId, session_id
from crdt_sessions.runtime import SessionRegistry, follow

_SILENCE_S = 15.0


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the route for events."""
    events = Blueprint("events", __name__, url_prefix="/v1/sessions")

    @events.get("/<name>/events")
    @tag(["messages"])
    async def stream_events(name: str) -> Response:
        """Follow the session as server-sent events.

        Everything first, or what changed since the ``Last-Event-ID``, then what happens. Event types:
        session, message, text, message-removed, run, presence; docs/protocol.md describes them.
        """
        wanted = session_id(name)
        async with registry.open(wanted):  # a missing session is a 404, not an empty stream
            pass
        cursor = request.headers.get("Last-Event-ID") or request.args.get("cursor")
        response = Response(_stream(registry, wanted, cursor), content_type="text/event-stream; charset=utf-8")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        response.timeout = None
        return response

    return events


async def _stream(registry: SessionRegistry, name: SessionId, cursor: str | None) -> AsyncIterator[bytes]:
    """Spell the session's feed as server-sent events; a comment now and then keeps proxies awake."""
    yield b"retry: 1000\n\n"
    async with registry.open(name) as session:
        feed = follow(session, cursor)
        waiting: asyncio.Task[Any] | None = None
        try:
            while True:
                waiting = waiting or asyncio.create_task(anext(feed))  # type: ignore[arg-type]
                done, _ = await asyncio.wait({waiting}, timeout=_SILENCE_S)
                if not done:
                    yield b": \n\n"
                    continue
                finished, waiting = waiting, None
                for event in finished.result():
                    data = json.dumps(event.data, ensure_ascii=False, separators=(",", ":"))
                    yield f"id: {event.cursor}\nevent: {event.kind}\ndata: {data}\n\n".encode()
        except ShuttingDown:
            return  # the client comes back with its Last-Event-ID
        except CrdtSessionsError as error:
            data = json.dumps({"title": type(error).__name__, "detail": str(error)})
            yield f"event: error\ndata: {data}\n\n".encode()
        finally:
            if waiting is not None:
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting

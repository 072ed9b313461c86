"""Reads of a stream: what is there, what comes next (long poll), and both without end (server-sent events)."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from quart import Response, request

from crdt_sessions.clock import Clock
from crdt_sessions.errors import BadStreamRequest, ShuttingDown, StreamGone, StreamNotFound
from crdt_sessions.streams import NOW, START, array, is_json, media_type, next_cursor
from crdt_sessions.streams.cursors import MOST_AHEAD_S
from crdt_sessions_server.gateways.durable_streams import headers as names
from crdt_sessions_server.http.describing import Parameter
from crdt_sessions_server.http.streaming import SILENCE_S, compact, going_on, waited_for

SSE_S = 60.0
"""How long one answer of server-sent events lasts: caches can then serve many readers with one."""

QUERY = (
    Parameter("offset", "Where to begin: an offset from `Stream-Next-Offset`, `-1`, or `now`.", "query"),
    Parameter("live", "`long-poll` waits for the next piece, `sse` sends all that come.", "query"),
    Parameter("cursor", "The last `Stream-Cursor`, for caches in between.", "query"),
)
"""What the query of a read may hold."""

_LINES = re.compile(r"\r\n|\r|\n")
_INTEGER = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Found:
    """What a read found.

    Args:
        data: a piece of the log; of JSON, messages with a comma after each.
        start: the offset where it begins.
        end: the offset where to go on.
        up_to_date: whether that is the end, for now.
        last: whether that is the end for good.
    """

    data: bytes
    start: str
    end: str
    up_to_date: bool
    last: bool


class Readable(Protocol):
    """Anything that can be read as a stream."""

    content_type: str
    name: str
    """Differs from that of every other stream there was or will be."""

    async def read(self, offset: str) -> Found:
        """Return what follows an offset, of which ``-1`` and ``now`` are two.

        Raises:
            StreamNotFound, StreamGone: it is not there any more.
            BadStreamRequest: there is no such place.
        """
        ...

    async def wait(self, offset: str, seconds: float) -> None:
        """Return once something follows *offset*, or nothing ever will, or after *seconds*.

        Raises:
            StreamNotFound, StreamGone: it is not there any more.
            ShuttingDown: the process is about to stop.
        """
        ...


async def answered_view(stream: Readable, clock: Clock, long_poll_s: float) -> Response:
    """Return the answer to a GET or HEAD of a stream that shows something else; raises as :func:`answered`."""
    if request.method != "HEAD":
        return await answered(stream, clock, long_poll_s)
    found = await stream.read(NOW)
    told = {names.NEXT: found.end, "Cache-Control": "no-store", "Content-Type": stream.content_type}
    return Response(b"", headers={**told, names.CLOSED: names.TRUE} if found.last else told)


async def answered(stream: Readable, clock: Clock, long_poll_s: float) -> Response:
    """Return the answer to a GET of *stream*, as its query asks.

    Raises:
        BadStreamRequest: the query cannot be read.
        StreamNotFound, StreamGone, TooMany, ShuttingDown, NotAuthenticated, AccessDenied: it cannot be read.
    """
    offset, live = _asked("offset"), _asked("live")
    if live is None:
        return _caught_up(stream, await stream.read(offset or START), offset)
    if offset is None:
        raise BadStreamRequest(why="a live read needs an offset; -1 is the beginning, now the end")
    found = await stream.read(offset)
    if live == "sse":
        return _events(stream, found, clock)
    if live == "long-poll":
        return await _polled(stream, found, clock, long_poll_s)
    raise BadStreamRequest(why=f"live should be long-poll or sse, not {live[:40]!r}")


def _asked(name: str) -> str | None:
    values = request.args.getlist(name)
    if len(values) > 1 or "" in values:
        raise BadStreamRequest(why=f"the parameter {name} should be given once, and not be empty")
    return values[0] if values else None


# -- what is there ---------------------------------------------------------------------------------------------------


def _caught_up(stream: Readable, found: Found, offset: str | None) -> Response:
    told = _told(found)
    if offset == NOW:
        return _body(stream, found, {**told, "Cache-Control": "no-store"})
    tag = f'"{stream.name}:{found.start}:{found.end}{":c" if found.last else ""}"'
    # What does not reach the end never changes. A browser asks again for the rest, so as to miss nothing.
    kept = "private, no-cache" if found.up_to_date else "private, max-age=60, stale-while-revalidate=300"
    told |= {"ETag": tag, "Cache-Control": kept}
    if tag in (each.strip() for each in request.headers.get("If-None-Match", "").split(",")):
        return Response(b"", 304, headers=told)
    return _body(stream, found, told)


def _told(found: Found) -> dict[str, str]:
    told = {names.NEXT: found.end}
    if found.up_to_date:
        told[names.UP_TO_DATE] = names.TRUE
    if found.last:
        told[names.CLOSED] = names.TRUE
    return told


def _body(stream: Readable, found: Found, told: dict[str, str], status: int = 200) -> Response:
    body = array(found.data) if is_json(stream.content_type) else found.data
    return Response(body, status, content_type=stream.content_type, headers=told)


# -- what comes next -------------------------------------------------------------------------------------------------


async def _polled(stream: Readable, found: Found, clock: Clock, seconds: float) -> Response:
    if not found.data and not found.last:
        end = found.end
        await waited_for(lambda: stream.wait(end, seconds))
        found = await stream.read(found.end)
    told = {**_told(found), "Cache-Control": "no-store"}
    if not found.last:
        told[names.CURSOR] = _cursor(clock, _asked_cursor())
    if found.data:
        return _body(stream, found, told)
    return Response(b"", 204, headers=told)


def _asked_cursor() -> int | None:
    text = request.args.get("cursor", "")
    return int(text) if _INTEGER.fullmatch(text) else None


def _cursor(clock: Clock, asked: int | None) -> str:
    return next_cursor(clock.now(), asked, random.randint(1, MOST_AHEAD_S))


# -- both ------------------------------------------------------------------------------------------------------------


def _events(stream: Readable, found: Found, clock: Clock) -> Response:
    told = {} if _is_text(stream.content_type) else {names.ENCODING: "base64"}
    response = going_on(_told_on(stream, found, clock, _asked_cursor()), headers=told)
    response.headers["Content-Type"] = "text/event-stream"  # to the letter, as clients of the protocol compare it
    return response


async def _told_on(stream: Readable, found: Found, clock: Clock, asked: int | None) -> AsyncIterator[bytes]:
    """Yield what was found, and what follows, as events, with one that tells how to go on after each."""
    until = clock.now() + SSE_S * 1000
    cursor = _cursor(clock, asked)
    try:
        while True:
            yield _spelled(stream, found, cursor)
            if found.last or clock.now() >= until:
                return
            if found.up_to_date:
                await stream.wait(found.end, SILENCE_S)
            found = await stream.read(found.end)
            cursor = str(max(int(cursor), int(next_cursor(clock.now(), None, 1))))
    except (StreamNotFound, StreamGone, ShuttingDown):
        return  # a client that comes back is told


def _spelled(stream: Readable, found: Found, cursor: str) -> bytes:
    control: dict[str, str | bool] = {"streamNextOffset": found.end}
    if not found.last:
        control["streamCursor"] = cursor
    if found.up_to_date:
        control["upToDate"] = True
    if found.last:
        control["streamClosed"] = True
    data = _event("data", _text(stream, found.data)) if found.data else ""
    return (data + _event("control", compact(control))).encode()


def _is_text(content_type: str) -> bool:
    return is_json(content_type) or media_type(content_type).startswith("text/")


def _text(stream: Readable, data: bytes) -> str:
    if is_json(stream.content_type):
        return array(data).decode()
    if _is_text(stream.content_type):
        return data.decode(errors="replace")
    return base64.b64encode(data).decode()


def _event(name: str, text: str) -> str:
    lines = "".join(f"data:{' ' * line.startswith(' ')}{line}\n" for line in _LINES.split(text))
    return f"event: {name}\n{lines}\n"

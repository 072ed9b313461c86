"""Responses that go on: server-sent events, lines of JSON, and the silence in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from quart import Response, request

from crdt_sessions.errors import AccessDenied, NotAuthenticated
from crdt_sessions.wire.lines import one_line
from crdt_sessions_server.auth import Admission, Admitted, current_admission, current_admitted

Item = TypeVar("Item")

SILENCE_S = 15.0
"""Longest silence of a response: proxies and clients give up on quieter ones."""
COMMENT = b": \n\n"
UNTOUCHED = {
    "Cache-Control": "no-cache, no-store, no-transform",
    "Content-Encoding": "identity",  # for Caddy before 2.7, which does not know no-transform
    "X-Accel-Buffering": "no",
}
"""What keeps those in between from holding a response back: caches, front ends that compress, and nginx' buffers."""
DONE = b"data: [DONE]\n\n"
"""How OpenAI's API, and those that took after it, end a stream."""


async def with_silence(
    source: AsyncGenerator[Item, None], silence_s: float = SILENCE_S
) -> AsyncGenerator[Item | None, None]:
    """Yield what *source* yields, and None when that takes over *silence_s* seconds; close it at the end."""
    waiting: asyncio.Task[Item] | None = None
    try:
        while True:
            waiting = waiting or asyncio.create_task(anext(source))
            done, _ = await asyncio.wait({waiting}, timeout=silence_s)
            if not done:
                yield None
                continue
            finished, waiting = waiting, None
            try:
                yield finished.result()
            except StopAsyncIteration:
                return
    finally:
        if waiting is not None:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await waiting
        await source.aclose()


def compact(value: Any) -> str:
    """Return *value* as JSON without spaces, in one line."""
    return one_line(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def data_frame(value: Any) -> bytes:
    """Return *value* as a server-sent event without a name."""
    return f"data: {compact(value)}\n\n".encode()


async def data_frames(source: AsyncGenerator[list[Any], None], end: bytes = b"") -> AsyncIterator[bytes]:
    """Yield batches of values as server-sent events, comments while there are none, and *end* at the end."""
    async for batch in with_silence(source):
        yield COMMENT if batch is None else b"".join(map(data_frame, batch))
    if end:
        yield end


async def _while_allowed(
    admission: Admission, admitted: Admitted, body: AsyncGenerator[bytes, None], opening: bytes
) -> AsyncIterator[bytes]:
    try:
        if opening:
            yield opening
        with admission.streaming(admitted.principal):
            async for piece in body:
                yield piece
    except (NotAuthenticated, AccessDenied):
        return  # without a last word: a client that comes back is told
    finally:
        await body.aclose()


async def waited_for(begin: Callable[[], Awaitable[Item]]) -> Item:
    """Return what is waited for, as long as the caller has access; it counts as the stream that others have instead.

    Args:
        begin: begins to wait.

    Raises:
        NotAuthenticated, AccessDenied: the access has ended.
        TooMany, Overloaded: there are too many streams.
    """
    admission, admitted = current_admission(), current_admitted()
    admission.count_connect(dict(request.scope), admitted.principal)
    with admission.streaming(admitted.principal):
        return await admission.live.allowed(admitted, begin())


def going_on(
    body: AsyncIterator[bytes], content_type: str = "text/event-stream", headers: dict[str, str] | None = None
) -> Response:
    """Stream *body* until it ends or the caller loses access.

    Server-sent events begin with a comment: there are front ends that hold the headers back until something follows.
    """
    admission, admitted = current_admission(), current_admitted()
    admission.count_connect(dict(request.scope), admitted.principal)
    opening = COMMENT if content_type == "text/event-stream" else b""
    allowed = _while_allowed(admission, admitted, admission.live.following(admitted, body), opening)
    response = Response(allowed, content_type=f"{content_type}; charset=utf-8", headers=headers)
    response.headers.update(UNTOUCHED)
    response.timeout = None
    return response

"""The methods of streams that are resources of their own."""

from __future__ import annotations

from quart import Blueprint, Response, request

from crdt_sessions import errors
from crdt_sessions.endings import to_the_end
from crdt_sessions.runtime import SessionRegistry, Streams
from crdt_sessions.storage import Stream
from crdt_sessions.streams import NOW, Creation, place, spelled
from crdt_sessions_server.auth import current_principal
from crdt_sessions_server.gateways.durable_streams import headers as names
from crdt_sessions_server.gateways.durable_streams.appending import append
from crdt_sessions_server.gateways.durable_streams.headers import (
    as_the_protocol_says,
    asked_fork,
    asked_time,
    of_stream,
    of_time,
    says_closed,
)
from crdt_sessions_server.gateways.durable_streams.paths import VIEWS, entered, here
from crdt_sessions_server.gateways.durable_streams.reading import QUERY, Found, answered
from crdt_sessions_server.http.describing import BYTES, NOTHING, SSE, Parameter, answers, reads, refuses, tag, takes

_ANY = {"application/octet-stream": BYTES}
_WHERE = {names.NEXT: "Where the stream ends.", names.CLOSED: "`true` if nothing can follow."}


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of durable streams."""
    streams = Blueprint("durable-streams", __name__, url_prefix="/v1/streams")

    as_the_protocol_says(streams)

    @streams.put("/<path:path>")
    @tag(["streams"])
    @takes(_ANY)
    @reads(
        Parameter("Content-Type", "What the stream holds; `application/octet-stream` if absent."),
        Parameter(names.TTL, "It goes after so many seconds in which nobody uses it."),
        Parameter(names.EXPIRES_AT, "It goes at this time (RFC 3339)."),
        Parameter(names.CLOSED, "`true`: the body is all there will be."),
        Parameter(names.FORKED_FROM, "The path of a stream that this one begins like."),
        Parameter(names.FORK_OFFSET, "Up to where it is like that one; to its end if absent."),
        Parameter(names.FORK_SUB, "So many messages, or bytes, further on."),
    )
    @answers(200, NOTHING, "It is there already, made the same way.", _WHERE)
    @answers(201, NOTHING, "It is made.", {**_WHERE, "Location": "Its URL."})
    @refuses(errors.BadStreamRequest, errors.StreamReadOnly, errors.StreamExists, errors.StreamNotFound)
    async def put_stream(path: str) -> Response:
        """Make a stream, with a first content if there is a body."""
        tenant, principal = _entered(path), current_principal()
        wanted = await _creation(registry.streams, tenant, path, principal.id)

        async def make() -> tuple[Stream, bool]:
            stream, new = await registry.streams.create(wanted)
            if new:
                registry.audit.note("stream.create", principal.id, tenant=tenant, path=path)
            return stream, new

        stream, new = await to_the_end(make())
        told = {"Content-Type": stream.content_type, **of_stream(stream)}
        if new:
            told["Location"] = here()
        return Response(b"", 201 if new else 200, headers=told)

    @streams.post("/<path:path>")
    @tag(["streams"])
    @takes(_ANY)
    @reads(
        Parameter("Content-Type", "That of the stream."),
        Parameter(names.CLOSED, "`true`: nothing follows."),
        Parameter(names.SEQ, "The writer's own word for the place; greater than the last one."),
        Parameter(names.PRODUCER, "Names the producer, for batches that may come twice."),
        Parameter(names.EPOCH, "How often the producer has begun anew."),
        Parameter(names.PRODUCER_SEQ, "The batch's number in that epoch, from 0."),
    )
    @answers(
        200,
        NOTHING,
        "The producer's batch is on disk.",
        {**_WHERE, names.EPOCH: "As sent.", names.PRODUCER_SEQ: "The highest that was taken."},
    )
    @answers(204, {}, "It is on disk, or was already.", _WHERE)
    @refuses(
        errors.BadStreamRequest,
        errors.StreamReadOnly,
        errors.StreamNotFound,
        errors.StreamGone,
        errors.StreamEnded,
        errors.StreamConflict,
        errors.StaleProducer,
        errors.ProducerGap,
    )
    async def append_stream(path: str) -> Response:
        """Append to a stream, or close it, or both. What is answered with success is on disk."""
        _check_writable(path)
        answer = await append(registry, current_principal(), path, request.headers.get, await _body())
        return Response(b"", answer.status, headers=answer.headers)

    @streams.get("/<path:path>")
    @tag(["streams"])
    @reads(*QUERY, Parameter("If-None-Match", "The ETag of what is known."))
    @answers(
        200,
        {**_ANY, SSE: {"type": "string"}},
        "A piece of the stream, with its content type; all that follows, with `live=sse`.",
        {
            **_WHERE,
            names.UP_TO_DATE: "`true` at the end, for now.",
            names.CURSOR: "For the next request.",
            "ETag": "Of what was read.",
        },
    )
    @answers(204, {}, "Nothing came (long poll).", _WHERE)
    @answers(304, {}, "It is known already.")
    @refuses(errors.BadStreamRequest, errors.StreamNotFound, errors.StreamGone)
    async def read_stream(path: str) -> Response:
        """Read a stream: what is there, what comes next, or both without end. HEAD tells of it."""
        stream = await registry.streams.find(_entered(path), path)
        if request.method == "HEAD":
            return _described(stream)
        return await answered(_Own(registry.streams, stream), registry.clock, registry.long_poll_s)

    @streams.delete("/<path:path>")
    @tag(["streams"])
    @answers(204, {}, "It is gone; what its forks need of it is kept for them.")
    @refuses(errors.BadStreamRequest, errors.StreamReadOnly, errors.StreamNotFound, errors.StreamGone)
    async def delete_stream(path: str) -> Response:
        """Delete a stream."""
        tenant, principal = _entered(path), current_principal()

        async def delete() -> None:
            await registry.streams.delete(tenant, path)
            registry.audit.note("stream.delete", principal.id, tenant=tenant, path=path)

        await to_the_end(delete())
        return Response(b"", 204)

    return streams


async def _creation(streams: Streams, tenant: str, path: str, owner: str) -> Creation:
    """Return how the stream that the request makes is to be."""
    content_type = request.headers.get("Content-Type")
    ttl_s, expires_at = asked_time(request.headers.get)
    source, position, sub = asked_fork(request.headers.get) or (None, None, 0)
    if source is not None:
        _entered(source)
        position = await streams.fork_place(tenant, source, position, sub)
    body = await _body()
    closed = says_closed(request.headers.get)
    return Creation(tenant, path, owner, content_type, ttl_s, expires_at, closed, body, source, forked_at=position)


async def _body() -> bytes:
    body = await request.get_data()
    return body if isinstance(body, bytes) else body.encode()  # Quart types both


def _check_writable(path: str) -> None:
    if path.split("/")[0] in VIEWS:
        raise errors.StreamReadOnly(path=path)


def _entered(path: str) -> str:
    """Return the tenant whose stream a *path* names.

    Raises:
        BadStreamRequest: it cannot name one.
        StreamReadOnly: it shows a session.
        AccessDenied: the token is not for it.
    """
    if request.method not in ("GET", "HEAD"):
        _check_writable(path)
    return entered(path, current_principal())


def _described(stream: Stream) -> Response:
    told = {"Content-Type": stream.content_type, "Cache-Control": "no-store"}
    return Response(b"", headers={**told, **of_stream(stream), **of_time(stream)})


class _Own:
    """A stream that is a resource of its own, to be read."""

    def __init__(self, streams: Streams, stream: Stream) -> None:
        self._streams = streams
        self._stream = stream
        self.content_type = stream.content_type
        self.name = str(stream.id)
        self._seen = 0

    async def read(self, offset: str) -> Found:
        """Return what follows an offset."""
        await self._streams.used(self._stream)
        piece = await self._streams.read(self._stream, self._stream.tail if offset == NOW else place(offset))
        self._seen = piece.seen
        return Found(piece.data, spelled(piece.start), spelled(piece.end), piece.up_to_date, piece.last)

    async def wait(self, offset: str, seconds: float) -> None:
        """Return once something follows *offset*."""
        found = await self._streams.wait(self._stream, max(place(offset), self._seen), seconds)
        if found.id != self._stream.id:
            raise errors.StreamNotFound(path=found.path)  # this is another one, made after that one was deleted
        self._stream = found

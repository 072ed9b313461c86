"""The methods of sessions as Yjs documents, in the dialect of ``y-durable-streams``: read and bring updates."""

from __future__ import annotations

from quart import Blueprint, Response, request
from quart_schema import tag

from crdt_sessions import errors
from crdt_sessions.errors import BadStreamRequest, StreamNotFound, WireError
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.streams import START
from crdt_sessions.sync import Actor
from crdt_sessions.wire.varint import Reader
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.gateways.durable_streams import headers as names
from crdt_sessions_server.gateways.durable_streams.headers import as_the_protocol_says, asked_batch, says_closed
from crdt_sessions_server.gateways.durable_streams.reading import QUERY, answered_view
from crdt_sessions_server.gateways.durable_streams.updates import Updates, Vectors
from crdt_sessions_server.http.describing import BYTES, LINES, NOTHING, SSE, Parameter, answers, reads, refuses, takes
from crdt_sessions_server.rest.sessions import creates, delete_for_good

_SNAPSHOT = "_snapshot"
_OCTETS = {"application/octet-stream": BYTES}
_REFUSES = (errors.BadStreamRequest, errors.BadSessionId, errors.StreamNotFound)


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of sessions as Yjs documents."""
    streams = Blueprint("yjs-streams", __name__, url_prefix="/v1/streams/yjs/docs")
    as_the_protocol_says(streams)
    vectors = Vectors()

    @streams.get("/<room:name>")
    @tag(["streams"])
    @reads(*QUERY)
    @answers(200, {**_OCTETS, SSE: LINES}, "Updates, each with its length before it; a snapshot without.")
    @answers(307, NOTHING, "Where the newest snapshot is (`offset=snapshot`).", {"Location": "Its URL."})
    @refuses(*_REFUSES)
    async def read_updates(name: str) -> Response:
        """Read the Yjs updates of a session, as ``y-durable-streams`` does."""
        _no_awareness()
        updates = Updates(registry, asked_session(name), vectors)
        offset = request.args.get("offset", START)
        if offset == "snapshot" or offset.endswith(_SNAPSHOT):
            return _snapshot(*await updates.snapshot(), found=offset == "snapshot")
        return await answered_view(updates, registry.clock, registry.long_poll_s)

    _writing(streams, registry, vectors)
    return streams


def _writing(streams: Blueprint, registry: SessionRegistry, vectors: Vectors) -> None:
    @streams.put("/<room:name>")
    @tag(["streams"])
    @answers(200, NOTHING, "The session is there.", {names.NEXT: "Where its updates end."})
    @answers(201, NOTHING, "It is made.", {names.NEXT: "Where its updates end.", "Location": "Its URL."})
    @refuses(*_REFUSES)
    async def put_document(name: str) -> Response:
        """Have a session, and make it if need be."""
        _no_awareness()
        session, principal = asked_session(name), current_principal()
        new = await registry.store.get(session) is None
        async with registry.open(session, create=creates(registry, principal), by=principal.id):
            _, tail = await Updates(registry, session, vectors).snapshot()
        told = {names.NEXT: tail, "Content-Type": "application/octet-stream"}
        if new:
            told["Location"] = request.url
        return Response(b"", 201 if new else 200, headers=told)

    @streams.post("/<room:name>")
    @tag(["streams"])
    @takes(_OCTETS)
    @reads(Parameter(names.PRODUCER, "Names the producer; what comes twice is taken twice, which changes nothing."))
    @answers(200, NOTHING, "The producer's updates are on disk.", {names.NEXT: "Where the updates end."})
    @answers(204, {}, "They are on disk.", {names.NEXT: "Where the updates end."})
    @refuses(*_REFUSES, errors.StreamReadOnly, errors.UpdateError, errors.EarlyUpdate)
    async def post_updates(name: str) -> Response:
        """Bring Yjs updates, each with its length before it."""
        _no_awareness()
        session, principal, batch = asked_session(name), current_principal(), asked_batch()
        updates = _updates(await request.get_data())
        if says_closed() and not updates:
            raise errors.StreamReadOnly(path=name)  # clients say so when they leave; the session goes on
        async with registry.open(session) as live:
            for update in updates:
                await live.apply(update, Actor(principal.id, principal.rights))
        _, tail = await Updates(registry, session, vectors).snapshot()
        told = {names.NEXT: tail}
        if batch is not None:
            told |= {names.EPOCH: str(batch.epoch), names.PRODUCER_SEQ: str(batch.seq)}
        return Response(b"", 204 if batch is None else 200, headers=told)

    @streams.delete("/<room:name>")
    @tag(["streams"])
    @answers(204)
    @refuses(*_REFUSES)
    async def delete_document(name: str) -> Response:
        """Delete a session for good. It does not come back by being asked for (`PUT`)."""
        _no_awareness()
        try:
            await delete_for_good(registry, asked_session(name))
        except errors.SessionNotFound:
            raise StreamNotFound(path=name) from None
        return Response(b"", 204)


def _no_awareness() -> None:
    """Return unless presence is asked for, which is not offered here.

    Raises:
        StreamNotFound: it is.
    """
    if "awareness" in request.args:
        raise StreamNotFound(path=f"{request.path}?awareness")


def _updates(body: bytes | str) -> list[bytes]:
    reader = Reader(body if isinstance(body, bytes) else body.encode())
    found = []
    try:
        while reader.remaining:
            found.append(bytes(reader.buffer()))
    except WireError as error:
        raise BadStreamRequest(why=f"the body is not Yjs updates with their lengths: {error}") from None
    return found


def _snapshot(update: bytes, tail: str, *, found: bool) -> Response:
    """Return the whole document; or, if it is to be *found* first, where it is."""
    if found:
        told = {"Location": f"{request.base_url}?offset={tail}{_SNAPSHOT}", "Cache-Control": "private, max-age=5"}
        return Response(b"", 307, headers=told)
    told = {names.NEXT: tail, "Cache-Control": "private, no-store"}
    return Response(update, content_type="application/octet-stream", headers=told)

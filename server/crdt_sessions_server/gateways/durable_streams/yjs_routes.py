"""The methods of sessions as Yjs documents, in the dialect of ``y-durable-streams``: read and bring updates."""

from __future__ import annotations

from quart import Blueprint, Response, request

from crdt_sessions import errors
from crdt_sessions.errors import BadStreamRequest, StreamNotFound, WireError
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.runtime.recent import Recent
from crdt_sessions.streams import NOW, START
from crdt_sessions.sync import Actor
from crdt_sessions.wire.varint import Reader
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.gateways.durable_streams import headers as names
from crdt_sessions_server.gateways.durable_streams.awareness import Awareness, announce, check_name
from crdt_sessions_server.gateways.durable_streams.headers import as_the_protocol_says, asked_batch, says_closed
from crdt_sessions_server.gateways.durable_streams.reading import QUERY, answered_view
from crdt_sessions_server.gateways.durable_streams.updates import Updates, Vectors
from crdt_sessions_server.http.describing import (
    BYTES,
    LINES,
    NOTHING,
    SSE,
    Parameter,
    answers,
    reads,
    refuses,
    tag,
    takes,
)
from crdt_sessions_server.rest.exchange import check_frames
from crdt_sessions_server.rest.sessions import creates, delete_for_good

_SNAPSHOT = "_snapshot"
_VECTORS = 64
_OCTETS = {"application/octet-stream": BYTES}
_AWARENESS = Parameter("awareness", "`default`: who is present, instead of the document.", "query")
_REFUSES = (errors.BadStreamRequest, errors.BadSessionId, errors.StreamNotFound)


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of sessions as Yjs documents."""
    streams = Blueprint("yjs-streams", __name__, url_prefix="/v1/streams/yjs/docs")
    as_the_protocol_says(streams)
    vectors: Vectors = Recent(_VECTORS)

    @streams.get("/<room:name>")
    @tag(["streams"])
    @reads(*QUERY, _AWARENESS)
    @answers(200, {**_OCTETS, SSE: LINES}, "Updates, each with its length before it; a snapshot without.")
    @answers(307, NOTHING, "Where the newest snapshot is (`offset=snapshot`).", {"Location": "Its URL."})
    @refuses(*_REFUSES)
    async def read_updates(name: str) -> Response:
        """Read the Yjs updates of a session, as ``y-durable-streams`` does."""
        if _asks_for_awareness():
            awareness = Awareness(registry, asked_session(name))
            return await answered_view(awareness, registry.clock, registry.long_poll_s)
        updates = Updates(registry, asked_session(name), vectors)
        offset = request.args.get("offset", START)
        if offset == "snapshot" or offset.endswith(_SNAPSHOT):
            return _snapshot(*await updates.snapshot(), found=offset == "snapshot")
        return await answered_view(updates, registry.clock, registry.long_poll_s)

    _writing(streams, registry, vectors)
    _deleting(streams, registry)
    return streams


def _writing(streams: Blueprint, registry: SessionRegistry, vectors: Vectors) -> None:
    @streams.put("/<room:name>")
    @tag(["streams"])
    @answers(200, NOTHING, "The session is there.", {names.NEXT: "Where its updates end."})
    @answers(201, NOTHING, "It is made.", {names.NEXT: "Where its updates end.", "Location": "Its URL."})
    @refuses(*_REFUSES)
    async def put_document(name: str) -> Response:
        """Have a session, and make it if need be."""
        session, principal = asked_session(name), current_principal()
        if _asks_for_awareness():
            return Response(b"", headers={names.NEXT: (await Awareness(registry, session).read(NOW)).end})
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
    @reads(
        Parameter(names.PRODUCER, "Names the producer; what comes twice is taken twice, which changes nothing."),
        _AWARENESS,
    )
    @answers(200, NOTHING, "The producer's updates are on disk.", {names.NEXT: "Where the updates end."})
    @answers(204, {}, "They are on disk.", {names.NEXT: "Where the updates end."})
    @refuses(*_REFUSES, errors.StreamReadOnly, errors.UpdateError, errors.EarlyUpdate)
    async def post_updates(name: str) -> Response:
        """Bring Yjs updates, each with its length before it; with `awareness=default`, awareness updates."""
        session, principal, batch = asked_session(name), current_principal(), asked_batch(request.headers.get)
        body = await request.get_data()
        if _asks_for_awareness():
            await announce(registry, session, Actor(principal.id, principal.rights), _bytes(body))
            return Response(b"", 204, headers={names.NEXT: (await Awareness(registry, session).read(NOW)).end})
        updates = _updates(_bytes(body))
        if says_closed(request.headers.get) and not updates:
            raise errors.StreamReadOnly(path=name)  # clients say so when they leave; the session goes on
        async with registry.open(session) as live:
            for update in updates:
                await live.apply(update, Actor(principal.id, principal.rights))
        _, tail = await Updates(registry, session, vectors).snapshot()
        told = {names.NEXT: tail}
        if batch is not None:
            told |= {names.EPOCH: str(batch.epoch), names.PRODUCER_SEQ: str(batch.seq)}
        return Response(b"", 204 if batch is None else 200, headers=told)


def _deleting(streams: Blueprint, registry: SessionRegistry) -> None:
    @streams.delete("/<room:name>")
    @tag(["streams"])
    @answers(204)
    @refuses(*_REFUSES)
    async def delete_document(name: str) -> Response:
        """Delete a session for good. It does not come back by being asked for (`PUT`)."""
        if _asks_for_awareness():
            raise errors.StreamReadOnly(path=f"{name}?awareness")  # each presence ends by itself
        try:
            await delete_for_good(registry, asked_session(name))
        except errors.SessionNotFound:
            raise StreamNotFound(path=name) from None
        return Response(b"", 204)


def _asks_for_awareness() -> bool:
    """Whether presence is asked for, and not the document.

    Raises:
        StreamNotFound: it is, under another name than the dialect's own.
    """
    name = request.args.get("awareness")
    if name is not None:
        check_name(name, request.path)
    return name is not None


def _bytes(body: bytes | str) -> bytes:
    return body if isinstance(body, bytes) else body.encode()  # Quart types both


def _updates(body: bytes) -> list[bytes]:
    reader = Reader(body)
    found = []
    try:
        while reader.remaining:
            found.append(bytes(reader.buffer()))
            check_frames(len(found))
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

"""Headers of the protocol: what requests say with them, and what answers do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from quart import Blueprint, Response

from crdt_sessions import errors
from crdt_sessions.errors import BadStreamRequest
from crdt_sessions.ids import Millis
from crdt_sessions.storage import Batch, Producer, Stream
from crdt_sessions.streams import MAX_INTEGER, integer, place, spelled
from crdt_sessions_server.http.paths import from_header
from crdt_sessions_server.http.problem_documents import problem_for, refusal_for

NEXT, UP_TO_DATE, CLOSED, CURSOR = "Stream-Next-Offset", "Stream-Up-To-Date", "Stream-Closed", "Stream-Cursor"
TTL, EXPIRES_AT, SEQ, ENCODING = "Stream-TTL", "Stream-Expires-At", "Stream-Seq", "stream-sse-data-encoding"
FORKED_FROM, FORK_OFFSET, FORK_SUB = "Stream-Forked-From", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset"
PRODUCER, EPOCH, PRODUCER_SEQ = "Producer-Id", "Producer-Epoch", "Producer-Seq"
EXPECTED, RECEIVED = "Producer-Expected-Seq", "Producer-Received-Seq"

TRUE = "true"
Header = Callable[[str], str | None]
"""Returns the value of a header of the request."""

CROSS_ORIGIN = ("Cross-Origin-Resource-Policy", "cross-origin")
_PREFIXES = ("/v1/streams/", "/v1/stream/", "/")
_MAX_SEQ = 1024


def says_closed(header: Header) -> bool:
    """Whether the request says that nothing follows."""
    return (header(CLOSED) or "").strip().lower() == TRUE


def asked_time(header: Header) -> tuple[int | None, Millis | None]:
    """Return the time to live, and the time of expiry, that a stream is to have.

    Raises:
        BadStreamRequest: they cannot be read, or both are given.
    """
    ttl, expires = header(TTL), header(EXPIRES_AT)
    if ttl is not None and expires is not None:
        raise BadStreamRequest(why=f"a stream has either {TTL} or {EXPIRES_AT}")
    return (
        None if ttl is None else min(integer(ttl, TTL), MAX_INTEGER // 1_000_000),
        None if expires is None else _time(expires),
    )


def _time(text: str) -> Millis:
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None or len(text) < len("2024-01-01T00:00:00Z"):
            raise ValueError("a date without a time, or a time without its zone")
        return Millis(int(found.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise BadStreamRequest(why=f"{EXPIRES_AT} should be a time of RFC 3339, not {text[:40]!r}") from None


def asked_fork(header: Header) -> tuple[str, int | None, int] | None:
    """Return the path to fork, after how many bytes, and how many messages or bytes further on; None for no fork.

    Raises:
        BadStreamRequest: it cannot be read.
    """
    source, offset, sub = map(header, (FORKED_FROM, FORK_OFFSET, FORK_SUB))
    if source is None:
        if offset is not None or sub is not None:
            raise BadStreamRequest(why=f"{FORK_OFFSET} and {FORK_SUB} need {FORKED_FROM}")
        return None
    path = next(source.removeprefix(prefix) for prefix in (*_PREFIXES, "") if source.startswith(prefix))
    further = 0 if sub is None else integer(sub, FORK_SUB)
    if further and offset is None:
        raise BadStreamRequest(why=f"{FORK_SUB} needs {FORK_OFFSET}")
    return from_header(path), None if offset is None else place(offset), further


def asked_batch(header: Header) -> Batch | None:
    """Return which batch of which producer a request is, if it is one.

    Raises:
        BadStreamRequest: it cannot be told.
    """
    id, epoch, seq = map(header, (PRODUCER, EPOCH, PRODUCER_SEQ))
    if id is None and epoch is None and seq is None:
        return None
    if not id or epoch is None or seq is None:
        raise BadStreamRequest(why=f"{PRODUCER}, {EPOCH} and {PRODUCER_SEQ} come together")
    if len(id) > _MAX_SEQ:
        raise BadStreamRequest(why=f"{PRODUCER} should have no more than {_MAX_SEQ} characters")
    return Batch(id, integer(epoch, EPOCH), integer(seq, PRODUCER_SEQ))


def asked_seq(header: Header) -> str | None:
    """Return the writer's own word for the place of what it appends.

    Raises:
        BadStreamRequest: it is too long.
    """
    seq = header(SEQ)
    if seq is not None and len(seq) > _MAX_SEQ:
        raise BadStreamRequest(why=f"{SEQ} should have no more than {_MAX_SEQ} characters")
    return seq


def of_stream(stream: Stream) -> dict[str, str]:
    """Return the headers that tell where a stream ends, and whether more can follow."""
    told = {NEXT: spelled(stream.tail)}
    return {**told, CLOSED: TRUE} if stream.closed else told


def of_time(stream: Stream) -> dict[str, str]:
    """Return the headers that tell of a stream's time."""
    told = {}
    if stream.ttl_s is not None:
        told[TTL] = str(stream.ttl_s)
    if stream.expires_at is not None:
        told[EXPIRES_AT] = datetime.fromtimestamp(stream.expires_at / 1000, UTC).isoformat().replace("+00:00", "Z")
    return told


def of_producer(producer: Producer | None) -> dict[str, str]:
    """Return the headers that tell a producer how far it has come."""
    return {} if producer is None else {EPOCH: str(producer.epoch), PRODUCER_SEQ: str(producer.seq)}


def _of_end(error: errors.StreamEnded) -> dict[str, str]:
    return {CLOSED: TRUE, NEXT: error.offset}


def _of_epoch(error: errors.StaleProducer) -> dict[str, str]:
    return {EPOCH: str(error.epoch)}


def _of_gap(error: errors.ProducerGap) -> dict[str, str]:
    return {EXPECTED: str(error.expected), RECEIVED: str(error.received)}


_OF_ERRORS: dict[type[errors.StreamError], Callable[..., dict[str, str]]] = {
    errors.StreamEnded: _of_end,
    errors.StaleProducer: _of_epoch,
    errors.ProducerGap: _of_gap,
}


def _as_subscriptions_say(error: errors.StreamError) -> dict[str, Any]:
    """Return the member by which clients of subscriptions tell errors apart."""
    if not isinstance(error, errors.SubscriptionError):
        return {}
    facts = {key: value for key, value in vars(error).items() if isinstance(value, str | int)}
    return {"error": {**facts, "code": error.code, "message": str(error)}}


def refusal(error: errors.CrdtSessionsError) -> Response:
    """Return the answer for *error*, with the headers by which clients of the protocol go."""
    if not isinstance(error, errors.StreamError):
        return refusal_for(error)
    response = problem_for(error, **_as_subscriptions_say(error))
    tell = _OF_ERRORS.get(type(error))
    response.headers.update({} if tell is None else tell(error))
    response.headers["Cache-Control"] = "no-store"
    return response


def as_the_protocol_says(routes: Blueprint) -> None:
    """Have the answers of *routes* carry the headers by which clients of the protocol go, errors too."""

    @routes.after_request
    async def guard(response: Response) -> Response:
        response.headers.setdefault(*CROSS_ORIGIN)
        return response

    @routes.errorhandler(errors.StreamError)
    async def refused(error: errors.StreamError) -> Response:
        return refusal(error)

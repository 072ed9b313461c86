"""What a request does to a stream: decided from what a store has of it, with the time as an argument.

Each function returns the change for :meth:`crdt_sessions.storage.StreamStore.alter_stream`, and raises an error of
the protocol where a request is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from crdt_sessions.errors import (
    BadStreamRequest,
    ProducerGap,
    StaleProducer,
    StreamConflict,
    StreamEnded,
    StreamExists,
    StreamGone,
    StreamNotFound,
    TooLarge,
)
from crdt_sessions.ids import Millis
from crdt_sessions.storage import Batch, Producer, Stream, StreamChange, StreamFacts
from crdt_sessions.streams.framing import framed, media_type
from crdt_sessions.streams.offsets import spelled

DEFAULT_TYPE = "application/octet-stream"
_TOUCHES = 20
"""A stream with a time to live is touched so often in that time at the most: each touch is written."""


@dataclass(frozen=True, slots=True)
class Creation:
    """How a stream is to be made.

    Args:
        tenant: whose it is.
        path: where.
        owner: the principal that makes it.
        content_type: as given, if it was.
        ttl_s: its time to live, if it has one.
        expires_at: the end of its time, if that was given.
        closed: whether *body* is all there will be.
        body: what is in it at once.
        source: the path of the stream to fork, if it is a fork.
        forked_at: how many bytes of the source are in it; all it has if None.
    """

    tenant: str
    path: str
    owner: str = ""
    content_type: str | None = None
    ttl_s: int | None = None
    expires_at: Millis | None = None
    closed: bool = False
    body: bytes = b""
    source: str | None = None
    forked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """What is to be appended.

    Args:
        body: as it came; nothing only together with *close*.
        content_type: as given, if it was.
        close: whether it is the last.
        seq: the writer's own word for its place, if it gave one.
        batch: which one of a producer it is, if it is one of a producer.
    """

    body: bytes = b""
    content_type: str | None = None
    close: bool = False
    seq: str | None = None
    batch: Batch | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of it.

    Args:
        stream: as it is now.
        repeated: whether it had been there already, so that nothing changed.
        producer: how far the producer has come, if there is one.
    """

    stream: Stream
    repeated: bool = False
    producer: Producer | None = None


def create(facts: StreamFacts, wanted: Creation, now: Millis, *, most: int) -> tuple[Stream, StreamChange | None]:
    """Make a stream; return it, and what changes: None if it is there already, made the same way.

    *most* is how many bytes a stream may have.

    Raises:
        StreamExists, StreamConflict, StreamNotFound, BadStreamRequest, TooLarge: that cannot be.
    """
    made = _forked(wanted, facts.source, now) if wanted.source is not None else _new(wanted, now)
    found = facts.stream
    if found is not None:
        if found.gone:
            raise StreamConflict(path=found.path, why="was deleted, and only its forks are left")
        differs = _difference(found, made, wanted)
        if differs is not None:
            raise StreamExists(path=found.path, differs=differs)
        return found, None
    data = framed(made.content_type, wanted.body) if wanted.body else b""
    made = replace(made, tail=_tail(made, data, most))
    return made, StreamChange(made, data)


def append(
    facts: StreamFacts, path: str, wanted: Append, now: Millis, *, most: int
) -> tuple[Appended, StreamChange | None]:
    """Append to a stream, or close it, or both; return what became of it, and what changes.

    *most* is how many bytes a stream may have.

    Raises:
        StreamNotFound, StreamGone, StreamEnded, StreamConflict: the stream does not take it.
        StaleProducer, ProducerGap: it is not the producer's turn.
        BadStreamRequest, TooLarge: it is not to be had.
    """
    stream = existing(facts.stream, path)
    if stream.closed:
        return _to_closed(stream, facts.producer, wanted), None
    if wanted.body:
        _check_type(stream, wanted.content_type)
    elif not wanted.close:
        raise BadStreamRequest(why="an append needs a body, unless Stream-Closed says that it is the end")
    if wanted.batch is not None and _is_repeated(facts.producer, wanted.batch):
        return Appended(stream, repeated=True, producer=facts.producer), None
    if wanted.seq is not None and stream.last_seq is not None and wanted.seq <= stream.last_seq:
        raise StreamConflict(path=path, why=f"has got Stream-Seq {stream.last_seq!r} already")
    data = framed(stream.content_type, wanted.body) if wanted.body else b""
    if wanted.body and not data:
        raise BadStreamRequest(why="an empty array appends nothing")
    after = replace(
        stream,
        tail=_tail(stream, data, most),
        touched_at=now,
        last_seq=wanted.seq or stream.last_seq,
        closed=wanted.close,
        closed_by=wanted.batch if wanted.close else None,
    )
    producer = None if wanted.batch is None else Producer(wanted.batch.epoch, wanted.batch.seq)
    return Appended(after, producer=producer), StreamChange(after, data, producer)


def delete(facts: StreamFacts, path: str) -> StreamChange:
    """Delete a stream.

    Raises:
        StreamNotFound, StreamGone: there is none, or none any more.
    """
    existing(facts.stream, path)
    return StreamChange(None)


def touch(facts: StreamFacts, now: Millis) -> StreamChange | None:
    """Begin anew to count the time in which a stream is not used."""
    stream = facts.stream
    if stream is None or not needs_touch(stream, now):
        return None
    return StreamChange(replace(stream, touched_at=now))


def needs_touch(stream: Stream, now: Millis) -> bool:
    """Whether it is worth a write that a stream is used *now*."""
    return stream.ttl_s is not None and not stream.gone and now - stream.touched_at >= stream.ttl_s * 1000 // _TOUCHES


def existing(stream: Stream | None, path: str) -> Stream:
    """Return a stream that is there.

    Raises:
        StreamNotFound, StreamGone: it is not, or not any more.
    """
    if stream is None:
        raise StreamNotFound(path=path)
    if stream.gone:
        raise StreamGone(path=path)
    return stream


# -- creation --------------------------------------------------------------------------------------------------------


def _new(wanted: Creation, now: Millis) -> Stream:
    return Stream(
        wanted.tenant,
        wanted.path,
        wanted.content_type or DEFAULT_TYPE,
        wanted.owner,
        created_at=now,
        touched_at=now,
        ttl_s=wanted.ttl_s,
        expires_at=wanted.expires_at,
        closed=wanted.closed,
    )


def _forked(wanted: Creation, source: Stream | None, now: Millis) -> Stream:
    if source is None:
        raise StreamNotFound(path=wanted.source or "")
    if source.gone:
        raise StreamConflict(path=source.path, why="was deleted, and cannot be forked any more")
    if wanted.content_type is not None and media_type(wanted.content_type) != media_type(source.content_type):
        raise StreamConflict(path=source.path, why=f"is one of {source.content_type}, and so are its forks")
    forked_at = source.tail if wanted.forked_at is None else wanted.forked_at
    if forked_at > source.tail:
        raise BadStreamRequest(why=f"Stream-Fork-Offset is beyond {spelled(source.tail)}, where the source ends")
    own_time = wanted.ttl_s is not None or wanted.expires_at is not None
    return replace(
        _new(wanted, now),
        content_type=source.content_type,
        ttl_s=wanted.ttl_s if own_time else source.ttl_s,
        expires_at=wanted.expires_at if own_time else source.expires_at,
        tail=forked_at,
        source=source.id,
        forked_at=forked_at,
    )


def _difference(found: Stream, made: Stream, wanted: Creation) -> str | None:
    """Return in what a stream that is there differs from one that was to be made; None if in nothing."""
    anywhere = wanted.source is not None and wanted.forked_at is None
    same = {
        "content type": media_type(found.content_type) == media_type(made.content_type),
        "time to live": found.ttl_s == made.ttl_s,
        "time of expiry": found.expires_at == made.expires_at,
        "state: it is closed, or it is not": found.closed == made.closed,
        "source": found.source == made.source,
        "place where it was forked": anywhere or found.forked_at == made.forked_at,
    }
    return next((what for what, holds in same.items() if not holds), None)


# -- appending -------------------------------------------------------------------------------------------------------


def _to_closed(stream: Stream, producer: Producer | None, wanted: Append) -> Appended:
    again = wanted.batch is not None and wanted.batch == stream.closed_by
    if again or (wanted.batch is None and wanted.close and not wanted.body):
        return Appended(stream, repeated=True, producer=producer if again else None)
    raise StreamEnded(path=stream.path, offset=spelled(stream.tail))


def _check_type(stream: Stream, content_type: str | None) -> None:
    if content_type is None:
        raise BadStreamRequest(why="an append needs a Content-Type, which is that of the stream")
    if media_type(content_type) != media_type(stream.content_type):
        raise StreamConflict(path=stream.path, why=f"is one of {stream.content_type}, not of {content_type}")


def _is_repeated(stored: Producer | None, batch: Batch) -> bool:
    """Whether a batch was accepted before.

    Raises:
        StaleProducer, ProducerGap, BadStreamRequest: it is not the next one, either.
    """
    epoch, last = stored or Producer(batch.epoch, -1)
    if batch.epoch < epoch:
        raise StaleProducer(producer=batch.producer, epoch=epoch)
    if batch.epoch > epoch:
        if batch.seq != 0:
            raise BadStreamRequest(why=f"a new epoch begins with Producer-Seq 0, not {batch.seq}")
        return False
    if batch.seq > last + 1:
        raise ProducerGap(producer=batch.producer, expected=last + 1, received=batch.seq)
    return batch.seq <= last


def _tail(stream: Stream, data: bytes, most: int) -> int:
    """Return where a stream ends once *data* is appended.

    Raises:
        TooLarge: it may not become so long.
    """
    tail = stream.tail + len(data)
    if data and tail > most:
        raise TooLarge(what="a stream", size=tail, limit=most)
    return tail

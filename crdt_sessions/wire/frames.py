"""The frames of the y-websocket dialect, as closed values.

A frame is one binary WebSocket message holding one protocol message:

=====================  =================  ==========================================================
bytes                  value              direction
=====================  =================  ==========================================================
``00 00 buf``          SyncStep1          both: a state vector
``00 01 buf``          SyncStep2          both: the answer, an update
``00 02 buf``          Update             both
``01 buf``             AwarenessFrame     both
``02 00 string``       PermissionDenied   server to client
``03``                 QueryAwareness     both
``66 buf``             Ack (type 102)     both: the server returns the payload once all before it is durable
``67 string``          Hold (type 103)    client to server: from here on it is the holder's of a lease
=====================  =================  ==========================================================

Sources: y-protocols ``PROTOCOL.md``, y-websocket ``y-websocket.js``; type 102 as in y-sweet; type 103
is our own.
``docs/protocol.md`` is the normative text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from crdt_sessions.errors import TruncatedFrame, UnknownFrame, WireError
from crdt_sessions.wire.varint import ONE_BYTE, Reader, buffer, string, varuint

_SYNC, _AWARENESS, _AUTH, _QUERY_AWARENESS, _ACK, _HOLD = 0, 1, 2, 3, 102, 103
_STEP1, _STEP2, _UPDATE = 0, 1, 2
_PERMISSION_DENIED = 0
AN_UPDATE = bytes((_SYNC, _UPDATE))
"""What an :class:`Update` begins with."""

EMPTY_UPDATE = b"\x00\x00"
"""The Yjs update (encoding v1) that changes nothing."""


@dataclass(frozen=True, slots=True)
class SyncStep1:
    """Tell the other side what one has, and so ask for the rest."""

    state_vector: bytes
    mutual: bool = False
    """Whether its sender wants to be asked, too, though it was asked before."""


@dataclass(frozen=True, slots=True)
class SyncStep2:
    """The answer to a SyncStep1: everything the asker lacks."""

    update: bytes


@dataclass(frozen=True, slots=True)
class Update:
    """A change, encoded as a Yjs update v1."""

    update: bytes


@dataclass(frozen=True, slots=True)
class AwarenessFrame:
    """An awareness payload; see :mod:`crdt_sessions.wire.awareness`."""

    payload: bytes


KEEPALIVE = AwarenessFrame(b"\x00")
"""An awareness frame without entries: a no-op for every client, but a data frame that keeps the link alive."""


@dataclass(frozen=True, slots=True)
class PermissionDenied:
    """The server refuses, with a reason for people. Stock clients print it."""

    reason: str


@dataclass(frozen=True, slots=True)
class QueryAwareness:
    """Ask for all awareness states."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Sent by a client, returned by the server once everything before it is durable."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Hold:
    """A client says that this connection is from here on the one of a lease's holder, and proves it by the token."""

    token: str


Frame = SyncStep1 | SyncStep2 | Update | AwarenessFrame | PermissionDenied | QueryAwareness | Ack | Hold


def encode(frame: Frame) -> bytes:
    """Return the bytes of *frame*."""
    match frame:
        case SyncStep1(state_vector):
            return b"\x00\x00" + buffer(state_vector)
        case SyncStep2(update):
            return b"\x00\x01" + buffer(update)
        case Update(update):
            return b"\x00\x02" + buffer(update)
        case AwarenessFrame(payload):
            return b"\x01" + buffer(payload)
        case PermissionDenied(reason):
            return b"\x02\x00" + string(reason)
        case QueryAwareness():
            return b"\x03"
        case Ack(payload):
            return varuint(_ACK) + buffer(payload)
        case Hold(token):
            return varuint(_HOLD) + string(token)
        case _:
            assert_never(frame)


def decode(data: bytes) -> Iterator[Frame]:
    """Yield the messages of one WebSocket message, in order.

    Stock clients put one message into a frame; some servers put several. Reading is lazy: a message is
    yielded before the ones behind it are looked at.

    Raises:
        WireError: the bytes are not a sequence of whole messages. An empty frame is not one either.
    """
    reader = Reader(data)
    if data[:2] == AN_UPDATE:  # nearly all are one
        reader.take(2)
        yield Update(reader.buffer())
    elif not reader.remaining:
        raise TruncatedFrame(wanted=1, available=0)
    while reader.remaining:
        yield _decode_one(reader)


def decode_whole(data: bytes) -> list[Frame]:
    """Return all messages of one WebSocket message: all or nothing, one that ends in garbage is refused whole.

    Raises:
        WireError: as for :func:`decode`.
    """
    reader = Reader(data)
    if not reader.remaining:
        raise TruncatedFrame(wanted=1, available=0)
    frames: list[Frame] = []
    while reader.remaining:
        frames.append(_decode_one(reader))
    return frames


def sole_update(data: bytes) -> bytes | None:
    """Return the update in a message that is one :class:`Update` and nothing else; None if it is another."""
    if not data.startswith(AN_UPDATE):
        return None
    size = len(data) - 3
    if 0 <= size < ONE_BYTE and data[2] == size:  # as nearly all are
        return data[3:]
    reader = Reader(data)
    reader.take(len(AN_UPDATE))
    try:
        update = reader.buffer()
    except WireError:
        return None
    return None if reader.remaining else update


def _decode_one(reader: Reader) -> Frame:
    kind = reader.varuint()
    if kind == _SYNC:
        return read_sync(reader)
    if kind == _AWARENESS:
        return AwarenessFrame(reader.buffer())
    if kind == _AUTH:
        verdict = reader.varuint()
        if verdict != _PERMISSION_DENIED:
            raise UnknownFrame(kind=verdict)
        return PermissionDenied(reader.string())
    if kind == _QUERY_AWARENESS:
        return QueryAwareness()
    if kind == _ACK:
        return Ack(reader.buffer())
    if kind == _HOLD:
        return Hold(reader.string())
    raise UnknownFrame(kind=kind)


def read_sync(reader: Reader) -> SyncStep1 | SyncStep2 | Update:
    """Read one of the three messages of y-protocols' sync protocol, behind its type.

    Raises:
        WireError: it is none of them.
    """
    step = reader.varuint()
    if step == _STEP1:
        return SyncStep1(reader.buffer())
    if step == _STEP2:
        return SyncStep2(reader.buffer())
    if step == _UPDATE:
        return Update(reader.buffer())
    raise UnknownFrame(kind=step)

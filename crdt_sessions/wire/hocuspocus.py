"""The dialect of Hocuspocus: many documents on one connection, and an answer to each change.

A message begins with an *address*: the name of a document as the client spells it, maybe with ``NUL`` and the name
of one of several editors of it behind. The provider finds by the whole address whom a message is for, so every
answer carries it as it came. What stands behind it:

=====  =====================  ====================================================================
type   name                   direction
=====  =====================  ====================================================================
0      Sync                   both: y-protocols' three messages
1      Awareness              both
2      Auth                   client: its token; server: denied, authenticated, asks for the token
3      QueryAwareness         both
4      SyncReply              like Sync, but the sender does not want to be asked in return
5      Stateless              both: a text of the application's own
6      BroadcastStateless     never: only servers say it to each other
7      Close                  both: this document only
8      SyncStatus             server: 1 once an update is durable, 0 if it is refused
9, 10  Ping, Pong             a single byte, without an address
=====  =====================  ====================================================================

Bytes behind a whole message are ignored: releases have put something there, and older readers went on working.
Source: ``@hocuspocus/provider`` 2.15 to 4.8, ``@hocuspocus/server`` 4.7; ``docs/protocol.md`` is the normative text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from crdt_sessions.errors import TooLarge, UnknownFrame, WireError
from crdt_sessions.wire.codec import Shared, in_rows
from crdt_sessions.wire.frames import (
    AN_UPDATE,
    Ack,
    AwarenessFrame,
    Frame,
    Hold,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    encode,
    read_sync,
)
from crdt_sessions.wire.insertions import Insertions
from crdt_sessions.wire.update_v1 import covers
from crdt_sessions.wire.varint import (
    MAX_CLIENTS,
    ONE_BYTE,
    Reader,
    check_clients,
    decode_state_vector,
    string,
    varuint,
)

_SYNC, _AWARENESS, _AUTH, _QUERY_AWARENESS, _SYNC_REPLY, _STATELESS, _ = range(7)
_CLOSE, _SYNC_STATUS, _PING, _PONG = range(7, 11)
_TOKEN, _DENIED, _AUTHENTICATED = range(3)
PING, PONG = bytes((_PING,)), bytes((_PONG,))
"""Signs of life of a connection; they belong to no document."""
_STORED, _REFUSED = bytes((_SYNC_STATUS, 1)), bytes((_SYNC_STATUS, 0))
_STEP1 = b"\x00\x00"
_CONTENT = frozenset((_SYNC, _AWARENESS, _QUERY_AWARENESS, _SYNC_REPLY))


@dataclass(frozen=True, slots=True)
class Token:
    """Who the client is, for this document."""

    token: str
    version: str | None
    """Of the provider. Before 4.0 they did not say it."""


@dataclass(frozen=True, slots=True)
class Stateless:
    """A text for the application."""

    payload: str


@dataclass(frozen=True, slots=True)
class Leave:
    """The client is done with this document."""


@dataclass(frozen=True, slots=True)
class Content:
    """Something that the document's :class:`Hocuspocus` reads."""

    body: bytes


Said = Token | Stateless | Leave | Content
"""What a client says about one document."""


def unpack(message: bytes) -> tuple[str, Said]:
    """Return the address of a client's message, and what it says. Not for :data:`PING` and :data:`PONG`.

    Raises:
        WireError: it is malformed, or nothing that a client may say.
    """
    reader = Reader(message)
    address = reader.string()
    body = message[len(message) - reader.remaining :]
    kind = reader.varuint()
    if kind in _CONTENT:
        return address, Content(body)
    if kind == _AUTH:
        if (what := reader.varuint()) != _TOKEN:
            raise UnknownFrame(kind=what)
        return address, Token(reader.string(), reader.string() if reader.remaining else None)
    if kind == _STATELESS:
        return address, Stateless(reader.string())
    if kind == _CLOSE:
        return address, Leave()
    raise UnknownFrame(kind=kind)


def head_of(message: bytes) -> bytes:
    """Return the address in front of a message, as it stands there; nothing if that takes a closer look."""
    return message[: message[0] + 1] if message and message[0] < ONE_BYTE else b""


def content_behind(head: bytes, message: bytes) -> bytes | None:
    """Return what :func:`unpack` returns as :class:`Content`, if *message* has this head and such content."""
    at = len(head)
    return message[at:] if message.startswith(head) and len(message) > at and message[at] in _CONTENT else None


def is_beginning(body: bytes) -> bool:
    """Tell whether what a client says about a document is its SyncStep1, with which a conversation begins."""
    return body.startswith(_STEP1)


def document_of(address: str) -> str:
    """Return the name of the document that an address is for."""
    return address.partition("\0")[0]


# -- what a client says, for whoever passes it on --------------------------------------------------------------------


def pack(address: str, said: Said) -> bytes:
    """Return what a client says as a message; :func:`unpack` reads it."""
    match said:
        case Content(body):
            return string(address) + body
        case Token(token, version):
            return string(address) + bytes((_AUTH, _TOKEN)) + string(token) + (string(version) if version else b"")
        case Stateless(payload):
            return stateless(address, payload)
        case Leave():
            return closed(address, "")


def refusal_in(message: bytes) -> str | None:
    """Return why a server's message does not, or no longer, let a client in; None if it is none of those."""
    reader = Reader(message)
    reader.string()
    if reader.varuint() == _AUTH and reader.varuint() == _DENIED:
        return reader.string()
    return None


# -- what a server says besides the document -------------------------------------------------------------------------


def authenticated(address: str, *, writes: bool) -> bytes:
    """Return the message that lets a client in, and says whether it may write."""
    return string(address) + bytes((_AUTH, _AUTHENTICATED)) + string("read-write" if writes else "readonly")


def denied(address: str, reason: str) -> bytes:
    """Return the message that a client is not, or no longer, let in."""
    return string(address) + bytes((_AUTH, _DENIED)) + string(reason)


def token_wanted(address: str) -> bytes:
    """Return the message that asks a client for its token again."""
    return string(address) + bytes((_AUTH, _TOKEN))


def stateless(address: str, payload: str) -> bytes:
    """Return the message with a text of the application's own."""
    return string(address) + varuint(_STATELESS) + string(payload)


def closed(address: str, reason: str) -> bytes:
    """Return the message that a document is closed. Providers before 3.0 fail on it."""
    return string(address) + varuint(_CLOSE) + string(reason)


# -- the document ----------------------------------------------------------------------------------------------------


class _Row(bytes):
    """Several updates as one; each of them has its answer."""

    answers: int


def _answered(count: int) -> Ack:
    """Return what the engine returns once what stands before is durable, or refused: how many wait for that."""
    return Ack(count.to_bytes((count.bit_length() + 7) // 8, "big"))


_COUNTED, _UNCOUNTED = _answered(1), _answered(0)


class Hocuspocus:
    """The codec of one document on one connection; it reads messages without their address, and writes it.

    A provider counts what it has not heard of: 1 when it sends its first SyncStep1, one more for each Update, one
    less for each SyncStatus 1. SyncStatus names nothing, so the count is right only if the server sends as many as
    were counted:

    * one for each Update, but none for one made before the SyncStep1 that came in front of it, since the count
      began anew there. A provider sends what was written offline like that, and again in its SyncStep2.
    * one for each SyncStep2, but none for one that the client gave because the server asked by itself.

    Args:
        max_bytes: the limit of a message.
        address: the document's.
    """

    def __init__(self, max_bytes: int, address: str) -> None:
        self._max_bytes = max_bytes
        self._prefix = string(address)
        self._stored, self._not_stored = self._prefix + _STORED, self._prefix + _REFUSED
        self._asks = 1
        """SyncStep1 that the client waits for: for each of its own it wants one. The first is under way."""
        self._first = True
        self._counted: deque[bool] = deque()
        """Of each SyncStep1 sent that is not answered: whether the client counts its answer."""
        self._began_with: dict[int, int] = {}
        """The clocks in the client's SyncStep1, until its SyncStep2 has come."""
        self._refused = False
        """Whether the next acknowledgement is one of something refused."""

    def read(self, message: bytes) -> list[Frame]:
        """See :meth:`Codec.read`. Behind each change stands an Ack."""
        if len(message) > self._max_bytes:
            raise TooLarge(what="a frame", size=len(message), limit=self._max_bytes)
        answers = message.answers if isinstance(message, _Row) else 1
        size = len(message) - 3  # as in `sole_update`, without a call for each token
        if 0 <= size < ONE_BYTE and message[2] == size and message.startswith(AN_UPDATE) and not self._began_with:
            return [Update(message[3:]), _COUNTED if answers == 1 else _answered(answers)]  # as nearly all are
        reader = Reader(message)
        kind = reader.varuint()
        if kind in (_SYNC, _SYNC_REPLY):
            return self._synced(read_sync(reader), answers, mutual=kind == _SYNC)
        if kind == _AWARENESS:
            return [AwarenessFrame(reader.buffer())]
        if kind == _QUERY_AWARENESS:
            return [QueryAwareness()]
        raise UnknownFrame(kind=kind)

    def joined(self, messages: Sequence[bytes]) -> Sequence[bytes]:
        """See :meth:`Codec.joined`. What was joined is answered as often as before."""
        if self._began_with:
            return messages  # which of its updates a client counts is seen one by one
        for each in messages:
            if isinstance(each, _Row) or each[1:2] == _STEP1[1:]:
                return messages
        return [piece if isinstance(piece, bytes) else _joined(piece) for piece in in_rows(messages)]

    def write(self, frames: Sequence[Frame | Shared]) -> list[bytes]:
        """See :meth:`Codec.write`."""
        messages: list[bytes] = []
        for frame in frames:  # each token comes by here for each viewer
            if type(frame) is Shared:
                messages.append(self._addressed(frame))
            elif type(frame) is Ack:
                messages += self._acknowledged(frame)
            elif (body := self._written(frame)) is not None:  # type: ignore[arg-type]
                messages.append(self._prefix + body)
        return messages

    def _addressed(self, shared: Shared) -> bytes:
        """Return what many are sent: those with one address the very same, so that it is put into a frame once."""
        if shared.addressed is not None and shared.addressed[0] == self._prefix:
            return shared.addressed[1]
        message = self._prefix + encode(shared.frame)
        shared.addressed = self._prefix, message
        return message

    def _acknowledged(self, ack: Ack) -> list[bytes]:
        refused, self._refused = self._refused, False
        return [self._not_stored if refused else self._stored] * int.from_bytes(ack.payload, "big")

    def _synced(self, frame: SyncStep1 | SyncStep2 | Update, answers: int, *, mutual: bool) -> list[Frame]:
        match frame:
            case SyncStep1(state_vector):
                if len(state_vector) > MAX_CLIENTS:  # each takes two bytes
                    check_clients(state_vector)
                self._began_with = decode_state_vector(state_vector)
                again, self._first = mutual and not self._first, False
                self._asks += again
                return [SyncStep1(state_vector, again)]
            case SyncStep2():
                self._began_with = {}
                counted = self._counted.popleft() if self._counted else True
                return [frame, _COUNTED if counted else _UNCOUNTED]
            case Update(update):
                counted = not (self._began_with and covers(self._began_with, update))
                return [frame, _answered(answers) if counted else _UNCOUNTED]

    def _written(self, frame: Frame) -> bytes | None:
        match frame:
            case PermissionDenied():
                self._refused = True
                return None
            case SyncStep1():
                self._counted.append(self._asks > 0)
                self._asks = max(0, self._asks - 1)
                return encode(frame)
            case Hold():
                raise WireError  # nobody is told of leases here
            case _:
                return encode(frame)


def _joined(insertions: Insertions) -> bytes:
    row = _Row(encode(Update(insertions.update())))
    row.answers = len(insertions)
    return row

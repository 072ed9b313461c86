"""What happens to a session, and what the runtime must do about it: the engine's whole vocabulary.

What comes with every token is a named tuple: a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from crdt_sessions.errors import CrdtSessionsError, TooLarge, WireError
from crdt_sessions.ids import ClientId, PeerId, Seq
from crdt_sessions.model import Later
from crdt_sessions.sync.actor import ALL, Rights
from crdt_sessions.sync.records import Deed, Records, Unreadable
from crdt_sessions.wire import Codec, Frame


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """A connection was accepted."""

    peer: PeerId
    principal: str
    rights: Rights = ALL
    lease: str | None = None
    """The lease's token, if it is the connection of a run's holder."""


@dataclass(frozen=True, slots=True)
class RightsChanged:
    """What a peer may do is not what it was."""

    peer: PeerId
    rights: Rights


class FrameReceived(NamedTuple):
    """A peer sent one message, with these frames."""

    peer: PeerId
    frames: list[Frame]


@dataclass(frozen=True, slots=True)
class FrameRefused:
    """A peer sent one message that cannot be read, or is too large: nothing of it is taken."""

    peer: PeerId
    error: WireError | TooLarge


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """A connection ended; *abrupt* if it broke rather than being closed."""

    peer: PeerId
    abrupt: bool = False


class Committed(NamedTuple):
    """The store holds every update up to and including *seq*."""

    seq: Seq


@dataclass(frozen=True, slots=True)
class Tried:
    """An update that had waited was tried, as :class:`Try` asked for."""

    number: int
    harmful: bool = False
    """Whether it does harm. Otherwise it is to be taken."""


@dataclass(frozen=True, slots=True)
class PrincipalChanged:
    """What a principal may do is not what it was, or may not be; None stands for everybody."""

    principal: str | None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Tasted:
    """What became of a foreign update where it was tried before it comes here."""

    delta: bytes | None
    """What it changes in the document, written anew by the library; None if that is nothing."""
    held: bool
    """Whether the document held all of it before."""
    authors: tuple[ClientId, ...]
    """Clients by whom there were new structs in it."""
    later: Later | None = None
    """What of it needs something that has not arrived, and was not tried."""
    before: tuple[bytes, ...] = ()
    """What is to be applied before it, each by itself, since it tears surrogate pairs apart."""


Event = (
    PeerJoined | RightsChanged | PrincipalChanged | FrameReceived | FrameRefused | PeerLeft | Committed | Tried | Tick
)


def received(peer: PeerId, message: bytes, codec: Codec) -> FrameReceived | FrameRefused:
    """Return what it means that *peer*, which speaks *codec*'s dialect, sent *message*."""
    try:
        return FrameReceived(peer, codec.read(message))
    except (WireError, TooLarge) as error:
        return FrameRefused(peer, error)


class Persist(NamedTuple):
    """Store *update* as row *seq*, and *records* with it, then report :class:`Committed`."""

    seq: Seq
    update: bytes
    records: Records | None = None


class Ready(NamedTuple):
    """There may be frames for *peer*, or for everybody if None: call :meth:`SessionEngine.take`."""

    peer: PeerId | None


@dataclass(frozen=True, slots=True)
class ClosePeer:
    """Close one connection because of *error*."""

    peer: PeerId
    error: CrdtSessionsError


@dataclass(frozen=True, slots=True)
class Describe:
    """The session's title changed; the list of sessions should say so."""

    title: str | None


@dataclass(frozen=True, slots=True)
class Violation:
    """Somebody wrote what is not theirs to write. It was refused or put back, and is told to whoever keeps watch."""

    principal: str
    what: str
    """Which rule: the name of a field, ``presence`` or ``client``."""


class Try(NamedTuple):
    """Something of an update that had waited may be taken now: try it as any other, and report :class:`Tried`.

    :meth:`SessionEngine.waited` says which it is. Until that is reported it is not asked for again, but for a while.
    """

    number: int


@dataclass(frozen=True, slots=True)
class Reload:
    """The document in memory cannot be trusted any more: drop it and load it from the store."""

    error: CrdtSessionsError


Effect = Persist | Ready | ClosePeer | Describe | Violation | Deed | Unreadable | Try | Reload

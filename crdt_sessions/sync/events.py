"""What happens to a session, and what the runtime must do about it: the engine's whole vocabulary.

What comes with every token is a named tuple: a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, NewType

from crdt_sessions.errors import (
    CrdtSessionsError,
    Overloaded,
    StorageError,
    TooLarge,
    UpdateError,
    WireError,
    WrongLineage,
)
from crdt_sessions.ids import ClientId, PeerId, Seq
from crdt_sessions.model import Later
from crdt_sessions.sync.actor import ALL, Actor, Rights
from crdt_sessions.sync.records import Deed, Records, Unreadable
from crdt_sessions.wire import Codec, Frame

TrialId = NewType("TrialId", int)
"""Names what is being tried, in one session."""
CallId = NewType("CallId", int)
"""Names an update that somebody waits to hear of; whoever brings it chooses it."""


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
class UpdateBrought:
    """An update came by another way than a peer's message, as over HTTP: :class:`Answered` says what became of it.

    Its author, *actor*, is None if it is the server's own.
    """

    call: CallId
    update: bytes
    actor: Actor | None = None
    foreign: bool = False
    """Whether it may bring the beginning of another session along."""
    compare: bool = False
    """Whether it is only asked whether the document holds it."""


@dataclass(frozen=True, slots=True)
class Tried:
    """An update was tried, as :class:`Try` asked for."""

    trial: TrialId
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class StoreChanged:
    """The store takes no writes because of *outage*, or takes them again if that is None."""

    outage: StorageError | None


@dataclass(frozen=True, slots=True)
class PrincipalChanged:
    """What a principal may do is not what it was, or may not be; None stands for everybody."""

    principal: str | None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Harmless:
    """The verdict of a sandbox: what became of a foreign update there, before anything of it is applied here."""

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


@dataclass(frozen=True, slots=True)
class Refused:
    """The verdict that an update is not taken.

    :class:`MalformedUpdate` and :class:`WrongLineage` speak against whoever brought it, and so does
    :class:`PanickedUpdate`, after which the same bytes are not tried again. Any other error says that nobody knows,
    and that it may be brought again.
    """

    error: UpdateError | WrongLineage | StorageError | Overloaded


@dataclass(frozen=True, slots=True)
class Trusted:
    """The verdict of somebody who has no sandbox, and lets peers in who may stop the process: it is applied here."""


TRUSTED = Trusted()
Verdict = Harmless | Refused | Trusted


Event = (
    PeerJoined
    | RightsChanged
    | PrincipalChanged
    | FrameReceived
    | FrameRefused
    | PeerLeft
    | UpdateBrought
    | Committed
    | Tried
    | StoreChanged
    | Tick
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
class RunReady:
    """A run may be claimed: have it given to somebody who waits for one, once what is stored with it is handed over.

    Whoever claims at once has the run and its lease in one commit. Nobody must: a run that was not given is found in
    the store.
    """

    run: str


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
    """Nobody can tell by its shape that *update* is harmless: try it elsewhere, and report :class:`Tried`.

    What comes until then waits. With *apply* it is about to be taken, otherwise it is only compared.
    """

    trial: TrialId
    update: bytes
    apply: bool
    foreign: bool = False
    """Whether it may bring the beginning of another session along."""


class Resume(NamedTuple):
    """Nothing of *peer* waits any more, as ``SessionEngine.admission.held`` said it did: read on."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of :class:`UpdateBrought`; it counts once what was applied is durable."""

    call: CallId
    error: CrdtSessionsError | None = None
    """Why it was not taken, or not all of it (:class:`EarlyUpdate`)."""
    held: bool = False
    """Whether the document held all of it already."""


@dataclass(frozen=True, slots=True)
class Reload:
    """The document in memory cannot be trusted any more: drop it and load it from the store."""

    error: CrdtSessionsError


Effect = (
    Persist
    | Ready
    | Resume
    | RunReady
    | ClosePeer
    | Describe
    | Violation
    | Deed
    | Unreadable
    | Try
    | Answered
    | Reload
)

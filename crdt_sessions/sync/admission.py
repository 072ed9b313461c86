"""Admission: holds the work of a session that must wait for the verdict on another update, or for the store.

One update of a session is tried at a time. Work that arrives meanwhile waits in order of arrival, because document
and mirror must see the same updates before the next trial. If a part of a message cannot be stored now, the message
is set aside together with all later ones of its connection; other connections go on.

Admission reads and decides nothing. It gives the engine work in the right order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from crdt_sessions.errors import StorageError, TooLarge, TooMany, WireError
from crdt_sessions.ids import Millis, PeerId
from crdt_sessions.sync.actor import Actor
from crdt_sessions.sync.events import CallId, TrialId
from crdt_sessions.wire import AwarenessFrame, Frame, SyncStep1, SyncStep2, Update

_MOST = 1024
"""Messages of one connection that may wait. A runtime stops reading from a connection as soon as one waits."""
_FRAME_BYTES = 256
"""Memory of a frame in addition to its bytes."""


@dataclass(slots=True, eq=False)
class Message:
    """The frames of one message of a peer, or those that are left of it."""

    peer: PeerId
    frames: list[Frame]
    refused: WireError | TooLarge | None = None
    """Why the message cannot be read; None if it can."""
    cost: int = 0
    """Bytes that it counts for while it waits."""


@dataclass(slots=True, eq=False)
class Request:
    """An update that did not come in a peer's message."""

    call: CallId
    update: bytes
    actor: Actor | None
    foreign: bool
    compare: bool


@dataclass(slots=True, eq=False)
class Due:
    """A pending update whose turn has come, by its number."""

    number: int


Work = Message | Request | Due


@dataclass(slots=True, eq=False)
class Trial:
    """The trial that is under way."""

    number: TrialId
    work: Work
    """The work that goes on after the verdict."""
    update: bytes
    apply: bool
    """Whether the mirror takes the update; otherwise it is only compared."""


@dataclass(slots=True, eq=False)
class _Aside:
    messages: list[Message]
    since: Millis


class Admission:
    """The work of one session that waits.

    Args:
        max_bytes: bytes of one connection that may wait.
    """

    def __init__(self, max_bytes: int) -> None:
        self.trial: Trial | None = None
        """The trial that is under way."""
        self.outage: StorageError | None = None
        """Why nothing can be stored now; None if it can."""
        self._max_bytes = max_bytes
        self.queue: list[Work] = []
        """The work that comes after the trial, in order."""
        self._due: set[int] = set()
        self._aside: dict[PeerId, _Aside] = {}
        self.held: dict[PeerId, tuple[int, int]] = {}
        """The connections with waiting messages, with the number of these and their bytes. A runtime should read no
        more from them. It is always the same dictionary."""
        self._trials = 0

    # -- coming ----------------------------------------------------------------------------------------------------

    def hold(self, message: Message) -> None:
        """Queue a message after the work that came before it.

        Raises:
            TooMany: too many messages of its connection, or bytes of them, wait already.
        """
        count, size = self.held.get(message.peer, (0, 0))
        message.cost = sum(_FRAME_BYTES + _size(frame) for frame in message.frames)
        if count >= _MOST or (count and size + message.cost > self._max_bytes):
            raise TooMany(what="messages, or bytes of them, that wait for others", limit=_MOST)
        self._keep(message)
        if (aside := self._aside.get(message.peer)) is not None:
            aside.messages.append(message)
        else:
            self.queue.append(message)

    def ask(self, request: Request) -> None:
        """Queue a request."""
        self.queue.append(request)

    def due(self, number: int) -> None:
        """Queue the trial of a pending update, unless it is queued or under way."""
        under_way = self.trial is not None and isinstance(self.trial.work, Due) and self.trial.work.number == number
        if number not in self._due and not under_way:
            self._due.add(number)
            self.queue.append(Due(number))

    # -- going -----------------------------------------------------------------------------------------------------

    @property
    def moves(self) -> bool:
        """Whether the next work can begin now."""
        return self.trial is None and bool(self.queue)

    def next(self) -> Work:
        """Take the next work from the queue and return it."""
        work = self.queue.pop(0)
        if isinstance(work, Due):
            self._due.discard(work.number)
        elif isinstance(work, Message):
            self._release(work)
        return work

    def begin(self, work: Work, update: bytes, *, apply: bool) -> TrialId:
        """Note that *work* waits for the verdict on *update*; return the trial's number."""
        assert self.trial is None
        self._trials += 1
        self.trial = Trial(TrialId(self._trials), work, update, apply)
        if isinstance(work, Message):
            self._keep(work)
        return self.trial.number

    def end(self, number: TrialId) -> Trial | None:
        """End the trial with that number and return it; None if it is not under way."""
        trial = self.trial
        if trial is None or trial.number != number:
            return None
        self.trial = None
        if isinstance(trial.work, Message):
            self._release(trial.work)
        return trial

    def set_aside(self, message: Message, now: Millis) -> None:
        """Have a message, and all later ones of its connection, wait for the store."""
        self._keep(message)
        aside = self._aside[message.peer] = _Aside([message], now)
        later = [work for work in self.queue if isinstance(work, Message) and work.peer == message.peer]
        if later:
            aside.messages += later
            self.queue = [work for work in self.queue if work not in later]

    def store_takes(self, outage: StorageError | None) -> None:
        """Note that the store takes no writes because of *outage*, or takes them again if *outage* is None.

        When it takes them again, the messages that were set aside join the queue.
        """
        self.outage = outage
        if outage is None:
            for aside in self._aside.values():
                self.queue += aside.messages
            self._aside.clear()

    # -- those who brought it --------------------------------------------------------------------------------------

    def lost_patience(self, before: Millis) -> Iterable[PeerId]:
        """Return the connections that have had messages set aside since *before*, or for longer."""
        return [peer for peer, aside in self._aside.items() if aside.since <= before]

    @property
    def any_aside(self) -> bool:
        """Whether messages wait for the store."""
        return bool(self._aside)

    def drop(self, peer: PeerId) -> None:
        """Forget the waiting messages of a connection that has ended. A trial of it goes on to its end."""
        if peer in self.held:
            del self.held[peer]
            self._aside.pop(peer, None)
            self.queue = [work for work in self.queue if not (isinstance(work, Message) and work.peer == peer)]

    def _keep(self, message: Message) -> None:
        count, size = self.held.get(message.peer, (0, 0))
        self.held[message.peer] = (count + 1, size + message.cost)

    def _release(self, message: Message) -> None:
        if message.peer in self.held:
            count, size = self.held[message.peer]
            if count > 1:
                self.held[message.peer] = (count - 1, size - message.cost)
            else:
                del self.held[message.peer]


def _size(frame: Frame) -> int:
    match frame:
        case Update(update) | SyncStep2(update):
            return len(update)
        case SyncStep1(payload) | AwarenessFrame(payload):
            return len(payload)
        case _:
            return 0

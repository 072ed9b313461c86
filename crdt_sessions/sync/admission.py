"""What waits at the door of a session: for what becomes of an update that is being tried, or for the store.

One update of a session is tried at a time, and whatever comes meanwhile waits behind it in the order in which it
came: document and mirror must see the same things in between. A message of which something cannot be stored now is
set aside, and everything of its connection behind it; others go on.

Nothing here is read or decided. The engine takes things in the order that this gives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from crdt_sessions.errors import StorageError, TooLarge, TooMany, WireError
from crdt_sessions.ids import Millis, PeerId
from crdt_sessions.sync.actor import Actor
from crdt_sessions.sync.events import CallId, TrialId
from crdt_sessions.wire import AwarenessFrame, Frame, SyncStep1, SyncStep2, Update

_MOST = 1024
"""Messages of one connection that may wait. A runtime reads no more from it as soon as one does."""
_FRAME_BYTES = 256
"""What a frame costs beside its bytes."""


@dataclass(slots=True, eq=False)
class Message:
    """What a peer sent in one message, or what is left of that."""

    peer: PeerId
    frames: list[Frame]
    refused: WireError | TooLarge | None = None
    """Why it cannot be read, if it cannot."""
    cost: int = 0
    """What it counts as waiting."""


@dataclass(slots=True, eq=False)
class Request:
    """An update that came by another way than a peer's message."""

    call: CallId
    update: bytes
    actor: Actor | None
    foreign: bool
    compare: bool


@dataclass(slots=True, eq=False)
class Due:
    """An update that had waited for another one, by its number."""

    number: int


Work = Message | Request | Due


@dataclass(slots=True, eq=False)
class Trial:
    """What is being tried."""

    number: TrialId
    work: Work
    """What cannot go on before that."""
    update: bytes
    apply: bool
    """Whether the mirror takes it; else it is only compared."""


@dataclass(slots=True, eq=False)
class _Aside:
    messages: deque[Message]
    since: Millis


class Admission:
    """What waits in one session.

    Args:
        max_bytes: what a connection may have waiting here.
    """

    def __init__(self, max_bytes: int) -> None:
        self.trial: Trial | None = None
        """What is being tried now."""
        self.outage: StorageError | None = None
        """Why nothing can be stored now; None if it can."""
        self._max_bytes = max_bytes
        self.queue: deque[Work] = deque()
        """What has its turn after that."""
        self._due: set[int] = set()
        self._aside: dict[PeerId, _Aside] = {}
        self.held: dict[PeerId, tuple[int, int]] = {}
        """The connections of which something waits: how many messages, and their bytes. No more should be read from
        them. Always the same dictionary."""
        self._trials = 0

    # -- coming ----------------------------------------------------------------------------------------------------

    def hold(self, message: Message) -> None:
        """Have a message wait behind what came before it.

        Raises:
            TooMany: too much of its connection waits already.
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
        """Have a request wait for its turn."""
        self.queue.append(request)

    def due(self, number: int) -> None:
        """Have an update that had waited wait for its turn, unless it does."""
        under_way = self.trial is not None and isinstance(self.trial.work, Due) and self.trial.work.number == number
        if number not in self._due and not under_way:
            self._due.add(number)
            self.queue.append(Due(number))

    # -- going -----------------------------------------------------------------------------------------------------

    @property
    def moves(self) -> bool:
        """Whether there is something whose turn it is."""
        return self.trial is None and bool(self.queue)

    def next(self) -> Work:
        """Return that, which does not wait any more."""
        work = self.queue.popleft()
        if isinstance(work, Due):
            self._due.discard(work.number)
        elif isinstance(work, Message):
            self._release(work)
        return work

    def begin(self, work: Work, update: bytes, *, apply: bool) -> TrialId:
        """Have *work* wait for what becomes of *update*; return the trial's number."""
        assert self.trial is None
        self._trials += 1
        self.trial = Trial(TrialId(self._trials), work, update, apply)
        if isinstance(work, Message):
            self._keep(work)
        return self.trial.number

    def end(self, number: TrialId) -> Trial | None:
        """Return the trial of that number if it is under way; it is not any more."""
        trial = self.trial
        if trial is None or trial.number != number:
            return None
        self.trial = None
        if isinstance(trial.work, Message):
            self._release(trial.work)
        return trial

    def set_aside(self, message: Message, now: Millis) -> None:
        """Have a message, and what comes from its connection behind it, wait for the store."""
        self._keep(message)
        aside = self._aside[message.peer] = _Aside(deque([message]), now)
        behind = [work for work in self.queue if isinstance(work, Message) and work.peer == message.peer]
        if behind:
            aside.messages += behind
            self.queue = deque(work for work in self.queue if work not in behind)

    def store_takes(self, outage: StorageError | None) -> None:
        """Note that the store takes no writes because of *outage*, or takes them again, if that is None.

        Then it is the turn of all that were set aside.
        """
        self.outage = outage
        if outage is None:
            for aside in self._aside.values():
                self.queue += aside.messages
            self._aside.clear()

    # -- those who brought it --------------------------------------------------------------------------------------

    def lost_patience(self, before: Millis) -> Iterable[PeerId]:
        """Return the connections of which something has waited for the store since before that moment."""
        return [peer for peer, aside in self._aside.items() if aside.since <= before]

    @property
    def any_aside(self) -> bool:
        """Whether something waits for the store."""
        return bool(self._aside)

    def drop(self, peer: PeerId) -> None:
        """Forget what waits of a connection that has ended. What is being tried is tried to its end."""
        if peer in self.held:
            del self.held[peer]
            self._aside.pop(peer, None)
            self.queue = deque(work for work in self.queue if not (isinstance(work, Message) and work.peer == peer))

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

"""The engine's record of one connection: its actor, whether its history is known, and what it is owed.

Nothing here sends or decides. The debt to a peer is a cursor into the log, a version of the roster, and some
acknowledgements; all are bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from crdt_sessions.ids import Millis, Seq
from crdt_sessions.sync.actor import Actor
from crdt_sessions.wire import Ack, Frame, PermissionDenied, SyncStep1, SyncStep2, Update

Answer = Ack | PermissionDenied
"""What a peer is told of what it sent, in its order: that all up to there is durable, or that a change is refused."""

STRANGER_MS = 30_000
"""How long a peer with an unknown history may take to say what it has. All clients say so at once, but their answer
is tried first, and a trial may take long."""
REMIND_MS = 15_000
"""How long after its answer a peer is asked again although it has brought nothing new."""
INTRODUCED_MS = 1000
"""How long until a peer that neither announces itself nor answers is told who is here."""
PATIENCE_MS, _MAX_PATIENCE_MS = 2_000, 60_000
"""How long a peer may take to answer when it is asked for missing changes: at first, and at most."""
_VECTOR_EVERY = 64
"""How many log entries a peer's remembered state vector may lag. It is needed once the peer falls off the log."""


@dataclass(slots=True)
class Peer:
    """The record of one connection."""

    actor: Actor
    heard: Millis
    told: Millis
    asked_at: Millis
    """When there was last a reason to ask what it has."""
    stranger_since: Millis | None
    """Since when it has been unclear whether its history is this session's; None if it is clear. Meanwhile it is told
    nothing, or a replica of another session would become a mixture of both."""
    patience_ms: int = PATIENCE_MS
    """How long it may take to answer."""
    known: bool = False
    """Whether its history is known to be this session's. Updates that it sent earlier are left out; its SyncStep2,
    made later, holds them."""
    asked: bool = False
    """Whether it was sent a SyncStep1 since :attr:`asked_at`."""
    answered: bool = False
    """Whether it has answered that."""
    tabs: bool = False
    """Whether it has, or had, tabs beside it. It may know more of them than the service."""
    presence_version: int = 0
    """The version of the roster it was sent."""
    introduced: bool = False
    """Whether it has sent something other than a sync message. Stock clients announce themselves before they answer
    our SyncStep1. Only then is it told of others, so that an announcement can be told from an echo."""
    asks_who: bool = False
    """Whether it asked to be told of everybody again."""
    step1: bytes | None = None
    """The state vector of a SyncStep1 that is not answered yet."""
    left_out: bool = False
    """Whether it sent updates while its history was unknown. Its SyncStep2 must still bring them."""
    early: list[Answer] = field(default_factory=list)  # most peers are owed nothing, and a deque takes 760 bytes
    """Answers that are due once its SyncStep2 has brought the updates that were left out."""
    cursor: Seq | None = None
    """Last log entry the peer has; None until its SyncStep1 was answered."""
    vector: tuple[Seq, bytes] = (Seq(0), b"\x00")
    """A lower bound of what the peer has: (log entry, state vector)."""
    due: list[tuple[Seq, Answer]] = field(default_factory=list)
    """Answers, each with the log entry that must be committed first."""
    held: list[tuple[int, Answer]] = field(default_factory=list)
    """Answers that wait for a pending update, each with that update's number."""
    declined: bool = False
    """Whether something of it was refused."""

    def has_everything(self, head: Seq, presence_version: int) -> bool:
        """Tell whether it was sent all there is, and nothing of it becomes due but keepalives."""
        return (
            self.asked
            and self.introduced
            and self.stranger_since is None
            and not (self.tabs or self.asks_who or self.unread_answers)
            and self.step1 is None
            and self.cursor == head
            and self.presence_version == presence_version
            and self.actor.lease is None
        )

    # -- whether it is a stranger --------------------------------------------------------------------------------

    def told_what_it_has(self, frame: SyncStep1, now: Millis, *, strange: bool) -> None:
        """Note its SyncStep1; *strange* if that shares nothing with this document."""
        self.step1 = frame.state_vector
        self.asked = self.asked and not frame.mutual
        self.known = self.known or not (strange or self.left_out)
        self.stranger_since = None if self.known else now

    def leave_out_early(self, frames: list[Frame], now: Millis) -> list[Frame]:
        """Return the frames of a message that are taken while it is not known; its SyncStep2 must bring the rest."""
        taken = without_early(frames)
        if len(taken) < len(frames):
            self.left_out = True
            self.stranger_since = now if self.stranger_since is None else self.stranger_since
        return taken

    def recognized(self) -> list[Answer]:
        """Note that it belongs to this session: it has brought all it has. Return the answers that are due now."""
        self.known, self.left_out, self.stranger_since = True, False, None
        early, self.early = self.early, []
        return early

    def stays_strange(self, now: Millis) -> bool:
        """Tell whether it has had enough time to show its history and did not."""
        return self.stranger_since is not None and now - self.stranger_since >= STRANGER_MS

    # -- what it is asked ----------------------------------------------------------------------------------------

    def may_be_asked(self, now: Millis) -> bool:
        """Tell whether it may be asked what it has. It may not while an answer may be under way."""
        return self.asked and (self.answered or now >= self.asked_at + self.patience_ms)

    def ask(self, now: Millis) -> None:
        """Ask it again what it has. If it did not answer the last time, it gets longer."""
        self.patience_ms = PATIENCE_MS if self.answered else min(2 * self.patience_ms, _MAX_PATIENCE_MS)
        self.asked, self.answered, self.asked_at = False, False, now

    # -- what it is owed -----------------------------------------------------------------------------------------

    @property
    def unread_answers(self) -> int:
        """Number of answers that it is owed, now or later."""
        return len(self.due) + len(self.held) + len(self.early)

    def release(self, first: int | None, head: Seq) -> None:
        """Make due, with entry *head*, the answers that waited for updates before number *first*.

        If *first* is None, nothing waits any more, and all become due.
        """
        while self.held and (first is None or self.held[0][0] < first):
            self.due.append((head, self.held.pop(0)[1]))

    def refuse_held(self, number: int, answer: Answer) -> None:
        """Say of the pending update of that number that it was refused, before what waits for it is acknowledged."""
        at = next((at for at, (last, _) in enumerate(self.held) if last >= number), len(self.held))
        self.held.insert(at, (number, answer))

    def take_due(self, tail: Seq) -> list[Answer]:
        """Return the answers that are due now that everything up to *tail* is durable."""
        due: list[Answer] = []
        while self.due and self.due[0][0] <= tail:
            due.append(self.due.pop(0)[1])
        return due

    def moved(self, cursor: Seq) -> bool:
        """Note that it has everything up to *cursor*; tell whether its remembered state vector should be renewed."""
        self.cursor = cursor
        return cursor >= self.vector[0] + _VECTOR_EVERY


def without_early(frames: list[Frame]) -> list[Frame]:
    """Return the *frames* of a peer that is not known, without the updates before its SyncStep2.

    A SyncStep1 in the same message does not let them in: the service must take exactly what was tried, and by then
    the answer to whether the peer shares something with the document may have changed.
    """
    taken: list[Frame] = []
    answered = False
    for frame in frames:
        answered = answered or isinstance(frame, SyncStep2)
        if answered or not isinstance(frame, Update):
            taken.append(frame)
    return taken

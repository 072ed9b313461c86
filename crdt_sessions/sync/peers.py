"""What the engine knows of one connection: whose it is, whether its history is known, and what it is owed.

Nothing here sends or decides. A peer that is owed something is a cursor into the log, a version of the roster and a
few acknowledgements, all of them bounded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from crdt_sessions.ids import Millis, Seq
from crdt_sessions.sync.actor import Actor
from crdt_sessions.wire import Ack, Frame, SyncStep2, Update

STRANGER_MS = 30_000
"""How long a peer with a history of its own is waited for to say what that is. All clients do at once, but what they
say is tried elsewhere first, and that may take its time."""
REMIND_MS = 15_000
"""How soon a peer that has answered is asked again though it brings nothing new."""
INTRODUCED_MS = 1000
"""A peer that says nothing of itself, and does not answer, is told who is here after so long."""
PATIENCE_MS, _MAX_PATIENCE_MS = 2_000, 60_000
"""How long a peer that is asked for what lacks may take to answer: at first, and at most."""
_VECTOR_EVERY = 64
"""How many log entries a peer's remembered state vector may lag; it is only needed once it falls off the log."""


@dataclass(slots=True)
class Peer:
    """One connection."""

    actor: Actor
    heard: Millis
    told: Millis
    asked_at: Millis
    """When there was reason last to ask what it has."""
    stranger_since: Millis | None
    """Since when it is not clear whether its history is one with this one. It is told nothing meanwhile, or a replica
    of another session would become a mixture of both."""
    patience_ms: int = PATIENCE_MS
    """How long it may take to answer."""
    known: bool = False
    """Whether it has shown that. Nothing it wrote before is taken: its SyncStep2 has that, since it is made later."""
    asked: bool = False
    """Whether it was sent a SyncStep1 since then."""
    answered: bool = False
    """Whether it has said since then what it has."""
    tabs: bool = False
    """Whether there are, or were, tabs beside it of which it may know more than the service."""
    presence_version: int = 0
    """The version of the roster it was sent."""
    introduced: bool = False
    """Whether it has said anything but what it has: stock clients announce themselves before they answer our
    SyncStep1. It is told of others after that, so that an announcement can be told from an echo."""
    asks_who: bool = False
    """Whether it wants to be told of everybody again."""
    step1: bytes | None = None
    """The state vector of a SyncStep1 that is not answered yet."""
    left_out: bool = False
    """Whether it wrote something as a stranger, which its SyncStep2 is still to bring."""
    early: deque[bytes] = field(default_factory=deque)
    """What it wants acknowledged once its SyncStep2 has brought what was left out."""
    cursor: Seq | None = None
    """Last log entry the peer has; None until its SyncStep1 was answered."""
    vector: tuple[Seq, bytes] = (Seq(0), b"\x00")
    """A lower bound of what the peer has: (log entry, state vector)."""
    due: deque[tuple[Seq, Ack]] = field(default_factory=deque)
    """What to say once the log entry is committed."""
    held: deque[tuple[int, Ack]] = field(default_factory=deque)
    """Acknowledgements of what came after something that waits: (its number, what to say)."""

    # -- whether it is a stranger --------------------------------------------------------------------------------

    def told_what_it_has(self, state_vector: bytes, now: Millis, *, strange: bool) -> None:
        """Note its SyncStep1; *strange* if nothing in that is of this document."""
        self.step1 = state_vector
        self.known = self.known or not (strange or self.left_out)
        self.stranger_since = None if self.known else now

    def leave_out_early(self, frames: list[Frame], now: Millis) -> list[Frame]:
        """Return what is taken of a message while it is not known; its SyncStep2 must bring the rest."""
        taken = without_early(frames)
        if len(taken) < len(frames):
            self.left_out = True
            self.stranger_since = now if self.stranger_since is None else self.stranger_since
        return taken

    def recognized(self) -> deque[bytes]:
        """Take it for one of this session: it has brought all it has. Return what it wants acknowledged now."""
        self.known, self.left_out, self.stranger_since = True, False, None
        early, self.early = self.early, deque()
        return early

    def stays_strange(self, now: Millis) -> bool:
        """Tell whether it has been given time enough to say what its history is."""
        return self.stranger_since is not None and now - self.stranger_since >= STRANGER_MS

    # -- what it is asked ----------------------------------------------------------------------------------------

    def may_be_asked(self, now: Millis) -> bool:
        """Tell whether it may be asked what it has: it is not when an answer may be under way."""
        return self.asked and (self.answered or now >= self.asked_at + self.patience_ms)

    def ask(self, now: Millis) -> None:
        """Have it asked what it has; one that did not answer the last time is given longer."""
        self.patience_ms = PATIENCE_MS if self.answered else min(2 * self.patience_ms, _MAX_PATIENCE_MS)
        self.asked, self.answered, self.asked_at = False, False, now

    # -- what it is owed -----------------------------------------------------------------------------------------

    @property
    def unread_acks(self) -> int:
        """How many acknowledgements it is owed, at once or later."""
        return len(self.due) + len(self.held) + len(self.early)

    def release(self, first: int | None, head: Seq) -> None:
        """Owe it what had to wait for something before number *first*, or for anything; due with entry *head*."""
        while self.held and (first is None or self.held[0][0] < first):
            self.due.append((head, self.held.popleft()[1]))

    def take_due(self, tail: Seq) -> list[Ack]:
        """Return what it is to be told now that everything up to *tail* is durable."""
        due: list[Ack] = []
        while self.due and self.due[0][0] <= tail:
            due.append(self.due.popleft()[1])
        return due

    def moved(self, cursor: Seq) -> bool:
        """Note that it has everything up to *cursor*; tell whether its state vector should be remembered anew."""
        self.cursor = cursor
        return cursor >= self.vector[0] + _VECTOR_EVERY


def without_early(frames: list[Frame]) -> list[Frame]:
    """Return *frames* of a peer that is not known, without the updates before its SyncStep2.

    A SyncStep1 in the same message does not let them in: what is tried elsewhere must be what is taken afterwards,
    and whether it shares something with the document may have changed by then.
    """
    taken: list[Frame] = []
    answered = False
    for frame in frames:
        answered = answered or isinstance(frame, SyncStep2)
        if answered or not isinstance(frame, Update):
            taken.append(frame)
    return taken

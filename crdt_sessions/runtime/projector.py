"""A session as typed events: the one place where readers that know no Yjs learn what happened.

There is no second log. A reader has a :class:`Position`; what changed after it is found in the session's index of
changes, and told as the difference between what the reader has and what the document says now. From nothing that is a
replay, after that the live tail. What a gateway does is spell these events.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from crdt_sessions.ids import Seq
from crdt_sessions.model import (
    MessageCursor,
    MessageEvent,
    MessageRemoved,
    MessageReplaced,
    Meta,
    Run,
)
from crdt_sessions.model.spelling import spelled
from crdt_sessions.runtime.session import Session

Subject = tuple[str, str]
_Place = tuple[bool, tuple[bool, int, str]]

_FIRST = (False, -1, "")
_AT_ONCE = 8
"""Subjects that are read before it is others' turn; a message is some hundred microseconds."""


@dataclass(frozen=True, slots=True)
class RunChanged:
    """A run was asked for, is worked on, or has ended."""

    run: Run


@dataclass(frozen=True, slots=True)
class MetaChanged:
    """What the session is has changed."""

    meta: Meta


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The application's shared state has changed."""

    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """Somebody came or left, or does something else."""

    present: list[dict[str, Any]]


SessionEvent = MessageEvent | RunChanged | MetaChanged | StateChanged | PresenceChanged


@dataclass(slots=True)
class Position:
    """What a reader has of a session."""

    lineage: str = ""
    seq: int = -1
    """The log entry up to which everything was told."""
    life: str = ""
    """In which of the session's lives in memory; see :meth:`Session.remembers`."""
    messages: dict[str, MessageCursor] = field(default_factory=dict)
    """The messages that may go on, by id."""


class Projector:
    """Tells one reader what it does not have yet.

    Args:
        session: a live session; the caller keeps it open meanwhile.
        position: what the reader has; nothing if None, or if it is of another session that had the name, or of what
            this one was before it went back to a backup: :attr:`reset` says so.
        wants: whether the reader wants to hear of a subject (``message``, ``run``, ``meta`` or ``state``, and the
            id); of everything if None.
        first: the subjects that a reader who has nothing is told of, if those are known: a long session is not looked
            through for them then.
        presence: whether it wants the peers that are here.
    """

    def __init__(
        self,
        session: Session,
        position: Position | None = None,
        *,
        wants: Callable[[Subject], bool] | None = None,
        first: Iterable[Subject] | None = None,
        presence: bool = True,
    ) -> None:
        self._session = session
        self._wants = wants
        self._first = first
        self._presence: int | None = -1 if presence else None
        known = position is not None and session.remembers(position.lineage, position.life, position.seq)
        self.position = position if position is not None and known else Position(session.record.lineage)
        here = known and self.position.life == session.life
        self.position.life = session.life
        self.reset = position is not None and not known
        """Whether what the reader has is of no use: it is told everything, and is to forget what it has."""
        self._complete = self.position.seq < 0
        self._told: set[str] = set()
        has_none = self._complete or (here and not session.told_state)
        self._state: dict[str, Any] | None = {} if has_none else None
        """As it was told last; None if the reader had a position and may have any."""

    async def wait(self) -> None:
        """Return once there may be something to tell.

        Raises:
            ShuttingDown: the session is about to be closed; the reader may come back with its position.
            StorageError: the session failed.
        """
        presence = self._session.engine.roster.version if self._presence is None else self._presence
        await self._session.changed(Seq(self.position.seq), presence)

    def take(self) -> list[SessionEvent]:
        """Return what the reader does not have yet, and consider it told."""
        events = self._who_is_here()
        subjects = self._subjects()
        places = {subject: self._place(subject) for subject in self._unordered(subjects)}
        for subject in _in_order(subjects, places):
            events += self._tell(*subject)
        self.position.seq = self._session.engine.log.tail
        return events

    async def take_in_turns(self) -> AsyncGenerator[list[SessionEvent], None]:
        """Yield what :meth:`take` returns, in pieces between which the loop turns: a long history stops nobody.

        A piece says how things are when it is yielded. What changes in between is told the next time.

        Raises:
            ShuttingDown, StorageError: as :meth:`wait`.
        """
        tail = self._session.engine.log.tail
        yield self._who_is_here()
        subjects = self._subjects()
        places: dict[Subject, _Place] = {}
        async for some in self._in_turns(self._unordered(subjects)):
            places.update((subject, self._place(subject)) for subject in some)
        async for some in self._in_turns(_in_order(subjects, places)):
            yield [event for subject in some for event in self._tell(*subject)]
        self.position.seq = tail

    async def _in_turns(self, subjects: list[Subject]) -> AsyncGenerator[list[Subject], None]:
        for at in range(0, len(subjects), _AT_ONCE):
            if at:
                await asyncio.sleep(0)
                self._session.check_served()
            yield subjects[at : at + _AT_ONCE]

    def _who_is_here(self) -> list[SessionEvent]:
        roster = self._session.engine.roster
        if self._presence is None or self._presence >= roster.version:
            return []
        self._presence = roster.version
        return [PresenceChanged(present(self._session))]

    def _subjects(self) -> list[Subject]:
        changes = self._session.engine.changes
        if self._first is not None and self.position.seq < 0:
            return changes.among(self._first)
        subjects = changes.since(Seq(self.position.seq))
        return subjects if self._wants is None else [subject for subject in subjects if self._wants(subject)]

    def _unordered(self, subjects: list[Subject]) -> list[Subject]:
        """Return the messages to tell in reading order: all, or the new ones.

        What came in one change, such as a conversation that was brought along, changed in no order.
        """
        if self.position.seq < 0:
            return subjects
        new = [each for each in subjects if each[0] == "message" and each[1] not in self._told]
        return new if len(new) > 1 else []

    def _place(self, subject: Subject) -> _Place:
        found = self._session.view.messages.find(subject[1]) if subject[0] == "message" else None
        return subject[0] == "message", (found.place or _FIRST if found is not None else _FIRST)

    def _tell(self, kind: str, id: str) -> Iterator[SessionEvent]:
        view = self._session.view
        if kind == "message":
            yield from self._message(id)
        elif kind == "run":
            if (run := view.runs.value(id)) is not None:
                yield RunChanged(run)
        elif kind == "meta":
            yield MetaChanged(view.meta)
        elif kind == "state" and (state := view.state_value()) != self._state:
            self._state = state
            self._session.told_state = True
            yield StateChanged(state)

    def _message(self, id: str) -> list[MessageEvent]:
        found = self._session.view.messages.find(id)
        if found is None:
            self.position.messages.pop(id, None)
            self._told.discard(id)
            return [] if id in self._session.view.messages else [MessageRemoved(id)]
        cursor = self.position.messages.pop(id, None)
        if cursor is None and (id in self._told or not self._complete):
            # It was told and settled, or the reader had a position and may have it: whole, then.
            cursor = MessageCursor()
            cursor.advance(found)
            value = found.to_value()
            events: list[MessageEvent] = [] if value is None else [MessageReplaced(id, value)]
        else:
            cursor = cursor or MessageCursor()
            events = cursor.advance(found)
        if cursor.begun:
            self._told.add(id)
            if not cursor.settled or not self._over(id, cursor):
                self.position.messages[id] = cursor
        return events

    def _over(self, id: str, cursor: MessageCursor) -> bool:
        """Whether nobody is about to add a part: not the run that wrote it, nor another one that goes on with it."""
        return cursor.place[0] is not None and self._session.engine.runs.table.writer_of(id) is None


def _in_order(subjects: list[Subject], places: dict[Subject, _Place]) -> list[Subject]:
    """Return *subjects* with those that have *places* by their place; the others stay where they stand."""
    ordered = iter(sorted(places, key=places.__getitem__))
    return [next(ordered) if subject in places else subject for subject in subjects] if places else subjects


def present(session: Session) -> list[dict[str, Any]]:
    """Return the peers that are here: Yjs client id and state of each, as JSON that every reader can take."""
    states = session.engine.roster.present()
    return [{"clientId": client, "state": spelled(json.loads(text))} for client, text in sorted(states.items())]

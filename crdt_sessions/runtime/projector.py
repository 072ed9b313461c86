"""A session as typed events: the one place where readers that know no Yjs learn what happened.

There is no second log. A reader has a :class:`Position`; what changed after it is found in the session's index of
changes, and told as the difference between what the reader has and what the document says now. From nothing that is a
replay, after that the live tail. What a gateway does is spell these events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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
from crdt_sessions.runtime.session import Session

Subject = tuple[str, str]

_FIRST = (False, -1, "")


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

    generation: int = 0
    seq: int = -1
    """The log entry up to which everything was told."""
    messages: dict[str, MessageCursor] = field(default_factory=dict)
    """The messages that may go on, by id."""


class Projector:
    """Tells one reader what it does not have yet.

    Args:
        session: a live session; the caller keeps it open meanwhile.
        position: what the reader has; nothing if None, or if it is of another generation, or ahead of the log.
        wants: whether the reader wants to hear of a subject (``message``, ``run``, ``meta`` or ``state``, and the
            id); of everything if None.
        presence: whether it wants to hear who is here.
    """

    def __init__(
        self,
        session: Session,
        position: Position | None = None,
        *,
        wants: Callable[[Subject], bool] | None = None,
        presence: bool = True,
    ) -> None:
        self._session = session
        self._wants = wants
        self._presence: int | None = -1 if presence else None
        generation = session.record.generation
        known = position is not None and position.generation == generation and position.seq <= session.engine.log.head
        self.position = position if position is not None and known else Position(generation)
        self._complete = self.position.seq < 0
        self._told: set[str] = set()
        self._state: dict[str, Any] = {}

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
        events: list[SessionEvent] = []
        roster = self._session.engine.roster
        if self._presence is not None and self._presence < roster.version:
            self._presence = roster.version
            events.append(PresenceChanged(present(self._session)))
        for subject in self._subjects():
            events += self._tell(*subject)
        self.position.seq = self._session.engine.log.tail
        return events

    def _subjects(self) -> list[Subject]:
        subjects = self._session.engine.changes.since(Seq(self.position.seq))
        if self._wants is not None:
            subjects = [subject for subject in subjects if self._wants(subject)]
        if self.position.seq < 0:  # everything: in the order people read it
            subjects.sort(key=lambda subject: (subject[0] == "message", self._place(subject)))
        return subjects

    def _place(self, subject: Subject) -> tuple[bool, int, str]:
        found = self._session.view.messages.find(subject[1]) if subject[0] == "message" else None
        return found.place or _FIRST if found is not None else _FIRST

    def _tell(self, kind: str, id: str) -> Iterator[SessionEvent]:
        view = self._session.view
        if kind == "message":
            yield from self._message(id)
        elif kind == "run":
            if (run := view.runs.value(id)) is not None:
                yield RunChanged(run)
        elif kind == "meta":
            yield MetaChanged(view.meta)
        elif kind == "state" and (state := view.state.to_py() or {}) != self._state:
            self._state = state
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
        return cursor.place[0] is not None and self._session.engine.runs.writer_of(id) is None


def present(session: Session) -> list[dict[str, Any]]:
    """Return who is here: Yjs client id and state of each."""
    states = session.engine.roster.present()
    return [{"clientId": client, "state": json.loads(text)} for client, text in sorted(states.items())]

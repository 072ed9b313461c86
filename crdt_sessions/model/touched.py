"""Where a document has changed, as its observers note it: nobody ever has to walk the whole document to find out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from crdt_sessions.model.layout import Roots


@dataclass(slots=True)
class Touched:
    """Where a transaction changed the document."""

    meta: set[str] = field(default_factory=set)
    """Keys of ``meta``."""

    messages: dict[str, set[str]] = field(default_factory=dict)
    """Message id to the keys of the message map that were set; empty if only something deeper changed."""

    runs: set[str] = field(default_factory=set)
    """Run ids."""

    suggestions: set[str] = field(default_factory=set)
    """Ids of suggestions."""

    edits: set[str] = field(default_factory=set)
    """Ids of steps."""

    known: bool = False
    """Whether what changes is known anyway. Then it is not noted."""

    @property
    def within_messages(self) -> bool:
        """Whether only something deep in messages changed."""
        return not (self.meta or self.runs or self.suggestions or self.edits or any(self.messages.values()))

    def take(self) -> Touched:
        """Return what was noted, and begin anew."""
        taken = Touched(
            self.meta.copy(), self.messages.copy(), self.runs.copy(), self.suggestions.copy(), self.edits.copy()
        )
        self.meta.clear()
        self.messages.clear()
        self.runs.clear()
        self.suggestions.clear()
        self.edits.clear()
        return taken


def watch(roots: Roots, touched: Touched, runs_changed: Callable[[list[str]], None]) -> list[tuple[Any, Any]]:
    """Have all changes noted in *touched*; return what is to be unsubscribed later, each with its subscription.

    *Runs_changed* is told of runs that have changed, also where what changes is known anyway.

    Observers only take notes, and are closures without a document: see :class:`~crdt_sessions.model.SessionDoc`.
    """
    notes = (
        (roots.meta, _note_meta),
        (roots.messages, _note_messages),
        (roots.delegated, _note_messages),
        (roots.runs, _note_runs),
        (roots.suggestions, _note_suggestions),
        (roots.edits, _note_edits),
    )

    def note_known_runs(events: list[Any]) -> None:
        for event in events:
            runs_changed(_root_keys(event))

    watched = [(root, _bind(note, touched)) for root, note in notes] + [(roots.runs, note_known_runs)]
    return [(root, root.observe_deep(observer)) for root, observer in watched]


_Event = Any  # pycrdt's stubs give events no attributes


def _bind(note: Callable[[Touched, _Event], None], touched: Touched) -> Callable[[list[Any]], None]:
    def observer(events: list[Any]) -> None:
        if not touched.known:
            for event in events:
                note(touched, event)

    return observer


def _note_meta(touched: Touched, event: _Event) -> None:
    touched.meta.update(_root_keys(event))


def _note_messages(touched: Touched, event: _Event) -> None:
    path = event.path
    if not path:
        for message_id in _keys(event):
            touched.messages.setdefault(message_id, set()).add("*")
    else:
        keys = touched.messages.setdefault(str(path[0]), set())
        if len(path) == 1:
            keys.update(_keys(event))


def _note_runs(touched: Touched, event: _Event) -> None:
    touched.runs.update(_root_keys(event))


def _note_suggestions(touched: Touched, event: _Event) -> None:
    touched.suggestions.update(_root_keys(event))


def _note_edits(touched: Touched, event: _Event) -> None:
    touched.edits.update(_root_keys(event))


def _root_keys(event: _Event) -> list[str]:
    """Return the keys of the root map that an event, however deep, is about."""
    return [str(event.path[0])] if event.path else _keys(event)


def _keys(event: _Event) -> list[str]:
    return [str(key) for key in getattr(event, "keys", ())]  # only a MapEvent has keys

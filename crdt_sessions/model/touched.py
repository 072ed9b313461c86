"""Where a document has changed, as its observers note it: nobody ever has to walk the whole document to find out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import Parameter, Signature
from typing import Any

from pycrdt import TextEvent

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

    more_than_text: bool = False
    """Whether something deeper in a message changed that is not in a text, such as a field of a part."""

    known: bool = False
    """Whether what changes is known anyway. Then it is not noted."""

    @property
    def only_text(self) -> bool:
        """Whether only texts in messages changed."""
        elsewhere = self.meta or self.runs or self.suggestions or self.edits
        return not (elsewhere or self.more_than_text or any(self.messages.values()))

    def take(self) -> Touched:
        """Return what was noted, and begin anew."""
        taken = Touched(
            self.meta.copy(),
            self.messages.copy(),
            self.runs.copy(),
            self.suggestions.copy(),
            self.edits.copy(),
            self.more_than_text,
        )
        self.meta.clear()
        self.messages.clear()
        self.runs.clear()
        self.suggestions.clear()
        self.edits.clear()
        self.more_than_text = False
        return taken


def watch(roots: Roots, touched: Touched, runs_changed: Callable[[list[str]], None]) -> list[tuple[Any, Any]]:
    """Have all changes noted in *touched*; return what is to be unsubscribed later, each with its subscription.

    *Runs_changed* is told of runs that have changed, also where what changes is known anyway.

    Observers only take notes, and know no document: see :class:`~crdt_sessions.model.SessionDoc`.
    """
    watched: list[tuple[Any, Callable[[list[_Event]], None]]] = [
        (roots.meta, _Watch(touched, _note_meta)),
        (roots.messages, _Watch(touched, _note_messages)),
        (roots.delegated, _Watch(touched, _note_messages)),
        (roots.runs, _WatchRuns(touched, runs_changed)),
        (roots.suggestions, _Watch(touched, _note_suggestions)),
        (roots.edits, _Watch(touched, _note_edits)),
    ]
    return [(root, root.observe_deep(observer)) for root, observer in watched]


_Event = Any  # pycrdt's stubs give events no attributes


class _Observer:
    """What is told of events, as pycrdt wants it."""

    __slots__ = ()
    __signature__ = Signature([Parameter("events", Parameter.POSITIONAL_ONLY)])
    """It asks each observer for its signature; made anew, those of a session take a tenth of its start."""


class _Watch(_Observer):
    __slots__ = ("_note", "_touched")

    def __init__(self, touched: Touched, note: Callable[[Touched, _Event], None]) -> None:
        self._touched, self._note = touched, note

    def __call__(self, events: list[_Event]) -> None:
        if not self._touched.known:
            for event in events:
                self._note(self._touched, event)


class _WatchRuns(_Observer):
    __slots__ = ("_changed", "_touched")

    def __init__(self, touched: Touched, changed: Callable[[list[str]], None]) -> None:
        self._touched, self._changed = touched, changed

    def __call__(self, events: list[_Event]) -> None:
        for event in events:
            keys = _root_keys(event)
            self._changed(keys)
            if not self._touched.known:
                self._touched.runs.update(keys)


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
        elif not isinstance(event, TextEvent):
            touched.more_than_text = True


def _note_suggestions(touched: Touched, event: _Event) -> None:
    touched.suggestions.update(_root_keys(event))


def _note_edits(touched: Touched, event: _Event) -> None:
    touched.edits.update(_root_keys(event))


def _root_keys(event: _Event) -> list[str]:
    """Return the keys of the root map that an event, however deep, is about."""
    return [str(event.path[0])] if event.path else _keys(event)


def _keys(event: _Event) -> list[str]:
    return [str(key) for key in getattr(event, "keys", ())]  # only a MapEvent has keys

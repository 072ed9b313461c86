"""Remembers when each subject in a session last changed, so that a reader with a cursor finds changes at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from crdt_sessions.ids import Seq
from crdt_sessions.model import Touched

Subject = tuple[str, str]
"""``("message", id)``, ``("run", id)``, ``("meta", "")`` or ``("state", "")``."""


class ChangeIndex:
    """Subjects in the order of their last change."""

    def __init__(self) -> None:
        self._last: dict[Subject, Seq] = {}

    def note(self, touched: Touched, seq: Seq) -> None:
        """Record that the subjects in *touched* changed with log entry *seq*."""
        self.note_messages(touched.messages, seq)
        subjects: list[Subject] = [("run", run_id) for run_id in touched.runs]
        if touched.meta:
            subjects.append(("meta", ""))
        for subject in subjects:
            self._move(subject, seq)

    def note_messages(self, messages: Iterable[str], seq: Seq) -> None:
        """Record that these messages changed with log entry *seq*."""
        for message_id in messages:
            self._move(("message", message_id), seq)

    def note_elsewhere(self, seq: Seq) -> None:
        """Record that log entry *seq* may have changed ``state``, or another part that is not watched."""
        self._move(("state", ""), seq)

    def _move(self, subject: Subject, seq: Seq) -> None:
        self._last.pop(subject, None)  # re-inserted last: a dict iterates in order of insertion
        self._last[subject] = seq

    def since(self, seq: Seq) -> list[Subject]:
        """Return the subjects that changed after *seq*, oldest change first."""
        return list(self._newest_first(seq))[::-1]

    def among(self, subjects: Iterable[Subject]) -> list[Subject]:
        """Return those of *subjects* that there are, oldest change first; it costs what they are."""
        return sorted((subject for subject in subjects if subject in self._last), key=self._last.__getitem__)

    def _newest_first(self, seq: Seq) -> Iterator[Subject]:
        for subject in reversed(self._last):
            if self._last[subject] <= seq:
                return
            yield subject

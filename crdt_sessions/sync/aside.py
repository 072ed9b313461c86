"""Subjects on which the steward failed. The second time that a decision about a subject raises, it is left alone.

Such an error is a defect of ours. It costs a reload of the session, because a decision is made as a whole or not at
all. The subject may stand in the log for ever, so it must not cost a reload each time somebody touches it, or each
time the session is loaded. A subject that is left alone stays in the document as it is and has no effect; all others
go on (docs/decisions/0026-one-guard-for-what-moved.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

Kind = Literal["place", "question", "message", "run", "suggestion"]
"""The aspects of a message (its place in the order, its being an answer to a question, its content), and others."""

_OFTEN = 2
_MOST = 1024


class Aside:
    """The subjects of one session. They outlive the session's engines."""

    def __init__(self) -> None:
        self._blamed: dict[tuple[Kind, str], int] = {}
        self._last: BaseException | None = None
        self.count = 0
        """How often a subject was blamed."""

    @contextmanager
    def about(self, kind: Kind, id: str) -> Iterator[None]:
        """Blame this subject for an error raised inside, unless an inner subject is blamed for it already."""
        try:
            yield
        except BaseException as error:  # a panic of the CRDT library is one
            self._blame((kind, id), error)
            raise

    def left(self, kind: Kind, id: str) -> bool:
        """Tell whether this subject must be left alone."""
        return bool(self._blamed) and self._blamed.get((kind, id), 0) >= _OFTEN

    def all_left(self) -> list[tuple[Kind, str]]:
        """Return all subjects that are left alone."""
        return [subject for subject in self._blamed if self.left(*subject)]

    def blaming(self, kind: Kind, id: str, write: Callable[..., Any]) -> Callable[..., Any]:
        """Return *write* such that this subject is blamed for its errors; if it is left alone, they are ignored."""

        def guarded(*arguments: Any) -> None:
            try:
                with self.about(kind, id):
                    write(*arguments)
            except BaseException:
                if not self.left(kind, id):
                    raise

        return guarded

    def _blame(self, subject: tuple[Kind, str], error: BaseException) -> None:
        if error is self._last:
            return  # an inner subject is blamed for it already
        self._last = error
        self.count += 1
        self._blamed[subject] = self._blamed.pop(subject, 0) + 1
        if len(self._blamed) > _MOST:
            del self._blamed[next(iter(self._blamed))]

"""What was read of a document's runs, kept for as long as they stand as they were read.

A question to an agent has its run looked at some twenty times, and all runs of the session looked through a few
times, while it changes six times. In a long session the runs that are over would be most of the work.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from crdt_sessions.model.run_values import Run

_MOST = 16
"""Runs of which the whole value is kept, some kilobytes each: those that go on, and those that somebody looks at."""

ReadRun = tuple["Run | None", tuple[str, ...]]
"""A run as layout 1 sees it, and what was left out of it."""


ODD = object()
"""Stands for a value that is no JSON: what it says takes a closer look."""


class Mark(NamedTuple):
    """What runs are looked for by, as it stands in the document, unchecked."""

    status: Any
    asked: Any
    """The message that the request names."""
    superseded_by: Any


class KnownRuns:
    """What was read. Whoever changes the document says what stands no more.

    Within a transaction (:attr:`changing`) nothing is kept: what is read there may change again, and only the end of
    the transaction tells of it.
    """

    __slots__ = ("_marks", "_runs", "changing")

    def __init__(self) -> None:
        self._runs: dict[str, ReadRun] = {}
        self._marks: dict[str, Mark] = {}
        self.changing = False

    def run(self, run_id: str) -> ReadRun | None:
        """Return what was read of a run, if it stands."""
        return self._runs.get(run_id)

    def keep_run(self, run_id: str, read: ReadRun) -> None:
        """Note what was read of a run; the one noted first goes if there are too many."""
        if not self.changing:
            if len(self._runs) >= _MOST:
                del self._runs[next(iter(self._runs))]
            self._runs[run_id] = read

    def mark(self, run_id: str) -> Mark | None:
        """Return the mark of a run, if it is known and stands."""
        return self._marks.get(run_id)

    def keep_mark(self, run_id: str, mark: Mark) -> None:
        """Note the mark of a run."""
        if not self.changing:
            self._marks[run_id] = mark

    def forget(self, run_ids: Iterable[str]) -> None:
        """Forget these runs: they have changed, or are about to."""
        for run_id in run_ids:
            self._runs.pop(run_id, None)
            self._marks.pop(run_id, None)

    def forget_all(self) -> None:
        """Forget all runs."""
        self._runs.clear()
        self._marks.clear()

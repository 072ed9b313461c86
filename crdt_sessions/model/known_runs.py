"""What was read of a document's runs, kept for as long as they stand as they were read.

A question to an agent has its run looked at some twenty times, and all runs of the session looked through a few
times, while it changes six times. In a long session the runs that are over would be most of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crdt_sessions.model.run_values import Run

_MOST = 16
"""Runs of which the whole value is kept, some kilobytes each: those that go on, and those that somebody looks at."""

ReadRun = tuple["Run | None", tuple[str, ...]]
"""A run as layout 1 sees it, and what was left out of it."""

Key = tuple[str, str]
"""What runs are found by: an aspect, and the id that it names."""


class KnownRuns:
    """What was read. Whoever changes the document says what stands no more.

    Within a transaction (:attr:`changing`) nothing is kept: what is read there may change again, and only the end of
    the transaction tells of it.
    """

    __slots__ = ("_found", "_keys", "_runs", "_unread", "changing")

    def __init__(self) -> None:
        self._runs: dict[str, ReadRun] = {}
        self._keys: dict[str, tuple[Key, ...]] = {}
        self._found: dict[Key, dict[str, None]] = {}
        self._unread: dict[str, None] | None = None  # runs whose keys are not known; None if none are
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

    def found_by(self, key: Key) -> list[str]:
        """Return the runs that are known to be found by *key*; those of :meth:`unread` may be, too."""
        return list(self._found.get(key, ()))

    def unread(self, all_ids: Callable[[], Iterable[str]]) -> list[str]:
        """Return the runs of which is not known what they are found by; *all_ids* returns those of the document."""
        if self._unread is None:
            self._unread = dict.fromkeys(all_ids())
        return list(self._unread)

    def keep_keys(self, run_id: str, keys: tuple[Key, ...]) -> None:
        """Note what a run is found by."""
        if not self.changing and self._unread is not None and run_id in self._unread:
            del self._unread[run_id]
            self._keys[run_id] = keys
            for key in keys:
                self._found.setdefault(key, {})[run_id] = None

    def forget(self, run_ids: Iterable[str]) -> None:
        """Forget these runs: they have changed, or are about to."""
        for run_id in run_ids:
            self._runs.pop(run_id, None)
            for key in self._keys.pop(run_id, ()):
                del self._found[key][run_id]
                if not self._found[key]:
                    del self._found[key]
            if self._unread is not None:
                self._unread[run_id] = None

    def forget_all(self) -> None:
        """Forget all runs."""
        self._runs.clear()
        self._keys.clear()
        self._found.clear()
        self._unread = None

"""Whose turn it is: which of the queued runs may be claimed."""

from __future__ import annotations

from crdt_sessions.ids import Millis
from crdt_sessions.sync.records import RunRecord
from crdt_sessions.sync.runs.table import RunTable


class Turns:
    """The order in which the runs of one session begin.

    Args:
        table: the runs.
    """

    def __init__(self, table: RunTable) -> None:
        self._table = table

    def queue(self, run_id: str, now: Millis) -> RunRecord:
        """Let a queued run be claimed, if it need not wait for another one."""
        record = self._table[run_id]
        return self.make_ready(record, now) if not record.ready and self._has_turn(record) else record

    def make_ready(self, record: RunRecord, now: Millis) -> RunRecord:
        """Let a queued run be claimed."""
        self._table.notify("run.queued", record, now)
        return self._table.put(record.replace(ready=True))

    def promote(self, now: Millis) -> None:
        """Let the oldest run that waits for its turn have it, if nothing stands before it."""
        waiting = (record for record in self._table.active() if record.status == "queued")
        first = next((record for record in waiting if not record.ready and record.waits_until is None), None)
        if first is not None:
            self.queue(first.id, now)

    def _has_turn(self, record: RunRecord) -> bool:
        """Whether nothing stands before a queued run: who waits for people holds nobody up.

        A run that waited for people may come after a younger one that has begun meanwhile.
        """
        if record.policy == "parallel":
            return True
        for other in self._table.contenders(but=record.id):
            begun = (other.status == "running" or other.ready) and other.policy != "parallel"
            if other.status != "suspended" and (other.order < record.order or begun):
                return False
        return True

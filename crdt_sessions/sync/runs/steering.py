"""Messages that are meant to steer a run while it is at work, and those that came too late for it."""

from __future__ import annotations

from crdt_sessions.model import MessageHead, SessionView
from crdt_sessions.sync.records import RunRecord
from crdt_sessions.sync.runs.table import RunTable


class Steering:
    """What steers the runs of one session.

    Args:
        view: the session's document.
        table: its runs.
    """

    def __init__(self, view: SessionView, table: RunTable) -> None:
        self._view = view
        self._table = table
        self._noted: dict[str, list[str]] = {}

    def note(self, head: MessageHead) -> None:
        """Note a message, if it is meant to steer a run that is not over."""
        if head.steers is not None and self._table.is_active(head.steers):
            noted = self._noted.setdefault(head.steers, [])
            if head.id not in noted:
                noted.append(head.id)

    def untaken(self, record: RunRecord) -> list[str]:
        """Return the messages that a run which is over has not taken; once."""
        run = self._view.runs.value(record.id)
        taken = {message_id for message_id, taken in run.steers.items() if taken is True} if run is not None else ()
        return [message_id for message_id in self._noted.pop(record.id, []) if message_id not in taken]

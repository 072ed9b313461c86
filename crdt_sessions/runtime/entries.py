"""Between the steward's records and the store's entries."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from crdt_sessions.ids import ClientId, Millis
from crdt_sessions.model.checks import why_not
from crdt_sessions.storage import Delivery, Entries, RunEntry, StoredSession, WriterEntry
from crdt_sessions.sync import Records, RunRecord, Writer

_log = logging.getLogger("crdt_sessions.session")


def entries_of(records: Iterable[Records], deliveries: Sequence[Delivery]) -> Entries:
    """Return the entries to store for *records*, only the latest state of each."""
    whole = Records()
    for each in records:
        whole.runs.update(each.runs)
        whole.writers.update(each.writers)
    return Entries(
        runs=[
            RunEntry(
                run.id,
                run.agent,
                run.ready,
                Millis(run.queued_at),
                run.due_at,
                run.model_dump_json(exclude_none=True),
                run.status,
                run.answerer,
            )
            for run in whole.runs.values()
        ],
        writers=[
            WriterEntry(writer.client, writer.principal, writer.run, writer.epoch, writer.fenced_at)
            for writer in whole.writers.values()
        ],
        deliveries=deliveries,
    )


def runs_of(stored: StoredSession) -> list[RunRecord]:
    """Return the runs on record of a session.

    A record that cannot be read, since another release wrote it, must not take the session with it: it is left out,
    and the run is taken over as the document shows it, like that of an import.
    """
    found = []
    for run in stored.runs:
        try:
            found.append(RunRecord.model_validate_json(run.data))
        except ValidationError as error:
            _log.error("a run's record cannot be read: %s", "; ".join(why_not(error)), extra={"run": run.id})
    return found


def writers_of(stored: StoredSession) -> list[Writer]:
    """Return the writers on record of a session."""
    return [
        Writer(ClientId(each.client), each.principal, each.run, each.epoch, each.fenced_at) for each in stored.writers
    ]

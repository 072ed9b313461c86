"""Between the steward's records and the store's entries."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from crdt_sessions.ids import ClientId, Millis
from crdt_sessions.model import Spent
from crdt_sessions.model.checks import why_not
from crdt_sessions.storage import (
    NO_ENTRIES,
    Amounts,
    Delivery,
    Entries,
    RunEntry,
    StoredSession,
    UsageKey,
    WriterEntry,
)
from crdt_sessions.sync import Records, RunRecord, Spending, Writer

_DAY_MS = 24 * 3600 * 1000
_COUNTS = tuple(name for name in Amounts._fields if name != "cost")
_log = logging.getLogger("crdt_sessions.session")


def entries_of(records: Sequence[Records], deliveries: Sequence[Delivery]) -> Entries:
    """Return the entries to store for *records*, only the latest state of each."""
    whole = Records()
    for each in records:
        whole.runs.update(each.runs)
        whole.writers.update(each.writers)
    usage = _usage_of(spending for each in records for spending in each.spendings)
    if not (whole or deliveries or usage):
        return NO_ENTRIES
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
        usage=usage,
    )


def _usage_of(spendings: Iterable[Spending]) -> dict[UsageKey, Amounts]:
    """Return what was used, added up as the store does."""
    found: dict[UsageKey, Amounts] = {}
    for each in spendings:
        key = UsageKey(each.principal, each.at // _DAY_MS, each.after.model or "", each.after.currency or "")
        found[key] = found.get(key, Amounts()).plus(_difference(each.before or Spent(), each.after))
    return found


def _difference(before: Spent, after: Spent) -> Amounts:
    same = before.currency == after.currency
    counts = {name: (getattr(after, name) or 0) - (getattr(before, name) or 0) for name in _COUNTS}
    return Amounts(**counts, cost=(after.cost or 0) - ((before.cost or 0) if same else 0))


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

"""The part of the steward that decides about runs: admission, claim, lease, cancel, approval, the end.

::

                    ┌──────────── requeued: lease lost, handed over or back, approved or denied ───────────┐
                    ▼                                                                                      │
    request ──► queued ──── claim: epoch + 1 ────► running ──── suspended (waits for people) ──────────────┤
                  │                                   │  └──────── lease lost, attempts left ──────────────┘
                  │ cancel                            ├── result of the holder ──► completed | failed | cancelled
                  ▼                                   ├── cancel, not obeyed ────► cancelled
              cancelled                               └── no attempts left ──────► interrupted

What anybody wrote into the document is a proposal. What is decided here goes on record, is mirrored in the
document, and is restored there if somebody overwrites it. A terminal status is final.

Who waits for people holds nobody up; decision 0030 says what becomes of their question when they talk on.

Every change of a lease is final too: once lost, the clients that wrote under it are fenced (see
:mod:`crdt_sessions.sync.writers`), and a result that names another epoch than the present one counts for nothing.

:mod:`~crdt_sessions.sync.runs.steward` moves runs from one status to the next. What it asks for that: the table of
runs (`table`), what a request says (`requests`), whose turn it is (`turns`), signs of life of the holders (`leases`),
what people answered (`questions`), when a schedule is due (`schedules`), what an attempt has cost (`usage`), what
becomes of child runs (`children`). How a record is shown in the document stands in `mirror`.
"""

from crdt_sessions.sync.runs.mirror import Write
from crdt_sessions.sync.runs.requests import begins_anew
from crdt_sessions.sync.runs.steward import RunSteward
from crdt_sessions.sync.runs.table import RunDecisions

__all__ = ["RunDecisions", "RunSteward", "Write", "begins_anew"]

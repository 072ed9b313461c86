"""The store seam: an append-only log of opaque updates per session, and the records beside it.

It is cut by concern: a caller takes the Protocol that it needs, and a store of the whole service meets all of them,
which is :class:`UpdateStore`. A store knows nothing of documents or frames. Each concern has a module here; those of
the same name in ``sqlite/`` and ``postgres/`` do what it says.
``crdt_sessions.testing.store_contract`` has a suite for each concern.

What holds for every method:

* All may raise :class:`StorageError`. A call that writes returns when its effect is durable.
* When it raises :class:`StoreUnavailable`, the effect may be stored all the same: a connection to a database can
  break between the commit and its answer. Whoever goes on reads again what is stored; a session is loaded anew. When
  it raises anything else, nothing of it is stored.
* A session's own record, rows and entries are read as they were last stored. What is read across sessions may be
  behind for a second, where a method says so.
"""

from __future__ import annotations

from typing import Protocol

from crdt_sessions.storage.access import AccessRecords
from crdt_sessions.storage.attendance import AttendanceRecords
from crdt_sessions.storage.audit import AuditRecords
from crdt_sessions.storage.changes import SessionChanges
from crdt_sessions.storage.deliveries import Deliveries
from crdt_sessions.storage.lists import SessionIndex
from crdt_sessions.storage.log import SessionLog
from crdt_sessions.storage.runs import RunIndex
from crdt_sessions.storage.streams import StreamStore
from crdt_sessions.storage.usage import UsageRecords


class UpdateStore(
    SessionLog,
    SessionIndex,
    SessionChanges,
    RunIndex,
    Deliveries,
    AccessRecords,
    UsageRecords,
    AuditRecords,
    AttendanceRecords,
    StreamStore,
    Protocol,
):
    """Where sessions are kept: everything that the service asks of a store.

    Each method is described in the Protocol of its concern, such as :class:`SessionLog`, which stands in a module of
    its own with the values that it takes and returns. All but :meth:`close` may raise :class:`StorageError`.

    A call that writes returns when its effect is durable. When it raises :class:`StoreUnavailable`, the effect may be
    stored all the same, since a connection to a database can break between the commit and its answer; so what is
    stored is read again before anything else is written. When it raises anything else, nothing of it is stored.
    """

    shared: bool = False
    """Whether other processes may use it at the same time."""

    @property
    def node(self) -> str:
        """What other processes know this one by; empty if the store is not shared."""
        return ""

    async def check(self) -> None:
        """Return if the store can write now.

        Raises:
            StoreUnavailable: it cannot; the message says why.
        """
        ...

    async def close(self) -> None:
        """Release everything; calls under way are finished first."""
        ...

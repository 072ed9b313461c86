"""How a session that was loaded begins to live: its engine, its connections and its effect loop are put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from crdt_sessions.callbacks import EndOfTurn
from crdt_sessions.clock import Clock
from crdt_sessions.errors import StorageError
from crdt_sessions.ids import SessionId
from crdt_sessions.limits import Compaction, Limits, Retention, RunRules, Timing
from crdt_sessions.model import Later, SessionDoc, settled_meta
from crdt_sessions.runtime.allowances import Allowances
from crdt_sessions.runtime.audit import AuditLog
from crdt_sessions.runtime.capacity import Capacity
from crdt_sessions.runtime.claimants import Claimants
from crdt_sessions.runtime.connections import Connections
from crdt_sessions.runtime.documents import Documents
from crdt_sessions.runtime.effects import EffectLoop
from crdt_sessions.runtime.entries import runs_of, writers_of
from crdt_sessions.runtime.health import StoreHealth
from crdt_sessions.runtime.sandbox import Sandbox
from crdt_sessions.runtime.session import Session
from crdt_sessions.runtime.webhooks import Outbox
from crdt_sessions.storage import StoredSession, UpdateStore
from crdt_sessions.sync import Aside, EngineFailed, Panics, SessionEngine


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Starter:
    """What all sessions of a registry share, from which each is made. The registry says what each of them is."""

    store: UpdateStore
    clock: Clock
    limits: Limits
    timing: Timing
    rules: RunRules
    compaction: Compaction
    retention: Retention
    enforce: bool
    """Whether new structs of another principal's Yjs client are refused, or only counted."""
    capacity: Capacity
    documents: Documents
    sandbox: Sandbox | None
    outbox: Outbox
    claimants: Claimants
    allowances: Allowances
    health: StoreHealth
    audit: AuditLog
    sleeping: Callable[[SessionId], Session | None]
    """Finds the session that sleeps under a name, with its connections."""
    wake: Callable[[SessionId], None]
    """Has a session loaded that sleeps."""
    tidying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while rows of a session are folded: one session at a time."""
    turn: EndOfTurn = field(default_factory=EndOfTurn)
    """When the peers of all sessions are written to."""

    def start(
        self, stored: StoredSession, document: SessionDoc, waiting: Sequence[Later], panics: Panics, aside: Aside
    ) -> Session:
        """Make a session of what was loaded; see :data:`crdt_sessions.runtime.loading.Start`.

        Raises:
            EngineFailed: it cannot be made of that; the document is closed.
            StorageError: somebody else wrote to it while it slept; the document is closed.
        """
        record = stored.record
        sleeping = self.sleeping(record.id)
        if sleeping is not None and _was_changed(sleeping, stored):
            document.close()
            raise StorageError("the session was changed from outside while it slept; come back")
        engine = SessionEngine(
            record.id,
            document,
            after=stored.last_seq,
            settled_meta=settled_meta(record.id, record.generation, record.created_at, record.status, record.lineage),
            runs=runs_of(stored),
            writers=writers_of(stored),
            limits=self.limits,
            timing=self.timing,
            rules=self.rules,
            panics=panics,
            aside=aside,
            enforce=self.enforce,
            log_memory=self.capacity.log_memory,
            asleep=sleeping.connections.asleep if sleeping is not None else None,
        )
        for later in waiting:
            engine.waits_on_record(later)
        session = sleeping or Session(self._connections(record.id), self.store)
        loop = EffectLoop(
            record,
            engine,
            self.store,
            session.connections,
            clock=self.clock,
            compaction=self.compaction,
            rows=len(stored.rows),
            size=sum(len(row.update) for row in stored.rows),
            outbox=self.outbox,
            claimants=self.claimants,
            allowances=self.allowances,
            health=self.health,
            fold=self.documents.fold,
            retention=self.retention,
            sandbox=self.sandbox,
            audit=self.audit,
            tidying=self.tidying,
            backlog=self.capacity.backlog,
        )
        try:
            session.start(loop)
        except EngineFailed:
            document.close()
            raise
        return session

    def _connections(self, session_id: SessionId) -> Connections:
        return Connections(
            session_id,
            clock=self.clock,
            limits=self.limits,
            timing=self.timing,
            wake_up=lambda: self.wake(session_id),
            turn=self.turn,
        )


def _was_changed(session: Session, stored: StoredSession) -> bool:
    """Tell whether what is stored is not what a session had when it fell asleep: somebody else has written it."""
    asleep, was, now = session.connections.asleep, session.record, stored.record
    assert asleep is not None
    return (stored.last_seq, now.generation, now.lineage) != (asleep.head, was.generation, was.lineage)

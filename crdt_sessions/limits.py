"""Every bound and every period, in frozen groups. Units stand in the names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RunPolicyName = Literal["queue", "interrupt", "reject", "parallel"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes. What exceeds one gets a clear error, never silence."""

    max_frame_bytes: int = 16 * 1024 * 1024
    """One WebSocket message, and so one update: a device back from a week offline sends one large Step2."""

    max_document_bytes: int = 64 * 1024 * 1024
    """The encoded document. Updates that grow it further are refused with 4413."""

    max_presence_bytes: int = 16 * 1024
    """One awareness state, as JSON."""

    max_presences: int = 10_000
    """Awareness entries a session remembers, the recently removed included."""

    max_presences_per_connection: int = 16
    """Clients that one connection speaks for: itself, and tabs beside it that have none of their own."""

    max_unread_acks: int = 4096
    """Acknowledgements (type 102) a peer may leave unread before it is closed as too slow."""

    max_ack_bytes: int = 64
    """Payload of one type 102 frame."""

    log_bytes: int = 1024 * 1024
    """Memory for the updates that a live session keeps for peers that lag, counted as what they cost and not as their
    bytes; a peer that falls off is resynced by state vector."""

    total_log_bytes: int = 64 * 1024 * 1024
    """The same of all live sessions together; beyond it, those forget that were written to longest ago."""

    max_uncommitted_bytes: int = 8 * 1024 * 1024
    """Memory for the updates of a session that wait for the disk, before it stops reading from its peers."""

    total_uncommitted_bytes: int = 64 * 1024 * 1024
    """The same of all live sessions together; beyond it, those stop reading that have more than a little waiting."""

    max_wal_bytes: int = 64 * 1024 * 1024
    """The write-ahead log beside the database; it is copied into the database before it is that large."""

    max_waiting: int = 1024
    """Updates of a session that may wait for others that have not arrived; half of them on one connection."""

    max_waiting_bytes: int = 8 * 1024 * 1024
    """Memory that they may take; half of it for one connection."""

    max_body_bytes: int = 16 * 1024 * 1024
    """One HTTP request body."""

    max_sessions: int = 10_000
    """Sessions in memory. Those that nobody uses make room."""

    max_connections: int = 20_000
    """Connections of the process."""

    max_connections_per_session: int = 2_000
    """Connections to one session."""

    max_connections_per_principal: int = 500
    """Connections of one principal, where principals are known."""

    max_connections_per_tenant: int = 20_000
    """Connections of one tenant."""

    max_sessions_per_tenant: int = 1_000_000
    """Sessions a tenant may have, in the store."""

    messages_per_s: float = 2_000.0
    """WebSocket messages that are read from a connection for long. A faster peer is held back by TCP, not refused."""

    message_burst: int = 20_000
    """Messages that are read at once before that counts."""

    memory_watermark_bytes: int = 2 * 1024**3
    """Memory of the process above which idle sessions are dropped, and then no more are loaded."""

    max_lag_s: float = 1.0
    """Lag of the event loop above which no connection is taken on."""

    max_sandbox_bytes: int = 2 * 1024**3
    """Address space of each process in which foreign updates are tried."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Periods."""

    tick_s: float = 0.5
    """How often a live session looks at the clock."""

    keepalive_s: float = 20.0
    """Silence towards a peer before it gets the no-op frame; stock clients hang up after 30 s."""

    presence_expiry_s: float = 30.0
    """An awareness entry that is not renewed for this long is removed (y-protocols: 30 s)."""

    leave_grace_s: float = 3.0
    """How long the presence of an abruptly closed connection stays, waiting for the peer to come back."""

    storage_patience_s: float = 10.0
    """How long a peer's update may wait for a store that takes no writes, before the peer is told."""

    waiting_s: float = 600.0
    """How long a pending update is kept after its connection has ended."""

    silent_peer_s: float = 180.0
    """A connection that announced presence and then says nothing for this long is closed.
    Browsers wake a hidden tab's timers about once a minute, so this is several minutes."""

    send_timeout_s: float = 30.0
    """How long one frame may wait for a peer's socket."""

    idle_unload_s: float = 60.0
    """How long a session nobody uses stays in memory."""

    shutdown_s: float = 8.0
    """How long a stopping server may take to flush and close."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """When a session's rows are folded into a snapshot."""

    max_rows: int = 2000
    """Fold as soon as this many rows follow the last snapshot."""

    min_rows_on_unload: int = 50
    """Fold an unloading session if at least this many rows follow the last snapshot."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Which earlier snapshots of a session are kept when a new one is made. Named ones are always kept."""

    last: int = 5
    """This many of the newest."""

    dailies: int = 14
    """And the newest of each of the last so many days (UTC) that have one."""


@dataclass(frozen=True, slots=True)
class RunRules:
    """How runs are admitted, and when their agents are given up."""

    lease_s: float = 10.0
    """Silence of an agent after which its lease is lost."""

    longest_lease_s: float = 900.0
    """The longest lease an agent may ask for, such as one that is called by a webhook and cannot renew often."""

    gone_grace_s: float = 3.0
    """How long an agent may take to come back after its connection ended, before its lease is lost."""

    cancel_grace_s: float = 5.0
    """How long an agent may take to stop after somebody cancelled its run."""

    max_attempts: int = 3
    """Leases that may be lost before the run is given up as interrupted."""

    policy: RunPolicyName = "queue"
    """What becomes of a request while another run is active, if neither request nor session says."""

    agent_wait_s: float = 10.0
    """How long one who asks over an API that knows no queue is kept waiting for an agent that is not there."""

    default_agent: str = ""
    """Who answers a user's message where neither message nor session says; empty for nobody."""

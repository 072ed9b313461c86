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

    max_unread_acks: int = 4096
    """Acknowledgements (type 102) a peer may leave unread before it is closed as too slow."""

    max_ack_bytes: int = 64
    """Payload of one type 102 frame."""

    log_bytes: int = 1024 * 1024
    """Update bytes a live session keeps for its cursors; a peer that falls off is resynced by state vector."""

    max_uncommitted_bytes: int = 8 * 1024 * 1024
    """Update bytes a session may have waiting for the disk before it stops reading from its peers."""

    max_body_bytes: int = 16 * 1024 * 1024
    """One HTTP request body."""


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
class RunRules:
    """How runs are admitted, and when their agents are given up."""

    lease_s: float = 10.0
    """Silence of an agent after which its lease is lost."""

    longest_lease_s: float = 900.0
    """The longest lease an agent may ask for, such as one that is called by a webhook and cannot renew often."""

    gone_grace_s: float = 3.0
    """How long an agent whose connection ended may take to come back before its lease is lost."""

    cancel_grace_s: float = 5.0
    """How long an agent may take to stop after somebody cancelled its run."""

    max_attempts: int = 3
    """Leases that may be lost before the run is given up as interrupted."""

    policy: RunPolicyName = "queue"
    """What becomes of a request while another run is active, if neither request nor session says."""

    default_agent: str = ""
    """Who answers a user's message where neither message nor session says; empty for nobody."""

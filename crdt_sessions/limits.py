"""Every bound and every period, in frozen groups. Units stand in the names.

Each is declared here once: its default, the sentence that tells of it, and its least value. The settings of the
service take them from here, and so do both references.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

RunPolicyName = Literal["queue", "interrupt", "reject", "parallel"]


def _bound(default: object, text: str, *, ge: float | None = None, gt: float | None = None) -> Any:
    """Return the field of a bound.

    Args:
        default: what it is if nobody says anything else.
        text: a sentence about the number.
        ge: what it must be at the least.
        gt: what it must be more than.
    """
    least = {name: bound for name, bound in (("ge", ge), ("gt", gt)) if bound is not None}
    return field(default=default, metadata={"text": text, "least": least})


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes. What exceeds one gets a clear error, never silence."""

    # a device back from a week offline sends one large Step2
    max_frame_bytes: int = _bound(
        16 * 1024 * 1024, "A WebSocket message, and an update, may have so many bytes.", ge=1024
    )

    max_document_bytes: int = _bound(64 * 1024 * 1024, "An encoded document may have so many bytes.", ge=1024)

    max_presence_bytes: int = _bound(16 * 1024, "A presence may have so many bytes.", ge=256)

    max_presences: int = _bound(
        10_000, "A session remembers so many presences, those that left lately included.", ge=1
    )

    max_presences_per_connection: int = _bound(
        16, "Clients that one connection speaks for: itself, and tabs beside it that have none of their own."
    )

    max_unread_acks: int = _bound(
        4096, "Acknowledgements (type 102) a peer may leave unread before it is closed as too slow."
    )

    max_ack_bytes: int = _bound(64, "Payload of one type 102 frame.")

    # counted as what they cost and not as their bytes; a peer that falls off is resynced by state vector
    log_bytes: int = _bound(
        1024 * 1024, "Updates that lagging peers of a session lack may take so many bytes of memory.", ge=1024
    )

    # beyond it, those forget that were written to longest ago
    total_log_bytes: int = _bound(64 * 1024 * 1024, "Those of all sessions together may take so many bytes.", ge=1024)

    max_uncommitted_bytes: int = _bound(
        8 * 1024 * 1024,
        "What of a session waits for the disk may take so many bytes of memory before nothing more is read from it.",
        ge=1024,
    )

    # beyond it, those stop reading that have more than a little waiting
    total_uncommitted_bytes: int = _bound(
        64 * 1024 * 1024, "What of all sessions together waits for the disk may take so many bytes.", ge=1024
    )

    # it is copied into the database before it is that large
    max_wal_bytes: int = _bound(
        64 * 1024 * 1024,
        "The write-ahead log beside the database may have so many bytes; a backup that runs lets it grow.",
        ge=1024**2,
    )

    # half of them on one connection
    max_waiting: int = _bound(1024, "So many updates of a session may wait for others that have not arrived.", ge=2)

    # half of it for one connection
    max_waiting_bytes: int = _bound(8 * 1024 * 1024, "They may take so many bytes of memory.", ge=4096)

    max_body_bytes: int = _bound(16 * 1024 * 1024, "An HTTP body may have so many bytes.", ge=1024)

    max_sync_sessions: int = _bound(100, "A request to sync may name so many sessions.", ge=1)

    # a document that is larger is fetched by itself
    max_sync_bytes: int = _bound(
        16 * 1024 * 1024, "The answer to a request to sync has differences of so many bytes at the most.", ge=1024
    )

    # those that nobody uses make room
    max_sessions: int = _bound(10_000, "So many sessions may be in memory at a time.", ge=1)

    max_connections: int = _bound(20_000, "There may be so many WebSocket connections at a time.", ge=1)

    max_documents_per_socket: int = _bound(
        100, "One socket of a Hocuspocus provider may have so many documents at a time.", ge=1
    )

    # beyond it nothing more is read from the socket
    max_unauthenticated_bytes: int = _bound(
        1024 * 1024, "What a Hocuspocus provider sends before it is let in may take so many bytes.", ge=1024
    )

    max_connections_per_session: int = _bound(2_000, "One session may have so many connections at a time.", ge=1)

    max_connections_per_principal: int = _bound(
        500, "One principal may have so many connections at a time, where there are tokens.", ge=1
    )

    max_connections_per_tenant: int = _bound(20_000, "One tenant may have so many connections at a time.", ge=1)

    max_sessions_per_tenant: int = _bound(1_000_000, "A tenant may have so many sessions.", ge=1)

    max_streams_per_tenant: int = _bound(1_000_000, "A tenant may have so many durable streams.", ge=1)

    max_stream_bytes: int = _bound(1024**3, "A durable stream may have so many bytes.", ge=1024)

    # a faster peer is held back by TCP, not refused
    messages_per_s: float = _bound(
        2_000.0, "So many WebSocket messages a second are read from a connection for long.", gt=0
    )

    message_burst: int = _bound(
        20_000, "So many messages are read from a connection at once before that counts.", ge=1
    )

    memory_watermark_bytes: int = _bound(
        2 * 1024**3,
        "When the process has more bytes of memory than this, idle sessions are dropped and no more are loaded.",
        ge=1,
    )

    max_lag_s: float = _bound(
        1.0, "When the event loop is late by more seconds than this, no more connections are taken on.", gt=0
    )

    max_sandbox_bytes: int = _bound(
        2 * 1024**3,
        "Each process in which foreign updates are tried may use so many bytes of address space.",
        ge=1024**2,
    )


@dataclass(frozen=True, slots=True)
class InputLimits:
    """How much somebody who asks for a run may give the agent.

    Part of the protocol, not a setting: every peer knows before it writes whether its request will be taken.
    """

    max_bytes: int = _bound(256 * 1024, "A run's input may have so many bytes of JSON.", ge=1)

    max_depth: int = _bound(32, "It may be nested so many levels deep.", ge=1)

    max_tools: int = _bound(128, "It may name so many tools.", ge=0)

    max_context: int = _bound(128, "It may have so many items of context.", ge=0)


@dataclass(frozen=True, slots=True)
class ScheduleLimits:
    """How often something may be scheduled. Part of the protocol, not a setting."""

    min_every_ms: int = _bound(1000, "An interval has so many milliseconds at the least.", ge=1)

    max_missed: int = _bound(100, "Of the times that were missed so many, the newest, are made up for.", ge=1)

    late_ms: int = _bound(60_000, "A time that passed so many milliseconds ago was not missed yet.", ge=0)

    max_schedules: int = _bound(100, "A session has so many schedules at a time.", ge=1)


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """How far runs may ask for child runs. Part of the protocol, not a setting."""

    max_depth: int = _bound(4, "Below a run there are so many generations of children.", ge=1)

    max_children: int = _bound(64, "A run may ask for so many children in all.", ge=1)

    max_active: int = _bound(16, "So many of them may be going on at a time.", ge=1)

    max_task_bytes: int = _bound(64 * 1024, "The task of a child may have so many bytes of JSON.", ge=1)


@dataclass(frozen=True, slots=True)
class UsageLimits:
    """How much runs may use in a day (UTC) before no more begin; whatever is wanted, where it is None."""

    max_tokens_per_principal: int | None = _bound(
        None, "The runs of one principal may use so many tokens a day, read and written, before no more begin.", ge=0
    )

    max_tokens_per_tenant: int | None = _bound(
        None, "The runs of a tenant may use so many tokens a day before no more begin.", ge=0
    )

    max_cost_per_principal: float | None = _bound(
        None, "The runs of one principal may cost so much a day, in cost_currency, before no more begin.", ge=0
    )

    max_cost_per_tenant: float | None = _bound(
        None, "The runs of a tenant may cost so much a day, in cost_currency, before no more begin.", ge=0
    )

    cost_currency: str = _bound(
        "USD", "Costs are limited in this currency (ISO 4217); costs in others are not counted."
    )


@dataclass(frozen=True, slots=True)
class Timing:
    """Periods."""

    tick_s: float = _bound(0.5, "How often a live session looks at the clock.")

    keepalive_s: float = _bound(
        20.0, "Silence towards a peer before it gets the no-op frame; stock clients hang up after 30 s."
    )

    presence_expiry_s: float = _bound(
        30.0, "An awareness entry that is not renewed for this long is removed (y-protocols: 30 s)."
    )

    leave_grace_s: float = _bound(
        3.0, "How long the presence of an abruptly closed connection stays, waiting for the peer to come back."
    )

    storage_patience_s: float = _bound(
        10.0, "An update may wait so many seconds for a store that takes no writes before its peer is told.", ge=0
    )

    waiting_s: float = _bound(600.0, "How long a pending update is kept after its connection has ended.")

    silent_peer_s: float = _bound(
        180.0,
        "A connection that announced presence and then says nothing for this long is closed. Browsers wake a "
        "hidden tab's timers about once a minute, so this is several minutes.",
    )

    long_poll_s: float = _bound(
        20.0, "A long poll of a durable stream is answered after so many seconds, if nothing comes.", gt=0
    )

    away_s: float = _bound(
        60.0,
        "Somebody whose last connection, stream or sync request ended so many seconds ago is there: a webhook is not"
        " asked to wake them up.",
        ge=0,
    )

    push_period_s: float = _bound(
        15.0, "What happens for somebody within so many seconds wakes them up once, at the end.", gt=0
    )

    authentication_s: float = _bound(
        10.0,
        "A socket of a Hocuspocus provider may be without a document that it was let into for so many seconds.",
        gt=0,
    )

    send_timeout_s: float = _bound(30.0, "How long one frame may wait for a peer's socket.")

    idle_unload_s: float = _bound(
        60.0,
        "A session that nobody uses, or in which nobody writes any more, stays in memory for so many seconds; one"
        " whose clients have only looked on, for a sixtieth of that, or a tenth if it is large.",
        ge=0,
    )

    shutdown_s: float = _bound(8.0, "A stopping service may take so many seconds.", gt=0)


@dataclass(frozen=True, slots=True)
class Compaction:
    """When a session's rows are folded into a snapshot."""

    max_rows: int = _bound(2000, "After so many rows of a session they are folded into a snapshot.", ge=2)

    min_rows_on_unload: int = _bound(
        50, "Fold an unloading session if at least this many rows follow the last snapshot."
    )


@dataclass(frozen=True, slots=True)
class Retention:
    """Which earlier snapshots of a session are kept when a new one is made."""

    last: int = _bound(5, "So many of the newest versions of a session are kept.", ge=1)

    dailies: int = _bound(14, "The newest version of each of the last so many days is kept, too.", ge=0)

    named: bool = True
    """Whether those with a name are kept, too; they are, unless the past is to be erased."""


NO_PAST = Retention(last=1, dailies=0, named=False)
"""Nothing but the present is kept."""


@dataclass(frozen=True, slots=True)
class RunRules:
    """How runs are admitted, and when their agents are given up."""

    lease_s: float = _bound(10.0, "An agent loses its run after so many seconds of silence.", gt=0)

    longest_lease_s: float = _bound(
        900.0,
        "The longest lease an agent may ask for, such as one that is called by a webhook and cannot renew often.",
    )

    gone_grace_s: float = _bound(
        3.0, "An agent whose connection ended may take so many seconds to come back before it loses its run.", ge=0
    )

    cancel_grace_s: float = _bound(5.0, "An agent may take so many seconds to stop a run that was cancelled.", ge=0)

    max_attempts: int = _bound(3, "A run may lose so many agents before it is given up as interrupted.", ge=1)

    device_lease_s: float = _bound(
        10.0, "A client's device that took a tool call loses it after so many seconds without a sign of life.", ge=0
    )

    front_end_tool_s: float = _bound(
        30.0,
        "A chat client without a lasting connection may take so many seconds to bring the result of a tool before "
        "another one is given the call.",
        ge=0,
    )

    policy: RunPolicyName = _bound(  # noqa: RUF009 - it makes a field
        "queue",
        "A request while another run of its session is active waits (queue), ends that one (interrupt), is "
        "refused (reject) or begins at once (parallel).",
    )

    agent_wait_s: float = _bound(
        10.0, "A client of OpenAI's API waits so many seconds for an agent that is away before it is told so.", ge=0
    )

    default_agent: str = _bound(
        "", "Who answers a user's message where neither message nor session says; empty for nobody."
    )

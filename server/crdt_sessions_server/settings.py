"""Settings of the service: flags over environment over file over defaults."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from crdt_sessions.limits import Compaction, Limits, Retention, RunPolicyName, RunRules, Timing, UsageLimits
from crdt_sessions.model.strings import AgentName
from crdt_sessions.model.usage import Currency
from crdt_sessions.runtime import Webhook
from crdt_sessions_server.explain import explain
from crdt_sessions_server.roles import Role
from crdt_sessions_server.sources import from_environment, from_file, from_flags, read_secret
from crdt_sessions_server.webhook_file import read_webhooks

GROUPS = {
    "host": "Where it listens, and what it keeps",
    "cluster_listen": "Several nodes on one database",
    "tokens_file": "Who may come in",
    "connects_per_s": "How often something may be done",
    "expire_days": "Sessions and pages",
    "log_format": "Log",
    "max_frame_bytes": "Limits",
    "sandbox": "Safety and speed",
    "storage_patience_s": "Storage, and the end",
    "lease_s": "Runs of agents",
    "webhooks_file": "Webhooks",
}
"""The first setting of each group, and what it is called; the others follow as they stand in :class:`Settings`."""


def _as_in(group: type, name: str) -> Any:
    """Return a setting that is one of the library's bounds: default, text and least stand there, and only there."""
    declared = next(each for each in fields(group) if each.name == name)
    return Field(declared.default, description=declared.metadata["text"], **declared.metadata["least"])


Claim = Literal["sub", "exp", "iat", "jti", "name", "kind", "role", "tenant", "sessions", "agents"]
"""What we call the claims of a token that mean something here."""
PostgresUrl = Annotated[str, Field(pattern=r"^postgres(ql)?://")]


class Settings(BaseModel):
    """Everything the service can be told. ``docs/reference/settings.md`` lists it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="The service listens on this address.")
    port: int = Field(8000, ge=0, le=65535, description="It listens on this port; 0 picks a free one.")
    database: PostgresUrl | Path = Field(
        Path("sessions.db"),
        description="Sessions are kept in this SQLite file, which is made if it is missing, or in the PostgreSQL "
        "database at this URL, such as postgresql://app@db/sessions, which several services may share.",
    )
    durability: Literal["local", "quorum"] = Field(
        "local",
        description="What is acknowledged is on the disk of the database (local), or of a standby, too (quorum): "
        "then PostgreSQL must be set up to wait for one.",
    )
    cluster_listen: str | None = Field(
        None,
        description="Other nodes on the same PostgreSQL database reach this one here, so that clients may come to "
        "any of them: a host and port, such as 10.0.0.7:8001, or unix:/run/sessions/1. If it is absent, a client "
        "that comes to the wrong node is sent away.",
    )
    cluster_address: str | None = Field(
        None,
        description="They reach it at this address, if it is another one; 0.0.0.0 is none that others can reach.",
    )
    cluster_secret_file: Path | None = Field(
        None, description="All nodes share the secret of 32 bytes at least in this file, and sign with it."
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="So many processes serve on the port, each a node of its own, so that several cores are used. "
        "More than one goes with PostgreSQL. With --cluster-listen, each has the next port.",
    )
    reuse_port: bool = Field(
        False,
        description="Other processes of this user may listen on the same port; Linux spreads connections over them.",
    )
    handovers_per_s: float = Field(
        300,
        gt=0,
        description="When the node stops, it hands so many sessions a second over to others, whose clients then come "
        "back.",
    )
    tokens_file: Path | None = Field(
        None,
        description="Tokens stand in this JSON file. Where no setting tells of tokens, everybody is let in, from "
        "this machine only.",
    )
    jwt_secret: SecretStr | None = Field(
        None,
        description="Tokens are signed with this secret (HS256) of 32 bytes at least. It is given in the "
        "environment or the settings file, never on the command line.",
    )
    jwt_secret_file: Path | None = Field(
        None, description="This file holds the secret with which tokens are signed (HS256)."
    )
    jwks_url: str | None = Field(
        None, pattern=r"^https?://", description="The issuer of tokens publishes its keys (JWKS) at this URL."
    )
    jwks_file: Path | None = Field(None, description="This file holds those keys.")
    jwt_audience: str | None = Field(None, description="A token's aud must hold this.")
    jwt_issuer: str | None = Field(None, description="A token's iss must be this.")
    jwt_claims: dict[Claim, str] = Field(
        {},
        description='This says what the issuer calls our claims, such as {tenant = "org_id"}. It is given in the '
        "settings file, or as JSON in the environment.",
    )
    jwt_default_role: Role | None = Field(
        None,
        description="A token that says nothing about a role has this one; if it is absent, the token is refused.",
    )
    authorship: Literal["enforce", "record"] = Field(
        "enforce",
        description="What is new by somebody else's Yjs client is refused (enforce), or only counted (record), "
        "where there are tokens.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="X-Forwarded-For and X-Forwarded-Proto of proxies in these networks are believed, such as"
        " 10.0.0.0/8.",
    )
    tls_certificate: Path | None = Field(None, description="This PEM file holds the certificate for https and wss.")
    tls_key: Path | None = Field(None, description="This PEM file holds the certificate's key, without a passphrase.")
    connects_per_s: float = Field(
        50, gt=0, description="An address may begin so many connections and streams a second for long."
    )
    connect_burst: int = Field(2000, ge=1, description="It may begin so many at once.")
    bad_tokens_per_s: float = Field(
        0.5, gt=0, description="An address may present so many bad tokens a second for long."
    )
    bad_token_burst: int = Field(
        20, ge=1, description="It may present so many at once; then none of its tokens is looked at."
    )
    posts_per_s: float = Field(
        20, gt=0, description="A principal may post so many messages and questions a second for long."
    )
    post_burst: int = Field(200, ge=1, description="It may post so many at once.")
    claims_per_s: float = Field(50, gt=0, description="A principal may claim so many runs a second for long.")
    claim_burst: int = Field(500, ge=1, description="It may claim so many at once.")
    expire_days: float | None = Field(
        None,
        gt=0,
        description="A session is deleted for good after so many days without a change; never, if this is absent.",
    )
    auto_create: bool = Field(True, description="Joining a session that never existed creates it.")
    allowed_origins: tuple[str, ...] = Field(
        (),
        description="Pages of these web origins may connect besides the service's own, such as https://app.example.",
    )
    page: bool | None = Field(
        None, description="The demo page is served at /; if this is absent, only where there are no tokens."
    )
    log_format: Literal["console", "json"] = Field("console", description="Log lines look like this.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is at least as important as this is logged."
    )
    access_log: bool = Field(
        False,
        description="Each request is logged when it has been answered, without its query, where tokens may stand.",
    )
    max_frame_bytes: int = _as_in(Limits, "max_frame_bytes")
    max_document_bytes: int = _as_in(Limits, "max_document_bytes")
    max_presence_bytes: int = _as_in(Limits, "max_presence_bytes")
    max_presences: int = _as_in(Limits, "max_presences")
    max_uncommitted_bytes: int = _as_in(Limits, "max_uncommitted_bytes")
    total_uncommitted_bytes: int = _as_in(Limits, "total_uncommitted_bytes")
    log_bytes: int = _as_in(Limits, "log_bytes")
    total_log_bytes: int = _as_in(Limits, "total_log_bytes")
    max_wal_bytes: int = _as_in(Limits, "max_wal_bytes")
    max_waiting: int = _as_in(Limits, "max_waiting")
    max_waiting_bytes: int = _as_in(Limits, "max_waiting_bytes")
    max_body_bytes: int = _as_in(Limits, "max_body_bytes")
    max_sessions: int = _as_in(Limits, "max_sessions")
    max_connections: int = _as_in(Limits, "max_connections")
    max_connections_per_session: int = _as_in(Limits, "max_connections_per_session")
    max_connections_per_principal: int = _as_in(Limits, "max_connections_per_principal")
    max_connections_per_tenant: int = _as_in(Limits, "max_connections_per_tenant")
    max_documents_per_socket: int = _as_in(Limits, "max_documents_per_socket")
    max_sync_sessions: int = _as_in(Limits, "max_sync_sessions")
    max_sync_bytes: int = _as_in(Limits, "max_sync_bytes")
    max_unauthenticated_bytes: int = _as_in(Limits, "max_unauthenticated_bytes")
    max_sessions_per_tenant: int = _as_in(Limits, "max_sessions_per_tenant")
    max_streams_per_tenant: int = _as_in(Limits, "max_streams_per_tenant")
    max_stream_bytes: int = _as_in(Limits, "max_stream_bytes")
    messages_per_s: float = _as_in(Limits, "messages_per_s")
    message_burst: int = _as_in(Limits, "message_burst")
    memory_watermark_bytes: int = _as_in(Limits, "memory_watermark_bytes")
    max_lag_s: float = _as_in(Limits, "max_lag_s")
    sandbox: bool = Field(
        True,
        description="Foreign updates are tried in another process first. Without it, whoever may write can stop "
        "the service.",
    )
    max_sandbox_bytes: int = _as_in(Limits, "max_sandbox_bytes")
    direct: bool = Field(
        True,
        description="Plain WebSockets of sessions are served without Hypercorn in between, for speed.",
    )
    storage_patience_s: float = _as_in(Timing, "storage_patience_s")
    max_database_bytes: int | None = Field(
        None,
        ge=1024**2,
        description="The database may grow to so many bytes; to whatever the disk holds, if this is absent.",
    )
    away_s: float = _as_in(Timing, "away_s")
    push_period_s: float = _as_in(Timing, "push_period_s")
    authentication_s: float = _as_in(Timing, "authentication_s")
    idle_unload_s: float = _as_in(Timing, "idle_unload_s")
    long_poll_s: float = _as_in(Timing, "long_poll_s")
    shutdown_s: float = _as_in(Timing, "shutdown_s")
    snapshot_rows: int = _as_in(Compaction, "max_rows")
    keep_last: int = _as_in(Retention, "last")
    keep_dailies: int = _as_in(Retention, "dailies")

    lease_s: float = _as_in(RunRules, "lease_s")
    gone_grace_s: float = _as_in(RunRules, "gone_grace_s")
    cancel_grace_s: float = _as_in(RunRules, "cancel_grace_s")
    max_attempts: int = _as_in(RunRules, "max_attempts")
    device_lease_s: float = _as_in(RunRules, "device_lease_s")
    front_end_tool_s: float = _as_in(RunRules, "front_end_tool_s")
    run_policy: RunPolicyName = _as_in(RunRules, "policy")
    default_agent: AgentName | Literal[""] = Field(
        "*",
        description="This agent answers a user's message that asks nobody in particular: a name, * for any agent,"
        " or nothing for nobody.",
    )
    agent_wait_s: float = _as_in(RunRules, "agent_wait_s")
    max_tokens_per_principal: int | None = _as_in(UsageLimits, "max_tokens_per_principal")
    max_tokens_per_tenant: int | None = _as_in(UsageLimits, "max_tokens_per_tenant")
    max_cost_per_principal: float | None = _as_in(UsageLimits, "max_cost_per_principal")
    max_cost_per_tenant: float | None = _as_in(UsageLimits, "max_cost_per_tenant")
    cost_currency: Currency = _as_in(UsageLimits, "cost_currency")
    webhooks_file: Path | None = Field(
        None,
        description="This JSON file lists the webhooks for events of runs: name, url, secret and events of each.",
    )
    webhooks_to_private: bool | None = Field(
        None,
        description="Webhooks may go to this machine and to private networks; if this is absent, only where the "
        "service itself can be reached from this machine only.",
    )

    @property
    def limits(self) -> Limits:
        """The sizes, as the library takes them."""
        shared = {field.name for field in fields(Limits)} & set(type(self).model_fields)
        return Limits(**{name: getattr(self, name) for name in shared})

    @property
    def timing(self) -> Timing:
        """The periods, as the library takes them."""
        return Timing(
            idle_unload_s=self.idle_unload_s,
            shutdown_s=self.shutdown_s,
            storage_patience_s=self.storage_patience_s,
            long_poll_s=self.long_poll_s,
            authentication_s=self.authentication_s,
        )

    @property
    def rules(self) -> RunRules:
        """How runs are admitted and when agents are given up, as the library takes it."""
        return RunRules(
            lease_s=self.lease_s,
            gone_grace_s=self.gone_grace_s,
            device_lease_s=self.device_lease_s,
            front_end_tool_s=self.front_end_tool_s,
            cancel_grace_s=self.cancel_grace_s,
            max_attempts=self.max_attempts,
            policy=self.run_policy,
            agent_wait_s=self.agent_wait_s,
            default_agent=self.default_agent,
        )

    @property
    def usage_limits(self) -> UsageLimits:
        """How much runs may use in a day, as the library takes it."""
        return UsageLimits(**{field.name: getattr(self, field.name) for field in fields(UsageLimits)})

    @property
    def webhooks(self) -> list[Webhook]:
        """The webhooks in the file.

        Raises:
            ValueError: it cannot be read or is not of that form; the message shows no secret.
        """
        return read_webhooks(self.webhooks_file) if self.webhooks_file is not None else []

    @property
    def compaction(self) -> Compaction:
        """When rows are folded, as the library takes it."""
        return Compaction(max_rows=self.snapshot_rows)

    @property
    def retention(self) -> Retention:
        """Which versions are kept, as the library takes it."""
        return Retention(last=self.keep_last, dailies=self.keep_dailies)

    @property
    def loopback_only(self) -> bool:
        """Whether only this machine can reach :attr:`host`."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def cluster_secret(self) -> bytes:
        """The secret that the nodes share; nothing if there is none.

        Raises:
            ValueError: its file cannot be read.
        """
        return read_secret(self.cluster_secret_file) if self.cluster_secret_file is not None else b""

    @property
    def knows_tokens(self) -> bool:
        """Whether there are tokens."""
        sources = (self.tokens_file, self.jwt_secret, self.jwt_secret_file, self.jwks_url, self.jwks_file)
        return any(source is not None for source in sources)

    @property
    def shows_page(self) -> bool:
        """Whether the demo page is served: where there are tokens, only if somebody asked for it."""
        return not self.knows_tokens if self.page is None else self.page

    @property
    def exposed(self) -> bool:
        """Whether other machines could connect without a token: never allowed."""
        return not self.knows_tokens and not self.loopback_only

    @property
    def sends_to_private(self) -> bool:
        """Whether webhooks may go to this machine and to private networks."""
        return self.loopback_only if self.webhooks_to_private is None else self.webhooks_to_private

    @property
    def secret(self) -> bytes | None:
        """The secret with which tokens are signed.

        Raises:
            ValueError: its file cannot be read.
        """
        if self.jwt_secret_file is not None:
            return read_secret(self.jwt_secret_file)
        return self.jwt_secret.get_secret_value().encode() if self.jwt_secret is not None else None

    @property
    def proxies(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """The networks of trusted proxies.

        Raises:
            ValueError: one is none.
        """
        try:
            return [ipaddress.ip_network(network) for network in self.trusted_proxies]
        except ValueError as error:
            raise ValueError(f"trusted_proxies: {error}; give networks such as 10.0.0.0/8") from None

    @classmethod
    def load(
        cls, flags: Mapping[str, Any], file: Path | None = None, environment: Mapping[str, str] = os.environ
    ) -> Settings:
        """Read the settings: flags win over the environment, the environment over the file.

        Args:
            flags: what the command line gave.
            file: a TOML file of settings.
            environment: the environment variables.

        Raises:
            ValueError: a value is not valid, a name is unknown, or the file cannot be read. The message has a line
                for each error, and names its place.
        """
        known = tuple(cls.model_fields)
        origins = {name: get_origin(field.annotation) for name, field in cls.model_fields.items()}
        tables = [name for name, origin in origins.items() if origin in (tuple, dict)]
        sources = [from_flags(flags), from_environment(environment, known, tables)]
        if file is not None:
            sources.append(from_file(file, known, [name for name in tables if origins[name] is dict]))
        given = {name: value for source in reversed(sources) for name, value in source.values.items()}

        def place(path: Sequence[int | str]) -> str:
            name = str(path[0])
            spelled = next(source.spelled(name) for source in sources if name in source.values)
            return ".".join((spelled, *(str(part) for part in path[1:] if isinstance(given[name], dict | list))))

        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ValueError("\n".join(explain(error, place, known))) from None

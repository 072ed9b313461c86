"""Settings of the service: flags over environment over file over defaults."""

from __future__ import annotations

import ipaddress
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from crdt_sessions.limits import Compaction, Limits, Retention, RunPolicyName, RunRules, Timing
from crdt_sessions.runtime import Webhook
from crdt_sessions_server.access.permissions import Role
from crdt_sessions_server.webhooks import read_webhooks

ENV_PREFIX = "CRDT_SESSIONS_"


def read_secret(path: Path) -> bytes:
    """Return what a file holds, without the end of its line.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise ValueError(f"secret file {path}: {error.strerror}") from error


class Settings(BaseSettings):
    """Everything the service can be told. ``docs/reference/settings.md`` lists it."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    database: Path = Field(Path("sessions.db"), description="SQLite file; created if missing.")
    tokens_file: Path | None = Field(
        None, description="JSON file of tokens; without it everybody is let in, from this machine only."
    )
    jwt_secret: SecretStr | None = Field(
        None,
        description="Secret with which tokens are signed (HS256), at least 32 bytes; in the environment or the"
        " --config file only, never on the command line.",
    )
    jwt_secret_file: Path | None = Field(None, description="File that holds that secret.")
    jwks_url: str | None = Field(
        None, pattern=r"^https?://", description="Where the issuer of tokens publishes its keys (JWKS)."
    )
    jwks_file: Path | None = Field(None, description="File that holds those keys.")
    jwt_audience: str | None = Field(None, description="What a token's aud must hold.")
    jwt_issuer: str | None = Field(None, description="What a token's iss must be.")
    jwt_claims: dict[str, str] = Field(
        {},
        description='Our claims to what the issuer calls them, such as {tenant = "org_id"}; in the --config file,'
        " or as JSON in the environment.",
    )
    jwt_default_role: Role | None = Field(
        None, description="Role of tokens that say nothing about one; they are refused if absent."
    )
    authorship: Literal["enforce", "record"] = Field(
        "enforce",
        description="Whether what is new by somebody else's Yjs client is refused, or only counted, where there are"
        " tokens.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Networks of proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8."
    )
    tls_certificate: Path | None = Field(None, description="PEM file of the certificate, for https and wss.")
    tls_key: Path | None = Field(None, description="PEM file of its key.")
    connects_per_s: float = Field(
        50, gt=0, description="Connections and streams a second that an address may begin for long."
    )
    connect_burst: int = Field(2000, ge=1, description="And at once.")
    bad_tokens_per_s: float = Field(
        0.5, gt=0, description="Bad tokens a second that an address may present for long."
    )
    bad_token_burst: int = Field(20, ge=1, description="And at once; then none of its tokens is looked at.")
    posts_per_s: float = Field(20, gt=0, description="Messages and questions a second of a principal, for long.")
    post_burst: int = Field(200, ge=1, description="And at once.")
    claims_per_s: float = Field(50, gt=0, description="Claims a second of a principal, for long.")
    claim_burst: int = Field(500, ge=1, description="And at once.")
    expire_days: float | None = Field(
        None, gt=0, description="Days without a change after which a session is deleted for good; never if absent."
    )
    auto_create: bool = Field(True, description="Whether joining a session that never existed creates it.")
    allowed_origins: tuple[str, ...] = Field(
        (), description="Web origins that may connect besides the service's own, such as https://app.example."
    )
    log_format: Literal["console", "json"] = Field("console", description="How log lines look.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")
    max_frame_bytes: int = Field(
        Limits().max_frame_bytes, ge=1024, description="Largest WebSocket message and update, in bytes."
    )
    max_document_bytes: int = Field(
        Limits().max_document_bytes, ge=1024, description="Largest encoded document, in bytes."
    )
    max_presence_bytes: int = Field(Limits().max_presence_bytes, ge=256, description="Largest presence, in bytes.")
    max_presences: int = Field(
        Limits().max_presences, ge=1, description="Presences a session remembers, those that left lately included."
    )
    max_uncommitted_bytes: int = Field(
        Limits().max_uncommitted_bytes,
        ge=1024,
        description="Bytes of a session that may wait for the disk before nothing more is read from its peers.",
    )
    log_bytes: int = Field(
        Limits().log_bytes, ge=1024, description="Bytes of updates a session keeps in memory for peers that lag."
    )
    max_body_bytes: int = Field(Limits().max_body_bytes, ge=1024, description="Largest HTTP body, in bytes.")
    max_sessions: int = Field(Limits().max_sessions, ge=1, description="Sessions in memory at a time.")
    max_connections: int = Field(Limits().max_connections, ge=1, description="WebSocket connections at a time.")
    max_connections_per_session: int = Field(
        Limits().max_connections_per_session, ge=1, description="Connections to one session at a time."
    )
    max_connections_per_principal: int = Field(
        Limits().max_connections_per_principal,
        ge=1,
        description="Connections of one principal at a time, where there are tokens.",
    )
    max_connections_per_tenant: int = Field(
        Limits().max_connections_per_tenant, ge=1, description="Connections of one tenant at a time."
    )
    max_sessions_per_tenant: int = Field(
        Limits().max_sessions_per_tenant, ge=1, description="Sessions a tenant may have."
    )
    messages_per_s: float = Field(
        Limits().messages_per_s, gt=0, description="WebSocket messages a second that a connection may send for long."
    )
    message_burst: int = Field(
        Limits().message_burst, ge=1, description="Messages that a connection may send at once before that counts."
    )
    memory_watermark_bytes: int = Field(
        Limits().memory_watermark_bytes,
        ge=1,
        description="Memory of the process above which idle sessions are dropped and no more are loaded, in bytes.",
    )
    max_lag_s: float = Field(
        Limits().max_lag_s,
        gt=0,
        description="Seconds the event loop may be late before no more connections are taken on.",
    )
    sandbox: bool = Field(
        True,
        description="Whether foreign updates are tried in another process first. Without it, whoever may write can"
        " stop the service.",
    )
    max_sandbox_bytes: int = Field(
        Limits().max_sandbox_bytes, ge=1024**2, description="Address space of each of these processes, in bytes."
    )
    direct: bool = Field(
        True,
        description="Whether the socket of a plain WebSocket is taken from Hypercorn after the handshake, for speed.",
    )
    storage_patience_s: float = Field(
        Timing().storage_patience_s,
        ge=0,
        description="Seconds an update may wait for a store that takes no writes before its peer is told.",
    )
    max_database_bytes: int | None = Field(
        None, ge=1024**2, description="Size the database may grow to, in bytes; whatever the disk holds if absent."
    )
    idle_unload_s: float = Field(
        Timing().idle_unload_s, ge=0, description="Seconds a session nobody uses stays in memory."
    )
    shutdown_s: float = Field(Timing().shutdown_s, gt=0, description="Seconds a stopping service may take.")
    snapshot_rows: int = Field(
        Compaction().max_rows, ge=2, description="Rows of a session after which they are folded into a snapshot."
    )
    keep_last: int = Field(
        Retention().last, ge=1, description="Versions of a session that are kept: so many of the newest."
    )
    keep_dailies: int = Field(
        Retention().dailies, ge=0, description="And the newest version of each of the last so many days."
    )

    lease_s: float = Field(
        RunRules().lease_s, gt=0, description="Seconds of silence after which an agent loses its run."
    )
    gone_grace_s: float = Field(
        RunRules().gone_grace_s,
        ge=0,
        description="Seconds an agent whose connection ended may take to come back before it loses its run.",
    )
    cancel_grace_s: float = Field(
        RunRules().cancel_grace_s, ge=0, description="Seconds an agent may take to stop a run that was cancelled."
    )
    max_attempts: int = Field(
        RunRules().max_attempts, ge=1, description="Agents a run may lose before it is given up as interrupted."
    )
    run_policy: RunPolicyName = Field(
        RunRules().policy, description="What becomes of a request while another run of its session is active."
    )
    default_agent: str = Field(
        "*",
        max_length=100,
        description="Who answers a user's message that asks nobody in particular: a name, * for any agent,"
        " or nothing for nobody.",
    )
    webhooks_file: Path | None = Field(
        None, description="JSON file of webhooks to tell what happened to runs: name, url, secret and events of each."
    )
    webhooks_to_private: bool | None = Field(
        None,
        description="Whether webhooks may go to this machine and to private networks; if absent, only where the"
        " service itself can be reached from this machine only.",
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
        )

    @property
    def rules(self) -> RunRules:
        """How runs are admitted and when agents are given up, as the library takes it."""
        return RunRules(
            lease_s=self.lease_s,
            gone_grace_s=self.gone_grace_s,
            cancel_grace_s=self.cancel_grace_s,
            max_attempts=self.max_attempts,
            policy=self.run_policy,
            default_agent=self.default_agent,
        )

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

    def check(self) -> None:
        """Return if the settings agree with each other.

        Raises:
            ValueError: they do not; the message says what to do.
        """
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("TLS takes both: tls_certificate and tls_key")
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("the issuer's keys come from one place: jwks_url or jwks_file")

    @property
    def knows_tokens(self) -> bool:
        """Whether there are tokens."""
        sources = (self.tokens_file, self.jwt_secret, self.jwt_secret_file, self.jwks_url, self.jwks_file)
        return any(source is not None for source in sources)

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
        return [ipaddress.ip_network(network) for network in self.trusted_proxies]

    @classmethod
    def load(cls, flags: dict[str, Any], file: Path | None = None) -> Settings:
        """Read the settings.

        Args:
            flags: what the command line gave.
            file: a TOML file of settings.

        Raises:
            pydantic.ValidationError: a value is not valid, or a name is unknown.
        """

        class Configured(cls):  # type: ignore[valid-type, misc]
            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                found = (sources["init_settings"], sources["env_settings"])
                return (*found, TomlConfigSettingsSource(settings_cls, file)) if file else found

        loaded: Settings = Configured(**flags)
        return loaded

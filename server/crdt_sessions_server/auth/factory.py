"""Who knows tokens, and how often things may be done, as the settings say."""

from __future__ import annotations

from pathlib import Path

from crdt_sessions.clock import Clock
from crdt_sessions_server.auth.authorizer import Authorizer, Chain, Open
from crdt_sessions_server.auth.jwt import Fetch, JwtTokens, KeySource, from_file, from_url, key_set
from crdt_sessions_server.auth.rate_limits import Rate, Rates
from crdt_sessions_server.auth.static import StaticTokens
from crdt_sessions_server.explain import read_json
from crdt_sessions_server.settings import Settings


def authorizer_for(settings: Settings, clock: Clock) -> Authorizer:
    """Return who knows tokens, as the settings say.

    Raises:
        ValueError: a file cannot be read, or the secret is too short.
    """
    known: list[Authorizer] = []
    if settings.tokens_file is not None:
        known.append(StaticTokens.from_file(settings.tokens_file))
    keys: KeySource | None = None
    if settings.jwks_url is not None:
        keys = KeySource(from_url(settings.jwks_url), clock)
    elif settings.jwks_file is not None:
        keys = KeySource(_readable(settings.jwks_file), clock)
    if settings.secret is not None or keys is not None:
        known.append(
            JwtTokens(
                clock,
                secret=settings.secret,
                keys=keys,
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                claims=settings.jwt_claims,
                default_role=settings.jwt_default_role,
            )
        )
    return Chain(known) if len(known) > 1 else known[0] if known else Open()


def _readable(path: Path) -> Fetch:
    """Return what reads a key set, which is there now; if it is damaged later, the known keys stay."""
    found = read_json(path, "keys file")
    try:
        key_set(found)
    except ValueError as error:
        raise ValueError(f"keys file {path}: {error}") from error
    return from_file(path)


def rates_of(settings: Settings, clock: Clock) -> Rates:
    """Return how often things may be done, as the settings say."""
    return Rates(
        connects=Rate(settings.connects_per_s, settings.connect_burst),
        failures=Rate(settings.bad_tokens_per_s, settings.bad_token_burst),
        posts=Rate(settings.posts_per_s, settings.post_burst),
        claims=Rate(settings.claims_per_s, settings.claim_burst),
        time=lambda: clock.now() / 1000,
    )

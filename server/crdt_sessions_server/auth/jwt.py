"""JSON Web Tokens (RFC 7519): our own, signed with a shared secret, or an issuer's, by the keys it publishes.

Which algorithm a key may be used with is decided by the key and never by the token (RFC 8725, section 3.1): a
shared secret only ever verifies HS256, a public key only the algorithm it is for, so a token cannot choose ``none``
or have a public key taken for a secret.

The library is imported where it is used: with what it imports it takes 8 MB, which a service without such tokens
does not need. So is the one that gets keys over HTTPS.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crdt_sessions.clock import Clock
from crdt_sessions.errors import NotAuthenticated, TokenExpired
from crdt_sessions.ids import TENANT_PATTERN, Millis
from crdt_sessions.model.values import Kind
from crdt_sessions_server.auth.principal import Principal
from crdt_sessions_server.roles import Role

if TYPE_CHECKING:
    import jwt

    from crdt_sessions_server.settings import Claim

Fetch = Callable[[], Awaitable[Any]]
"""Returns a key set; raises OSError or ValueError if there is none to be had."""

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: a key for HS256 has at least as many bits as the hash."""
LEEWAY_S = 5
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
_MAX_TOKEN_CHARACTERS = 16_384
_KEEP_S, _AGAIN_S = 300.0, 10.0
_FETCH_TIMEOUT_S = 5.0
_MAX_KEYS_BYTES = 1024 * 1024

_log = logging.getLogger("crdt_sessions.access")


_FAR_S = 1e15
_Moment = Annotated[float, Field(ge=-_FAR_S, le=_FAR_S, allow_inf_nan=False)]
"""Seconds since the Unix epoch, so few that 64 bits hold them as milliseconds."""


class _Claims(BaseModel):
    model_config = ConfigDict(extra="ignore")

    sub: str = Field(min_length=1, max_length=200)
    exp: _Moment
    iat: _Moment | None = None
    jti: str | None = Field(None, max_length=200)
    name: str = ""
    kind: Kind = "human"
    role: Role
    tenant: str = Field("", pattern=rf"^$|{TENANT_PATTERN}")
    sessions: tuple[str, ...] = ("*",)
    agents: tuple[str, ...] = ("*",)


class KeySource:
    """The public keys of an issuer (JWKS, RFC 7517): kept for five minutes, and fetched anew for a key not seen yet.

    Args:
        fetch: gets the key set; see :func:`from_file` and :func:`from_url`.
        clock: the only source of time.
    """

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched: Millis | None = None
        self._fetching = asyncio.Lock()

    async def key(self, kid: str | None) -> jwt.PyJWK:
        """Return the key of that id; the only one there is if a token names none.

        Raises:
            NotAuthenticated: there is none.
        """
        if self._age_s() >= _KEEP_S or (self._find(kid) is None and self._age_s() >= _AGAIN_S):
            await self._refresh(kid)
        found = self._find(kid)
        if found is None:
            raise NotAuthenticated(why="the token is signed with a key that its issuer does not publish")
        return found

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _age_s(self) -> float:
        return float("inf") if self._fetched is None else (self._clock.now() - self._fetched) / 1000

    async def _refresh(self, kid: str | None) -> None:
        async with self._fetching:
            if self._age_s() < (_AGAIN_S if self._find(kid) is None else _KEEP_S):
                return  # somebody else just did
            try:
                listed = key_set(await self._fetch())
            except (OSError, ValueError) as error:
                _log.error("the keys of the issuer cannot be had, known ones stay: %s", error)
            else:
                self._keys = {key.key_id: key for key in listed.keys if key.algorithm_name in _ALGORITHMS}
            self._fetched = self._clock.now()  # after a failure, too: not every token is to ask who is down


def from_file(path: Path) -> Fetch:
    """Return what reads a key set from a file."""

    async def fetch() -> Any:
        return json.loads(await asyncio.to_thread(path.read_bytes))

    return fetch


def from_url(url: str) -> Fetch:
    """Return what gets a key set over HTTPS; redirects are not followed."""
    import httpx

    async def fetch() -> Any:
        try:
            async with httpx.AsyncClient(timeout=_FETCH_TIMEOUT_S) as client:
                response = await client.get(url)
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        if response.is_redirect or len(response.content) > _MAX_KEYS_BYTES:
            raise ValueError("not a key set")
        return response.json()

    return fetch


def key_set(found: Any) -> jwt.PyJWKSet:
    """Return a key set (RFC 7517, section 5) as the library has it.

    Raises:
        ValueError: it is none, or has no key that can be used.
    """
    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
        raise ValueError("it is no key set (JWKS), which is a table with a list of keys")
    import jwt

    try:
        return jwt.PyJWKSet.from_dict(found)
    except jwt.PyJWTError as error:
        raise ValueError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:  # the library trusts the form of each key
        raise ValueError("one of its keys is not of the form of a key") from error


class JwtTokens:
    """Knows JSON Web Tokens.

    Args:
        clock: the only source of time.
        secret: with which tokens of our own are signed (HS256); at least 32 bytes.
        keys: the public keys of an issuer.
        audience: what ``aud`` must hold; tokens for anybody else are refused, those for nobody if None.
        issuer: what ``iss`` must be; not looked at if None.
        claims: our claims to what the issuer calls them, such as ``{"tenant": "org_id"}``.
        default_role: of tokens that say nothing about a role; they are refused if None.

    Raises:
        ValueError: the secret is too short.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        secret: bytes | None = None,
        keys: KeySource | None = None,
        audience: str | None = None,
        issuer: str | None = None,
        claims: Mapping[Claim, str] | None = None,
        default_role: Role | None = None,
    ) -> None:
        if secret is not None:
            check_secret(secret)
        self._clock = clock
        self._secret = secret
        self._keys = keys
        self._audience = audience
        self._issuer = issuer
        self._names = dict(claims or {})
        self._default_role = default_role

    async def authorize(self, token: str | None, session: str | None) -> Principal:
        """See :meth:`Authorizer.authorize`.

        Raises:
            TokenExpired: it was good.
            NotAuthenticated: it is not, and why.
        """
        if not token or len(token) > _MAX_TOKEN_CHARACTERS or not token.isascii():
            raise NotAuthenticated
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            key, algorithms = await self._key(header)
            found = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["exp", "sub"], "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.PyJWTError as error:
            unreadable = type(error) is jwt.DecodeError  # its subclasses are about tokens that could be read
            why = "it is not a JSON Web Token, or a part of it is missing" if unreadable else error
            raise NotAuthenticated(why=f"the token is not good: {why}") from None
        return self._principal(found)

    async def _key(self, header: Mapping[str, Any]) -> tuple[Any, Sequence[str]]:
        symmetric = str(header.get("alg", "")).startswith("HS")
        if symmetric and self._secret is not None:
            return self._secret, ["HS256"]
        if not symmetric and self._keys is not None:
            kid = header.get("kid")
            key = await self._keys.key(kid if isinstance(kid, str) else None)
            return key, [key.algorithm_name]
        raise NotAuthenticated(why="the token is signed in a way that is not accepted here")

    def _principal(self, found: dict[str, Any]) -> Principal:
        named: dict[str, Any] = {name: found[theirs] for name, theirs in self._names.items() if theirs in found}
        claims = {**{key: value for key, value in found.items() if key not in self._names}, **named}
        for key in ("sessions", "agents"):  # as OAuth's scope: a list, or words
            if isinstance(claims.get(key), str):
                claims[key] = tuple(claims[key].split())
        if self._default_role is not None:
            claims.setdefault("role", self._default_role)
        try:
            said = _Claims.model_validate(claims)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
            raise NotAuthenticated(why=f"the token's claim {problem['loc'][0]}: {problem['msg']}") from None
        self._check_times(said, claims.get("nbf"))
        return Principal(
            said.sub,
            said.name,
            said.kind,
            said.role,
            said.tenant,
            said.sessions,
            said.agents,
            expires_at=Millis(int((said.exp + LEEWAY_S) * 1000)),
            issued_at=Millis(int(said.iat * 1000)) if said.iat is not None else None,
            token_id=said.jti,
        )

    def _check_times(self, said: _Claims, not_before: Any) -> None:
        now = self._clock.now() / 1000
        if now >= said.exp + LEEWAY_S:
            raise TokenExpired
        early = not_before if isinstance(not_before, int | float) else 0.0
        if now + LEEWAY_S < max(early, said.iat or 0.0):
            raise NotAuthenticated(why="the token is not good yet")

    def revision(self) -> int:
        """See :meth:`Authorizer.revision`. What a token says stays as it is; expiry is looked after elsewhere."""
        return 0


def check_secret(secret: bytes) -> None:
    """Return if *secret* can sign tokens.

    Raises:
        ValueError: it is too short.
    """
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"the secret for tokens has {len(secret)} bytes and needs {MIN_SECRET_BYTES};"
            " make one with: openssl rand -base64 48"
        )


def mint(
    secret: bytes,
    *,
    now: Millis,
    ttl_s: float,
    principal: str,
    audience: str | None = None,
    issuer: str | None = None,
    **claims: Any,
) -> str:
    """Return a token of our own.

    Args:
        secret: as the service has it.
        now: the time.
        ttl_s: for how long it is good.
        principal: whom it stands for.
        audience: ``aud``, if the service asks for one.
        issuer: ``iss``, if the service asks for one.
        claims: ``name``, ``kind``, ``role``, ``tenant``, ``sessions``, ``agents``; what is None is left out.

    Raises:
        ValueError: the secret is too short.
    """
    check_secret(secret)
    begins = now // 1000
    said = {
        "sub": principal,
        "iat": begins,
        "exp": begins + int(ttl_s),
        "jti": secrets.token_urlsafe(12),
        "aud": audience,
        "iss": issuer,
        **claims,
    }
    import jwt

    return jwt.encode({key: value for key, value in said.items() if value is not None}, secret, algorithm="HS256")

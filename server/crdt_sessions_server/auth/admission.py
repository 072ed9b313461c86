"""Admission to the service: where requests come from, how often, and who is let in."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from crdt_sessions.errors import (
    AccessDenied,
    CrdtSessionsError,
    NotAuthenticated,
    Overloaded,
    TokenExpired,
    TooMany,
)
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.asgi import Scope, header
from crdt_sessions_server.auth.grants import Grants
from crdt_sessions_server.auth.permissions import Permission
from crdt_sessions_server.auth.principal import Principal
from crdt_sessions_server.auth.rate_limits import Rates
from crdt_sessions_server.auth.revalidation import Admitted, LiveAccess

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PATIENCE_S = 10.0
_log = logging.getLogger("crdt_sessions.access")


class Admission:
    """Lets requests in, or says why not.

    Args:
        grants: knows the principal of a token.
        registry: the sessions, whose audit log hears of those that were turned away.
        rates: how often things may be done; where everybody is let in they are not counted.
        trusted_proxies: whose word about where a request comes from is taken.
    """

    def __init__(
        self, grants: Grants, registry: SessionRegistry, rates: Rates, trusted_proxies: Iterable[Network] = ()
    ) -> None:
        self.grants = grants
        self.live = LiveAccess(grants, registry.clock, registry.forget_waiting)
        self.rates = rates
        self.refused: Counter[str] = Counter()
        """Kind of error to how many requests were turned away with it."""
        self._registry = registry
        self._proxies = tuple(trusted_proxies)

    def address(self, scope: Scope) -> str:
        """Return the address that a request comes from: the first one that is not a trusted proxy's."""
        client = scope.get("client")
        address = str(client[0]) if client else ""
        for hop in reversed((header(scope, b"x-forwarded-for") or "").split(",")):
            if not self._trusts(address) or not _is_address(hop.strip()):
                break
            address = hop.strip()
        return address

    def origin(self, scope: Scope) -> str:
        """Return the scheme and host under which a client knows the service, as far as trusted proxies tell."""
        return f"{self.scheme(scope)}://{header(scope, b'host') or ''}"

    def scheme(self, scope: Scope) -> str:
        """Return the scheme by which a client knows the service."""
        client, said = scope.get("client"), header(scope, b"x-forwarded-proto")
        trusted = client is not None and self._trusts(str(client[0]))
        return said if trusted and said in ("http", "https") else str(scope.get("scheme", "http"))

    async def admit(
        self, scope: Scope, token: str | None, session: str | None, needs: Permission | None = None
    ) -> Admitted:
        """Return who makes a request, if they may.

        Args:
            scope: the request.
            token: as presented.
            session: the session's name; None if it is about none, or all.
            needs: what they must be allowed to do.

        Raises:
            NotAuthenticated, AccessDenied, BadSessionId: they may not.
            TooMany: bad tokens came from there, too often.
            Overloaded: the issuer of the token does not answer.
        """
        address, state = self.address(scope), self.grants.state
        try:
            self.rates.failures.check(address)
            async with asyncio.timeout(_PATIENCE_S):
                principal = await self.grants.authorize(token, session, needs)
        except NotAuthenticated as error:
            self.rates.failures.take(address)
            self._turn_away(error, address, session)
            if isinstance(error, TokenExpired):  # to come back with the same one is no use
                raise NotAuthenticated(why="the token has expired") from None
            raise
        except (AccessDenied, TooMany) as error:
            self._turn_away(error, address, session)
            raise
        except TimeoutError:
            raise Overloaded(what="tokens cannot be looked up") from None
        return Admitted(token, session, principal, state)

    def count_connect(self, scope: Scope, principal: Principal) -> None:
        """Count the beginning of a connection, or of a stream.

        Raises:
            TooMany: there are too many, or too many in a short time from there.
            Overloaded: there is no time for one more.
        """
        self._registry.capacity.check_room(principal.tenant, principal.id)
        if not principal.anonymous:
            self._count(lambda: self.rates.connects.take(self.address(scope)))

    @contextmanager
    def streaming(self, principal: Principal) -> Iterator[None]:
        """Count a stream as the connection it is, for as long as it lasts.

        Raises:
            TooMany: there are too many.
        """
        with self._registry.capacity.admitted(principal.tenant, principal.id):
            yield

    def count_request(self, principal: Principal, needs: Permission | None) -> None:
        """Count what a principal asks for, if that is limited.

        Raises:
            TooMany: it does so too often.
        """
        buckets = {Permission.POST: self.rates.posts, Permission.CLAIM: self.rates.claims}
        if needs in buckets and not principal.anonymous:
            bucket = buckets[needs]
            self._count(lambda: bucket.take(f"{principal.tenant}/{principal.id}"))

    def _count(self, take: Callable[[], None]) -> None:
        try:
            take()
        except TooMany as error:
            self.refused[type(error).__name__] += 1
            raise

    def _turn_away(self, error: CrdtSessionsError, address: str, session: str | None) -> None:
        self.refused[type(error).__name__] += 1
        _log.info("turned away: %s", error, extra={"address": address, "session": session})

    def _trusts(self, address: str) -> bool:
        return any(_is_address(address) and ipaddress.ip_address(address) in proxy for proxy in self._proxies)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

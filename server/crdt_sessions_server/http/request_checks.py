"""The checks that a request passes before it is answered, by its route or in front of the framework."""

from __future__ import annotations

import contextlib

from crdt_sessions.errors import AccessDenied
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.asgi import Scope, http_token
from crdt_sessions_server.auth import Admission, Admitted
from crdt_sessions_server.auth.permissions import NAMED_IN_BODY, PUBLIC, ROUTES
from crdt_sessions_server.http.origins import Origins


class RequestChecks:
    """Lets HTTP requests in, or refuses them.

    Args:
        registry: the sessions; while it lags, requests are refused.
        admission: admits principals.
        origins: which web pages may use the service.
    """

    def __init__(self, registry: SessionRegistry, admission: Admission, origins: Origins) -> None:
        self._registry = registry
        self._admission = admission
        self._origins = origins

    def check_origin(self, scope: Scope) -> None:
        """Return if the request is no page's, or one's that may use the service.

        Raises:
            AccessDenied: it may not.
        """
        self._origins.check(scope)

    async def admit(self, scope: Scope, endpoint: str | None, session: str | None = None) -> Admitted | None:
        """Return who makes a request, if they may; None if that need not be known before its route runs.

        Args:
            scope: the request.
            endpoint: the name of its route; None if there is none.
            session: the name of the session in its path, if there is one.

        Raises:
            AccessDenied, NotAuthenticated, BadSessionId: they may not.
            Overloaded: there is too much to do.
            TooMany: bad tokens came from there, too often.
        """
        self.check_origin(scope)
        if scope["method"] == "OPTIONS" or endpoint is None or endpoint in PUBLIC:
            return None  # a browser sends no token with its preflight, and a route that does not exist needs none
        self._registry.capacity.check_lag()
        if endpoint not in ROUTES:
            raise AccessDenied(what="nobody may: the table of permissions does not know this route")
        if endpoint in NAMED_IN_BODY:
            with contextlib.suppress(AccessDenied):  # whoever is known may yet be let into the session
                await self._admission.admit(scope, http_token(scope), None)  # before a stranger's body is read
            return None  # the route looks at the body, and asks for admission to the session there
        return await self._admission.admit(scope, http_token(scope), session, ROUTES[endpoint])

    def longest_body(self, endpoint: str | None) -> int:
        """Return how many bytes the body of a request may have: fewer where whoever sends it is not known."""
        longest = self._registry.limits.max_body_bytes
        return min(longest, self._registry.limits.max_unauthenticated_bytes) if endpoint in PUBLIC else longest

    def count(self, admitted: Admitted, endpoint: str) -> None:
        """Count an admitted request that this node answers, if such requests are limited.

        Raises:
            TooMany: its principal makes them too often.
        """
        self._admission.count_request(admitted.principal, ROUTES[endpoint])

"""Which web pages may use the service: one rule for HTTP and WebSockets, and what browsers are told of it."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from crdt_sessions.errors import AccessDenied
from crdt_sessions_server.asgi import App, Receive, Scope, Send, header

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_SENT = "Authorization, Content-Type, Last-Event-ID, Lease-Token, X-Device-Id, X-Session-Id, X-Run-Id"
_READ = "ETag, Location, Retry-After, WWW-Authenticate, X-Session-Id, X-Run-Id, X-Should-Retry, X-Problem-Type"
_READ += ", Stream-Next-Offset, Stream-Up-To-Date, Stream-Closed, Stream-Cursor, Stream-TTL, Stream-Expires-At"
_READ += ", Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq, Producer-Expected-Seq, Producer-Received-Seq"
"""Headers of answers that scripts of other origins may read, beside those that every script may."""
_KEPT_S = 600
"""For how long a browser need not ask again."""
_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:\s*,\s*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_MOST_LOGGED = 100

_log = logging.getLogger("crdt_sessions.access")


class Origins:
    """Knows which pages may use the service.

    A request without an Origin header is not a page's. A page of the service itself, or of an allowed origin, may.
    If the service is open to everybody on this machine, any page served from this machine may, such as that of a
    development server on another port; but the Host must be this machine's, too: otherwise a page on the web could
    reach the service by pointing its own name at 127.0.0.1.

    Args:
        allowed: origins that may besides the service's own, such as ``https://app.example``.
        loopback: whether the service is open to everybody on this machine.

    Raises:
        ValueError: one of *allowed* is no origin.
    """

    def __init__(self, allowed: Iterable[str] = (), *, loopback: bool = False) -> None:
        self._allowed = {_checked(origin) for origin in allowed}
        self._loopback = loopback
        self._logged: set[str] = set()

    def check(self, scope: Scope) -> None:
        """Return if the request is no page's, or one's that may use the service.

        Raises:
            AccessDenied: it may not. The log says what to do, once for each origin.
        """
        origin, host = header(scope, b"origin"), header(scope, b"host") or ""
        if self._loopback and not _is_loopback(_host(f"//{host}")):
            self._tell(
                host,
                "a request for the host %s was refused: without tokens the service answers to names of this machine"
                " only, such as 127.0.0.1 and localhost; to be reached by others it takes tokens (--jwt-secret-file,"
                " --jwks-url or --tokens-file)",
            )
            raise AccessDenied(what="without tokens the service answers to names of this machine only")
        if origin is None or self._may(origin, host):
            return
        self._tell(
            origin,
            "a page of the origin %s was refused: a file, or a sandboxed frame, has no origin that could be allowed;"
            " serve the page over HTTP"
            if origin == "null"
            else "a page of the origin %s was refused; to let it in, add the option --allowed-origins %s",
        )
        raise AccessDenied(what="pages of another origin; see the setting allowed_origins")

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return what an answer tells browsers: nothing to be read by pages that may not use the service."""
        origin, host = header(scope, b"origin"), header(scope, b"host") or ""
        if origin is None or not self._may(origin, host):
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _READ.encode()),
        ]

    def preflight(self, scope: Scope) -> list[tuple[bytes, bytes]] | None:
        """Return the headers that answer a browser's question before a request; None if it is none, or is refused."""
        if scope["method"] != "OPTIONS" or header(scope, b"access-control-request-method") is None:
            return None
        allowed = self.headers(scope)
        if not allowed:
            return None
        # Clients send headers of their own; OpenAI's a dozen. Who is let in may: nothing is sent along by itself.
        asked = header(scope, b"access-control-request-headers") or ""
        sent = asked if _NAMES.fullmatch(asked) else _SENT
        return [
            allowed[0],
            (b"access-control-allow-methods", _METHODS.encode()),
            (b"access-control-allow-headers", sent.encode("latin-1")),
            (b"access-control-max-age", str(_KEPT_S).encode()),
        ]

    def _may(self, origin: str, host: str) -> bool:
        if origin.lower() in self._allowed:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        own = bool(host) and parts.netloc.lower() == host.lower()
        return own or (self._loopback and parts.scheme in ("http", "https") and _is_loopback(parts.hostname))

    def _tell(self, refused: str, message: str) -> None:
        refused = ascii(refused[:200])[1:-1]
        if refused in self._logged or len(self._logged) >= _MOST_LOGGED:
            return
        self._logged.add(refused)
        _log.warning(message, *[refused] * message.count("%"))


class Cors:
    """Another ASGI application, with the headers that let pages of other origins read its answers, errors too.

    Args:
        app: answers the requests; it refuses by :meth:`Origins.check`.
        origins: who may.
    """

    def __init__(self, app: App, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        preflight = self._origins.preflight(scope)
        if preflight is not None:
            headers = [*preflight, (b"vary", b"Origin, Access-Control-Request-Headers")]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        told = [*self._origins.headers(scope), (b"vary", b"Origin")]  # also to others: a cache may keep the answer

        async def tell(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *told]}  # type: ignore[misc]
            await send(message)

        await self._app(scope, receive, tell)


def _checked(origin: str) -> str:
    """Return an origin as browsers spell it.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(origin.strip())
        parts.port  # noqa: B018  # is looked at when it is asked for
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/") or parts.query:
        raise ValueError(
            f"allowed_origins: {origin!r} is no origin; one is a scheme and a host, and a port unless it is the usual"
            " one, such as https://app.example or http://localhost:5173"
        )
    return f"{parts.scheme}://{parts.netloc}".lower()


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_loopback(host: str | None) -> bool:
    """Whether a name is this machine's in every browser (RFC 6761, section 6.3)."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

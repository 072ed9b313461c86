"""What a node says to another one with each request: who the client is, signed with the secret that they share.

The signature covers the node that is meant, so that a request is good at no other one, nor at the next process that
listens at the same address; and the request, so that it is good for nothing else. It says nothing about the client's
token, which the other node looks at itself.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from urllib.parse import quote

from crdt_sessions.errors import AccessDenied
from crdt_sessions.ids import Millis
from crdt_sessions_server.asgi import Scope, header

HEADER = "x-crdt-sessions-hop"
"""The header of requests between nodes."""
MIN_SECRET_BYTES = 32
_PLAIN = "/:@!$&'()*+,;=~"
_KEY = "crdt_sessions.hop"
_VERSION = "1"
_AGE_MS = 60_000
"""How old a request may be, or how far in the future, by the clock of who is asked."""


class WrongNode(Exception):
    """A request was meant for another node, which was here before.

    Args:
        node: that one.
    """

    def __init__(self, *, node: int) -> None:
        super().__init__(f"node {node} is not here any more")
        self.node = node


@dataclass(frozen=True, slots=True)
class Request:
    """What is signed of a request.

    Args:
        method: of HTTP; ``GET`` for a WebSocket.
        path: encoded, as it is sent.
        query: as it stands behind the question mark.
    """

    method: str
    path: str
    query: bytes = b""

    @classmethod
    def of(cls, scope: Scope) -> Request:
        """Return the request that ASGI describes. The path of a WebSocket is always spelled in one way."""
        raw = scope.get("raw_path") if scope["type"] == "http" else None
        path = quote(scope["path"], safe=_PLAIN) if raw is None else raw.partition(b"?")[0].decode("latin-1")
        return cls(scope.get("method", "GET"), path, scope["query_string"])

    @property
    def target(self) -> bytes:
        """Path and query, as they stand in the request."""
        return self.path.encode("latin-1") + (b"?" + self.query if self.query else b"")


@dataclass(frozen=True, slots=True)
class Hop:
    """What one node tells another about a request that it passes on.

    Args:
        node: the one that is asked.
        client: the address of who asked first; empty if it is a node itself.
        scheme: how that one knows the service: http or https.
    """

    node: int
    client: str = ""
    scheme: str = "http"

    def sign(self, secret: bytes, request: Request, now: Millis) -> str:
        """Return the value of the header."""
        said = [_VERSION, str(self.node), str(now), self.scheme, self.client]
        return ";".join([*said, _signature(secret, said, request)])


def read(value: str, secret: bytes, request: Request, *, me: int, now: Millis) -> Hop:
    """Return what the header of a request says.

    Args:
        value: of the header.
        secret: that the nodes share.
        request: that came with it.
        me: the node that was asked.
        now: its time.

    Raises:
        AccessDenied: it is not by a node, too old, or for another request.
        WrongNode: another node is meant.
    """
    *said, signature = value.split(";")
    if len(said) != 5 or not hmac.compare_digest(
        _signature(secret, said, request).encode(), signature.encode(errors="replace")
    ):
        raise AccessDenied(what="only nodes of the same cluster may: they share --cluster-secret-file")
    _, node, at, scheme, client = said
    if abs(now - int(at)) > _AGE_MS:
        raise AccessDenied(what="the request between nodes is too old: do their clocks differ?")
    if int(node) != me:
        raise WrongNode(node=int(node))
    return Hop(int(node), client, scheme)


def _signature(secret: bytes, said: list[str], request: Request) -> str:
    signed = json.dumps([*said, request.method, request.path, request.query.decode("latin-1")])
    return hmac.new(secret, signed.encode(), hashlib.sha256).hexdigest()


def admit(scope: Scope, secret: bytes, *, me: int, now: Millis) -> Hop:
    """Have *scope* describe the request as the client made it, if a node passes it on.

    Raises:
        AccessDenied, WrongNode: see :func:`read`.
    """
    hop = read(header(scope, HEADER.encode()) or "", secret, Request.of(scope), me=me, now=now)
    scope[_KEY] = hop
    scope["client"] = (hop.client, 0)
    if scope["type"] == "http":
        scope["scheme"] = hop.scheme
    return hop


def passed_on(scope: Scope) -> bool:
    """Tell whether another node passes the request on, so that it goes no further."""
    return _KEY in scope

"""Translates failures of httpx, websockets and the system into errors of ours.

There are three. :class:`RequestRefused`: the service itself refused. :class:`NoService`: something else answers, or
cannot be talked to in this way, and waiting does not help. :class:`ServiceUnreachable`: waiting may help.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import websockets

from crdt_sessions.errors import NoService, RequestRefused, ServiceUnreachable, UpdateError, WireError
from crdt_sessions.wire.closing import NORMAL

Obstacle = NoService | ServiceUnreachable | RequestRefused

_PROBLEM = "urn:crdt-sessions:problem:"
_COMES_BACK = {408, 425, 429}
"""Statuses below 500 that say: later."""

_CHECK = "check host, port and path: crdt-sessions serve prints its URL when it starts"


def is_final(obstacle: Exception) -> bool:
    """Whether waiting does not help somebody who has not had contact yet."""
    if isinstance(obstacle, RequestRefused):
        return obstacle.status < 500 and obstacle.status not in _COMES_BACK
    return isinstance(obstacle, NoService)


def of_failure(error: Exception, url: str) -> Obstacle:
    """Return why a request failed, or why a WebSocket could not be opened or kept.

    Args:
        error: what httpx, websockets or the system raised.
        url: the service.
    """
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, websockets.InvalidStatus):
            answer = each.response
            return of_answer(answer.status_code, answer.headers, bytes(answer.body or b""), url, everywhere=True)
        if isinstance(each, ssl.SSLError):
            return NoService(url=url, why=_of_tls(each))
    if isinstance(error, WireError | UpdateError):
        return NoService(url=url, why=f"it does not speak the sync protocol ({error}); {_CHECK}")
    if any(_speaks_no_http(each) for each in chain):
        return NoService(url=url, why=f"it does not speak HTTP; {_CHECK}")
    return ServiceUnreachable(url=url, why=_of_network(chain, error, url))


def of_answer(status: int, headers: Any, body: bytes, url: str, *, everywhere: bool = False) -> Obstacle:
    """Return what an unexpected HTTP answer means.

    Args:
        status: of the HTTP response.
        headers: a mapping of its headers.
        body: what came with it.
        url: the service.
        everywhere: whether every service has the path that was asked for.
    """
    problem = _problem(body)
    if problem is not None and (status != 404 or not everywhere):
        return RequestRefused(status=status, problem=problem)
    said = f"HTTP {status} {_phrase(status)}".rstrip()
    if status >= 500 or status in _COMES_BACK:
        return ServiceUnreachable(url=url, why=f"{said}, from what stands before the service, or is starting there")
    if problem is not None:
        return NoService(url=url, why=f"it is one, but not at that path: {_CHECK}")
    if 300 <= status < 400:
        return NoService(url=url, why=f"it redirects to {headers.get('Location', 'nowhere')}: give that address")
    kind = str(headers.get("Content-Type", "")).partition(";")[0]
    return NoService(url=url, why=f"it answers with {said}{f' ({kind})' if kind else ''}; {_CHECK}")


def of_closing(code: int | None, reason: str | None, url: str) -> ServiceUnreachable:
    """Return what the end of a connection means, if the client may come back."""
    why = reason or ("the connection was closed" if code == NORMAL.code else "the connection broke")
    return ServiceUnreachable(url=url, why=f"{why} ({code})" if code is not None and code != 1006 else why)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from, outermost first, groups with what is in them."""
    found: list[BaseException] = [error]
    seen: set[int] = set()
    while found:
        each = found.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            found += [cause for cause in (each.__cause__, each.__context__) if cause is not None]
            found += getattr(each, "exceptions", ())


def _problem(body: bytes) -> dict[str, object] | None:
    """Return the problem document of the service, if it is one."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    ours = isinstance(found, dict) and str(found.get("type", "")).startswith(_PROBLEM)
    return found if ours else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _speaks_no_http(error: BaseException) -> bool:
    if isinstance(error, websockets.InvalidMessage):
        return not isinstance(error.__cause__, EOFError)
    if isinstance(error, httpx.DecodingError):  # its body is not in the encoding that it names
        return True
    return isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error)


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or str(error)
        return f"its certificate is not trusted ({why}); SSL_CERT_FILE can name the authority's"
    return f"it does not speak TLS ({error.reason or error}); is it an http:// address?"


def _of_network(chain: list[BaseException], error: Exception, url: str) -> str:
    for each in chain:
        if isinstance(each, ConnectionRefusedError):
            return "connection refused; is the service running there, on that port?"
        if isinstance(each, socket.gaierror):
            return f"{httpx.URL(url).host!r} has no address; is the host spelled right?"
        if isinstance(each, TimeoutError | httpx.TimeoutException):
            return "no answer in time"
        if isinstance(each, EOFError | ConnectionResetError | BrokenPipeError | httpx.RemoteProtocolError):
            return "it hung up without an answer; is that the port of the service?"
    said = next((str(each) for each in reversed(chain) if isinstance(each, OSError) and str(each)), str(error))
    return said or type(error).__name__

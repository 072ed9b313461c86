"""Runs the service on Hypercorn and stops it in order, and in time, on every supported Python."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from hypercorn.config import Config
from hypercorn.protocol import ws_stream

from crdt_sessions_server.asgi import Scope
from crdt_sessions_server.cluster.addresses import Address
from crdt_sessions_server.explain import read_file
from crdt_sessions_server.log_lines import ConsoleLines, JsonLines
from crdt_sessions_server.service import Service
from crdt_sessions_server.serving.access_log import LOGGER, AccessLogger, tell_websocket
from crdt_sessions_server.serving.gc_policy import Heap
from crdt_sessions_server.serving.listener import Endpoint, Greet
from crdt_sessions_server.serving.web_server import WebServer
from crdt_sessions_server.serving.websocket import SocketConnection
from crdt_sessions_server.settings import Settings
from crdt_sessions_server.settings_check import check_settings
from crdt_sessions_server.sockets import bound, listening

_log = logging.getLogger("crdt_sessions.serve")
_GRACE_S = 1.0
_KEEP_ALIVE_S = 150.0
"""How long a connection may rest between two requests. That is longer than clients and front ends keep one (Caddy
120 s, Go 90, nginx and load balancers 60, httpx 5): one that sends while we hang up loses its request."""


def configure_logging(settings: Settings) -> None:
    """Send every logger's lines, with their ids, in one form to standard error."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.log_format == "json" else ConsoleLines())
    # What others have to say is ours to tell, unless it went wrong: SQL and requests would drown everything else.
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    logging.getLogger("crdt_sessions").setLevel(level)
    logging.getLogger(LOGGER).setLevel(logging.INFO)  # it was asked for by itself


async def serve(settings: Settings, *, announce: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: what the service was told.
        announce: called once with the URL, when connections are accepted.

    Raises:
        ValueError: the settings contradict each other, or a file they name cannot be used.
        StorageError: the database cannot be used.
        OSError: the address cannot be listened on.
    """
    _raise_file_limit()
    if settings.tls_certificate is not None and settings.tls_key is not None:
        check_tls(settings.tls_certificate, settings.tls_key)
    check_settings(settings)
    with _listen(settings) as listener, _listen_inside(settings) as (inner, address):
        heap = Heap()
        async with (
            Service(settings, free_garbage=heap.free, address=address) as service,
            heap,
            _inner(service, settings, inner),
        ):
            await _serve(service, settings, listener, announce)


def _greet_aloud(greet: Greet) -> Greet:
    def aloud(scope: Scope, token: str | None, connection: SocketConnection) -> None:
        tell_websocket(scope)
        greet(scope, token, connection)

    return aloud


def check_tls(certificate: Path, key: Path) -> None:
    """Return if the files hold a certificate and its key.

    Raises:
        ValueError: they do not, or cannot be read; the message says why.
    """
    read_file(certificate, "TLS certificate")
    read_file(key, "TLS key")

    def ask() -> str:
        """Refuse instead of waiting for somebody at a terminal, who may not be there."""
        raise ValueError(f"TLS key {key} is encrypted with a passphrase; give one that is not")

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, ask)
    except ssl.SSLError as error:
        why = (
            "the key is not the certificate's" if error.reason == "KEY_VALUES_MISMATCH" else "one is not in PEM form"
        )
        raise ValueError(f"TLS certificate {certificate} and key {key}: {why}") from error


async def _serve(
    service: Service, settings: Settings, listener: socket.socket, announce: Callable[[str], None]
) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.tls_certificate is not None else "http"
    endpoints = _endpoints(service, settings)
    async with WebServer(
        service.app,
        _configuration(settings),
        [listener],
        endpoints=endpoints,
        max_message_bytes=service.sync.max_message_bytes,
        connection=service.cluster.connection if service.cluster is not None else SocketConnection,
    ):
        announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        _log.debug("WebSockets are served %s", "directly" if endpoints else "through Hypercorn")
        await stopping.wait()
        try:
            async with asyncio.timeout(settings.shutdown_s):
                await service.stop()
        except TimeoutError:
            _log.error("gave up waiting for peers after %s s", settings.shutdown_s)


def _endpoints(service: Service, settings: Settings) -> list[Endpoint]:
    """Return what serves WebSockets without Hypercorn."""
    if not settings.direct:
        return []
    endpoints = [each.endpoint for each in (service.sync, service.y_sweet, service.hocuspocus, service.chat)]
    if settings.access_log:
        return [each._replace(greet=_greet_aloud(each.greet)) for each in endpoints]
    return endpoints


@asynccontextmanager
async def _inner(service: Service, settings: Settings, inner: socket.socket | None) -> AsyncIterator[None]:
    """Serve other nodes, if they reach this one."""
    if inner is None or service.cluster is None:
        yield
        return
    door = service.cluster.door
    configuration = _configuration(settings.model_copy(update={"tls_certificate": None, "tls_key": None}))
    async with WebServer(
        door,
        configuration,
        [inner],
        endpoints=door.endpoints(_endpoints(service, settings)),
        max_message_bytes=service.sync.max_message_bytes,
        connection=service.cluster.connection,
    ):
        yield


@contextmanager
def _listen_inside(settings: Settings) -> Iterator[tuple[socket.socket | None, str]]:
    """Listen for other nodes, if they are to reach this one; yield the socket, and the address at which they do."""
    if settings.cluster_listen is None:
        yield None, ""
        return
    address = Address.parse(settings.cluster_listen)
    with address.listen() as listener:
        yield listener, settings.cluster_address or str(address.bound(listener))


def _configuration(settings: Settings) -> Config:
    _no_compression()
    config = Config()
    config.logger_class = AccessLogger
    config.accesslog = logging.getLogger(LOGGER) if settings.access_log else None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.graceful_timeout = _GRACE_S
    config.keep_alive_timeout = _KEEP_ALIVE_S
    if settings.tls_certificate is not None and settings.tls_key is not None:
        config.certfile, config.keyfile = str(settings.tls_certificate), str(settings.tls_key)
    config.websocket_max_message_size = 2 * settings.max_frame_bytes  # ours must speak first, with 4413
    return config


def _raise_file_limit() -> None:
    """Let the process have as many sockets as the system grants: the usual 1,024 are fewer than our own limit."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _no_compression() -> None:
    """Let no WebSocket that Hypercorn serves negotiate permessage-deflate (docs/decisions/0012).

    Hypercorn offers no setting for it, and over HTTP/2 the offer is in no byte that we see; a test sees to it that
    this still works.
    """
    ws_stream.server_extensions_handshake = lambda *_: None  # type: ignore[attr-defined]


def _listen(settings: Settings) -> socket.socket:
    made = bind(settings.host, settings.port, shared=settings.reuse_port)
    try:
        return listening(made)
    except OSError as error:
        raise _cannot_listen(settings.host, settings.port, error) from error


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a socket as :func:`bound` does.

    Raises:
        OSError: it cannot be had; the message says what to do.
    """
    try:
        return bound(host, port, shared=shared)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> OSError:
    hint = _HINTS.get(error.errno or 0, "choose another --host")
    return OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}; {hint}")


_HINTS = {
    errno.EADDRINUSE: "stop what listens there, or choose another --port",
    errno.EACCES: "choose another --port: those below 1024 are for the superuser",
    errno.EPERM: "choose another --port: those below 1024 are for the superuser",
}

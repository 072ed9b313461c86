"""Runs the service on Hypercorn and stops it in order, and in time, on every supported Python."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import structlog
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from hypercorn.protocol import ws_stream

from crdt_sessions_server.app import Service
from crdt_sessions_server.handshake import greeting
from crdt_sessions_server.heap import Heap
from crdt_sessions_server.settings import Settings
from crdt_sessions_server.sync_endpoint import PREFIX

_log = logging.getLogger("crdt_sessions.serve")
_GRACE_S = 1.0


def configure_logging(settings: Settings) -> None:
    """Send every logger's lines, with their ids, through one renderer to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)


async def serve(settings: Settings, *, announce: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: what the service was told.
        announce: called once with the URL, when connections are accepted.

    Raises:
        ValueError: the settings contradict each other.
        StorageError: the database cannot be used.
        OSError: the address cannot be listened on.
    """
    _raise_file_limit()
    listener = _listen(settings.host, settings.port)
    async with Service(settings) as service, Heap():
        with ExitStack() as stack:
            if settings.direct:
                stack.enter_context(greeting(PREFIX, service.sync.max_message_bytes, service.sync.greet))
            await _serve(service, settings, listener, announce)


async def _serve(
    service: Service, settings: Settings, listener: socket.socket, announce: Callable[[str], None]
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Connections whose client does not hang up are cancelled at the end; asyncio calls that an error.
        if not (stopping.is_set() and isinstance(context.get("exception"), asyncio.CancelledError)):
            loop.default_exception_handler(context)

    loop.set_exception_handler(report)

    async def until_stopped() -> None:
        """Hypercorn's shutdown trigger: it must not return before every socket is closed (Python >= 3.12.1)."""
        await stopping.wait()
        try:
            async with asyncio.timeout(settings.shutdown_s):
                await service.stop()
        except TimeoutError:
            _log.error("gave up waiting for peers after %s s", settings.shutdown_s)

    @service.app.before_serving
    async def ready() -> None:
        host, port = listener.getsockname()[:2]
        scheme = "https" if settings.tls_certificate is not None else "http"
        announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")

    serving = asyncio.create_task(
        hypercorn_serve(service.app, _configuration(settings, listener), shutdown_trigger=until_stopped)
    )
    stop_seen = asyncio.create_task(stopping.wait())
    await asyncio.wait({serving, stop_seen}, return_when=asyncio.FIRST_COMPLETED)
    stop_seen.cancel()
    # An idle keep-alive connection can hold Hypercorn's server open for ever; nothing of ours is behind it.
    await asyncio.wait({serving}, timeout=settings.shutdown_s + 2 * _GRACE_S)
    if not serving.done():
        serving.cancel()
        await asyncio.wait({serving}, timeout=_GRACE_S)
    if serving.done() and not serving.cancelled():
        serving.result()


def _configuration(settings: Settings, listener: socket.socket) -> Config:
    _no_compression()
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.graceful_timeout = _GRACE_S
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
    """Let no WebSocket negotiate permessage-deflate (docs/decisions/0012-no-compression-of-frames.md).

    Hypercorn offers no setting for it; a test sees to it that this still works.
    """
    ws_stream.server_extensions_handshake = lambda *_: None  # type: ignore[attr-defined]


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(1024)
    listener.setblocking(False)
    return listener

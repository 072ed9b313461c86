"""The library's MCP server: started with the first request, and stopped with the service.

It is an ASGI application of its own, with tasks of its own for sessions of the older protocol. A service that nobody
asks for MCP neither imports it nor runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crdt_sessions.errors import ShuttingDown
from crdt_sessions_server.asgi import App, Scope
from crdt_sessions_server.auth import Principal

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

_API = "crdt_sessions.api"
_MOST_SESSIONS = 1000
"""Sessions of the older protocol at the same time."""
_IDLE_S = 1800.0
"""A session of the older protocol that is not used for so long is forgotten."""
_UNREAD_S = 60.0
_INSIDE = "http://localhost"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request.

    Args:
        principal: who it is.
        token: what they have presented.
        address: where they are.
    """

    principal: Principal
    token: str | None
    address: str


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer that has begun.

    Args:
        status: its status.
        headers: its headers.
        events: the rest. Whoever does not read it to its end hangs up.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    events: Events

    async def body(self) -> AsyncGenerator[bytes, None]:
        """Yield the rest; hang up at the end."""
        self.events.is_read()
        try:
            more = True
            while more and (event := await self.events.next()) is not None:
                more = event.get("more_body", False)
                if event.get("body"):
                    yield event["body"]
        finally:
            self.events.hang_up()


class Host:
    """Answers requests with the library's server.

    Args:
        max_body_bytes: the longest body that is taken.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._manager: StreamableHTTPSessionManager | None = None
        self._running: asyncio.Task[None] | None = None
        self._exchanges: set[asyncio.Task[None]] = set()
        self._starting = asyncio.Lock()
        self._closed = False

    @property
    def installed(self) -> bool:
        """Whether the package ``mcp`` is there."""
        return find_spec("mcp") is not None

    async def answer(self, app: App, scope: Scope, body: bytes, caller: Caller) -> Begun:
        """Return the answer to a request once it has begun.

        Args:
            app: the service.
            scope: the request.
            body: the whole body.
            caller: in whose name tools and resources are used.

        Raises:
            ShuttingDown: the service is about to stop.
        """
        manager = await self._started()
        events = Events(body)
        task = asyncio.create_task(self._run(manager, _named(app, scope, caller), events), name="an MCP request")
        self._exchanges.add(task)
        task.add_done_callback(self._exchanges.discard)
        try:
            first = await events.next()
        except asyncio.CancelledError:
            events.hang_up()
            raise
        if first is None:
            await task  # it raises what went wrong
            raise ShuttingDown
        events.expect_reader()
        return Begun(first["status"], list(first.get("headers", ())), events)

    async def close(self) -> None:
        """End all answers and all sessions; nothing is answered any more."""
        self._closed = True
        for task in (*self._exchanges, *([self._running] if self._running is not None else [])):
            await _ended(task)
        self._manager = None

    async def _started(self) -> StreamableHTTPSessionManager:
        async with self._starting:
            if self._closed:
                raise ShuttingDown
            if self._manager is None:
                await asyncio.to_thread(
                    import_module, "crdt_sessions_server.mcp.server"
                )  # others are served meanwhile
                self._manager = self._made()
                started = asyncio.Event()
                running = _run_until_cancelled(self._manager, started)
                self._running = asyncio.create_task(running, name="the MCP server")
                await started.wait()
            return self._manager

    def _made(self) -> StreamableHTTPSessionManager:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from crdt_sessions_server.mcp.api import Api
        from crdt_sessions_server.mcp.server import build

        def api_of(context: Any) -> Api:
            found = context.request.scope[_API]
            assert isinstance(found, Api)
            return found

        return StreamableHTTPSessionManager(
            build(api_of),
            max_request_body_size=self._max_body_bytes,
            max_sessions=_MOST_SESSIONS,
            session_idle_timeout=_IDLE_S,
        )

    async def _run(self, manager: StreamableHTTPSessionManager, scope: Scope, events: Events) -> None:
        try:
            await manager.handle_request(scope, events.receive, events.send)
        finally:
            events.end()


class Events:
    """What passes between the library's application and the answer that is made of it.

    The application is never cancelled: it ends by itself when it hears that the client has hung up, and keeps its
    books in order then. Clients of sessions hang up as soon as they have what they asked for.

    Args:
        body: of the request.
    """

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._waiting: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(1)
        self._gone = asyncio.Event()
        self._unread: asyncio.TimerHandle | None = None

    async def receive(self) -> dict[str, Any]:
        """Return what the client does next."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Any) -> None:
        """Take a part of the answer, once the one before was taken on."""
        if not self._gone.is_set():
            await self._room.acquire()
            self._waiting.put_nowait(event)

    def end(self) -> None:
        """Say that there is no more of it."""
        self._waiting.put_nowait(None)

    async def next(self) -> dict[str, Any] | None:
        """Return the next part of the answer; None if there is no more."""
        event = await self._waiting.get()
        self._room.release()
        return event

    def expect_reader(self) -> None:
        """Hang up if nobody reads the answer: it was thrown away, as its client was gone before it was sent."""
        self._unread = asyncio.get_running_loop().call_later(_UNREAD_S, self.hang_up)

    def is_read(self) -> None:
        """Say that somebody reads the answer, and hangs up in the end."""
        if self._unread is not None:
            self._unread.cancel()

    def hang_up(self) -> None:
        """Say that the client is not there any more, or has all that it wants."""
        self._gone.set()
        self._room.release()


def _named(app: App, scope: Scope, caller: Caller) -> Scope:
    """Return a request with the name of its caller: for the library, which binds sessions to it, and for us."""
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken

    from crdt_sessions.client.service import ServiceClient
    from crdt_sessions_server.http.inside import Inside
    from crdt_sessions_server.mcp.api import Api

    client = ServiceClient(_INSIDE, caller.token, transport=Inside(app, caller.address))
    who = f"{caller.principal.tenant}/{caller.principal.id}"
    return {
        **scope,
        "user": AuthenticatedUser(AccessToken(token="", client_id=who, scopes=[])),
        _API: Api(client),
    }


async def _run_until_cancelled(manager: StreamableHTTPSessionManager, started: asyncio.Event) -> None:
    async with manager.run():
        started.set()
        await asyncio.get_running_loop().create_future()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait({task})

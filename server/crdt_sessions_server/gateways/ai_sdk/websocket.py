"""``WebSocketChatTransport`` of AI SDK 7: several requests at once on one WebSocket, each with counted chunks.

Quart queues incoming messages without bound. So this endpoint stands in front of Quart, like the sync endpoint, and
uses a socket of our own where the listener has one.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any

from pydantic import ValidationError

from crdt_sessions.errors import AccessDenied, BadValue, CrdtSessionsError, ShuttingDown
from crdt_sessions.ids import SessionId
from crdt_sessions.model.checks import parse_json
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.wire.closing import NORMAL, Closing, closing_for
from crdt_sessions_server.asgi import App, Receive, Scope, Send, websocket_token
from crdt_sessions_server.auth import Admission, Admitted, Permission
from crdt_sessions_server.gateways.ai_sdk import inbound
from crdt_sessions_server.gateways.ai_sdk.chunks import Chunk, follow
from crdt_sessions_server.gateways.ai_sdk.inbound import ChatRequest, string
from crdt_sessions_server.gateways.ai_sdk.routes import PATH, find_run
from crdt_sessions_server.gateways.front_end import FrontEnd
from crdt_sessions_server.gateways.who_asks import admit_to
from crdt_sessions_server.http.complaints import complaints
from crdt_sessions_server.http.origins import Origins
from crdt_sessions_server.http.streaming import compact
from crdt_sessions_server.serving.asgi_channel import Departures
from crdt_sessions_server.serving.listener import Endpoint
from crdt_sessions_server.serving.socket_forwarding import Relay, SocketForwarder
from crdt_sessions_server.serving.text_socket import AsgiTextSocket, OwnTextSocket, TextSocket
from crdt_sessions_server.serving.websocket import SocketConnection

_MAX_STREAMS = 32
"""Most requests that one WebSocket may have under way."""
_NOT_JSON = 1007
_LAST = ("end", "error", "no-active")
"""Kinds of the last frame of an answer."""


class ChatSockets:
    """The endpoint of chat WebSockets around another ASGI application.

    Args:
        app: serves all other requests; it also refuses pages of other origins, before the handshake.
        registry: the sessions.
        admission: admits requests.
        origins: the origins whose pages may connect.
        patience_s: after so long, a client that reads nothing is disconnected.
        elsewhere: the other nodes, if there are any.
    """

    def __init__(
        self,
        app: App,
        registry: SessionRegistry,
        admission: Admission,
        origins: Origins,
        *,
        patience_s: float,
        elsewhere: SocketForwarder | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        self._app = app
        self._registry = registry
        self._admission = admission
        self._origins = origins
        self._patience = patience_s
        self._departures = Departures()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> Endpoint:
        """This endpoint as our listener serves it."""
        return Endpoint(PATH, self.greet, self.accepts, text=True)

    def accepts(self, scope: Scope) -> bool:
        """Whether a request is for this endpoint and its origin is allowed."""
        try:
            self._origins.check(scope)
        except AccessDenied:
            return False
        return bool(scope["path"] == PATH)

    def greet(self, scope: Scope, token: str | None, connection: SocketConnection) -> None:
        """Serve a WebSocket after its handshake; return at once."""
        task = asyncio.create_task(self._serve_own(scope, token, connection))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "websocket" or scope["path"] != PATH or not self.accepts(scope):
            await self._app(scope, receive, send)
            return
        if (await receive())["type"] != "websocket.connect":
            return
        token, subprotocol = websocket_token(scope)
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        await self._serve(scope, token, AsgiTextSocket(receive, send, self._departures))

    async def stop(self) -> None:
        """End all conversations on our own sockets; return when each client has been told."""
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(set(self._serving))

    async def _serve_own(self, scope: Scope, token: str | None, connection: SocketConnection) -> None:
        socket = OwnTextSocket(connection, self._patience)
        try:
            await self._serve(scope, token, socket)
        except asyncio.CancelledError:  # the service stops
            closing = closing_for(ShuttingDown())
            await socket.close(closing.code, closing.reason)
        finally:
            connection.abort()  # nothing else closes it

    async def _serve(self, scope: Scope, token: str | None, socket: TextSocket) -> None:
        try:
            admitted = await self._admission.admit(scope, token, None)  # read nothing before the client is known
            self._admission.count_connect(scope, admitted.principal)
            with self._admission.streaming(admitted.principal):
                conversation = _Conversation(self._registry, self._admission, scope, token, socket, self._elsewhere)
                if await conversation.run(admitted):
                    await socket.close(1000, "")
                else:
                    await socket.close(_NOT_JSON, "frames are JSON objects")
        except CrdtSessionsError as error:
            closing = closing_for(error)
            await socket.close(closing.code, closing.reason)


def _parsed(frame: str | bytes) -> Any:
    try:
        return parse_json(frame)
    except (ValueError, RecursionError, BadValue):
        return None


class _Conversation:
    """The requests of one WebSocket, and their answers."""

    def __init__(
        self,
        registry: SessionRegistry,
        admission: Admission,
        scope: Scope,
        token: str | None,
        socket: TextSocket,
        elsewhere: SocketForwarder | None,
    ) -> None:
        self._elsewhere = elsewhere
        self._registry = registry
        self._admission = admission
        self._scope = scope
        self._token = token
        self._socket = socket
        self._page = uuid.uuid4().hex
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._working: list[FrontEnd] = []
        """Streams that were given a call, which the page does meanwhile."""
        self._running: set[asyncio.Task[None]] = set()  # holds more if a client uses an id twice

    async def run(self, admitted: Admitted) -> bool:
        """Answer until the client disconnects; return False if it sends something other than JSON objects.

        Raises:
            CrdtSessionsError: the client lost access, or does not read.
        """
        try:
            async with contextlib.aclosing(self._frames()) as frames:
                async for frame in self._admission.live.following(admitted, frames):
                    if not isinstance(frame, dict):
                        return False
                    await self._take(frame)
            return True
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            for front in self._working:
                await front.gone()

    async def _frames(self) -> AsyncGenerator[Any, None]:
        async with contextlib.aclosing(self._socket.messages()) as messages:
            async for message in messages:
                yield _parsed(message)

    async def _take(self, frame: dict[str, Any]) -> None:
        request_id = str(frame.get("requestId", "")).encode(errors="replace").decode()
        kind = frame.get("type")
        if kind == "abort":  # closed pages send it too, so it stops this stream and not the run
            task = self._streams.pop(request_id, None)
            if task is not None:
                task.cancel()
        elif kind in ("send", "resume") and len(self._running) >= _MAX_STREAMS:
            await self._tell("error", request_id, errorText=f"more than {_MAX_STREAMS} requests at once")
        elif kind in ("send", "resume"):
            answer = self._send if kind == "send" else self._resume
            task = asyncio.create_task(self._answer(request_id, frame, answer(request_id, frame)))
            self._streams[request_id] = task
            self._running.add(task)
            task.add_done_callback(lambda _: self._ended(request_id, task))

    def _ended(self, request_id: str, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._streams.get(request_id) is task:
            del self._streams[request_id]

    async def _answer(self, request_id: str, frame: dict[str, Any], answering: Coroutine[Any, Any, None]) -> None:
        try:
            await answering
        except CrdtSessionsError as error:
            await self._tell("error", request_id, errorText=str(error))
        except ValidationError as error:
            field, message = complaints(error, frame)[0]
            await self._tell("error", request_id, errorText=f"not a chat request: {field or 'it'} {message}")
        except UnicodeEncodeError:
            await self._tell("error", request_id, errorText="not a chat request: a text holds half a surrogate pair")

    async def _send(self, request_id: str, frame: dict[str, Any]) -> None:
        body = frame.get("body") if isinstance(frame.get("body"), dict) else {}
        data = ChatRequest.model_validate({**(body or {}), **frame})
        admitted, name = await admit_to(self._admission, self._scope, self._token, data.id, Permission.POST)
        if await self._passed_on(name, frame):
            return
        run, known = await inbound.receive(self._registry, name, data, admitted.principal)
        front = FrontEnd(self._registry, admitted.principal, data.tools, self._page, lasting=True)
        await self._stream(request_id, admitted, name, run.id, known, front)

    async def _resume(self, request_id: str, frame: dict[str, Any]) -> None:
        name = str(frame.get("id", ""))
        admitted, session = await admit_to(self._admission, self._scope, self._token, name, Permission.READ)
        if await self._passed_on(session, frame):
            return
        body = frame.get("body")
        run = await find_run(self._registry, session, string(body.get("runId")) if isinstance(body, dict) else None)
        if run is None:
            await self._tell("no-active", request_id)
            return
        await self._tell("start", request_id)
        front = FrontEnd(self._registry, admitted.principal, page=self._page, lasting=True, looks=True)
        await self._stream(request_id, admitted, session, run.id, (), front)

    async def _passed_on(self, session: SessionId, frame: dict[str, Any]) -> bool:
        """Have another node answer a frame if it has the session; tell whether it has."""
        if self._elsewhere is None:
            return False

        async def carry(relay: Relay) -> Closing:
            await relay.send(compact(frame))
            async for said in relay.messages():
                text = said if isinstance(said, str) else said.decode()
                await self._socket.send(text)
                if parse_json(text)["type"] in _LAST:
                    return NORMAL
            return relay.closing

        closing = await self._elsewhere.follow(session, self._scope, carry)
        if closing not in (None, NORMAL):  # the node has gone: clients come back, and go on
            await self._socket.close(closing.code, closing.reason)
        return closing is not None

    async def _stream(
        self,
        request_id: str,
        admitted: Admitted,
        name: SessionId,
        run_id: str,
        known: Sequence[dict[str, Any]],
        front: FrontEnd,
    ) -> None:
        try:
            await self._tell_chunks(request_id, admitted, follow(self._registry, name, run_id, known, front))
        finally:
            if front.works:
                self._working.append(front)
        if len(self._working) > _MAX_STREAMS:
            await self._working.pop(0).gone()
        await self._tell("end", request_id)

    async def _tell_chunks(
        self, request_id: str, admitted: Admitted, chunks: AsyncGenerator[list[Chunk], None]
    ) -> None:
        sequence = 0
        async for batch in self._admission.live.following(admitted, chunks):
            for chunk in batch:
                await self._tell("chunk", request_id, sequence=sequence, chunk=chunk)
                sequence += 1

    async def _tell(self, kind: str, request_id: str, **more: Any) -> None:
        await self._socket.send(compact({"type": kind, "requestId": request_id, **more}))

"""Keeps a replica connected: dials, speaks, comes back with backoff, and gives up when told to stay away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from urllib.parse import urlencode, urlsplit, urlunsplit

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket

from crdt_sessions.client.backoff import Backoff
from crdt_sessions.client.token import Token, fresh
from crdt_sessions.clock import Clock
from crdt_sessions.errors import BadDocument, ConnectionClosed, UpdateError, WireError
from crdt_sessions.ids import SessionId
from crdt_sessions.pulse import Pulse
from crdt_sessions.sync import Replica
from crdt_sessions.wire.closing import is_permanent

_log = logging.getLogger("crdt_sessions.client")
_SILENCE_S = 45.0  # the server says something every 20 s
_RENEW_CHECK_S = 3.0


class Connection:
    """The connection of one replica to the service.

    Args:
        url: the service.
        session: the session.
        token: if the service asks for one.
        replica: what is kept in sync.
        clock: the only source of time.
        changed: beaten whenever something arrives or the connection comes or goes.
        rng: source of jitter.
        lease: token of a run's lease, if this is the connection of its holder.
        heartbeat_s: how often to look whether something is to be said.

    Raises:
        ValueError: *url* is not the URL of a service.
    """

    def __init__(
        self,
        url: str,
        session: SessionId,
        token: Token | None,
        replica: Replica,
        *,
        clock: Clock,
        changed: Pulse,
        rng: random.Random,
        lease: str | None = None,
        heartbeat_s: float | None = None,
    ) -> None:
        self._endpoint = _endpoint(url, session)
        self._token = token
        self._serve(replica, lease, heartbeat_s)
        self._clock = clock
        self._changed = changed
        self._backoff = Backoff(rng=rng)
        self._about = {"session": session}
        self._outgoing = asyncio.Event()
        self._online = asyncio.Event()
        self._online.set()

    def wake(self) -> None:
        """Send what the replica has to send."""
        self._outgoing.set()

    def go_on(self, replica: Replica, *, lease: str | None = None, heartbeat_s: float | None = None) -> None:
        """Keep another replica connected, one that goes on where the other was. Arguments as above."""
        self._serve(replica, lease, heartbeat_s)
        self._outgoing.set()

    def _serve(self, replica: Replica, lease: str | None, heartbeat_s: float | None) -> None:
        self._replica, self._lease = replica, lease
        self._look_every_s = min(_RENEW_CHECK_S, heartbeat_s or _RENEW_CHECK_S)

    def go_offline(self) -> None:
        """Drop the connection and do not come back until :meth:`go_online`."""
        self._online.clear()
        self._outgoing.set()

    def go_online(self) -> None:
        """Come back."""
        self._online.set()

    async def keep_up(self) -> None:
        """Stay connected until cancelled.

        Raises:
            ConnectionClosed: the server does not want this peer back.
            TooLarge: what is to be sent is more than the server would take.
        """
        while True:
            await self._online.wait()
            try:
                async with open_websocket(
                    self._address(await fresh(self._token)),
                    max_size=2 * self._replica.limits.max_frame_bytes,
                    user_agent_header=None,
                    compression=None,
                    ping_interval=None,  # the protocol has its own keepalive
                ) as websocket:
                    await self._converse(websocket)
            except websockets.InvalidStatus as error:
                _log.info("refused with HTTP %s", error.response.status_code, extra=self._about)
            except (OSError, websockets.WebSocketException, WireError, UpdateError) as error:
                _log.info("connection lost: %s", error, extra=self._about)
            if self._online.is_set():
                await self._clock.sleep(self._backoff.next())

    async def _converse(self, websocket: ClientConnection) -> None:
        self._replica.open(self._clock.now())
        tasks = [asyncio.create_task(self._read(websocket)), asyncio.create_task(self._write(websocket))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            self._replica.lost(self._clock.now())
            self._changed.beat()
        if websocket.close_code is not None and is_permanent(websocket.close_code):
            raise ConnectionClosed(code=websocket.close_code, reason=websocket.close_reason or "")
        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, websockets.ConnectionClosed):
                raise outcome

    async def _read(self, websocket: ClientConnection) -> None:
        while True:
            async with asyncio.timeout(_SILENCE_S):
                message = await websocket.recv()
            if isinstance(message, bytes):
                self._replica.receive(message, self._clock.now())
                if self._replica.synced:
                    self._backoff.reset()
                self._outgoing.set()
                self._changed.beat()

    async def _write(self, websocket: ClientConnection) -> None:
        while self._online.is_set():
            self._outgoing.clear()
            for frame in self._replica.take(self._clock.now()):
                await websocket.send(frame)
            try:
                async with asyncio.timeout(self._look_every_s):
                    await self._outgoing.wait()
            except TimeoutError:
                continue

    def _address(self, token: str | None) -> str:
        """Return where to dial: a copy that has a history says which generation it belongs to."""
        query = {"token": token} if token else {}
        if self._lease is not None:
            query["lease"] = self._lease
        with contextlib.suppress(BadDocument):  # nothing was ever received
            query["generation"] = str(self._replica.view.meta.generation)
        return f"{self._endpoint}?{urlencode(query)}" if query else self._endpoint


def _endpoint(url: str, session: SessionId) -> str:
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.netloc:
        raise ValueError(f"{url!r} is not the URL of a service, such as http://127.0.0.1:8000")
    return urlunsplit((scheme, parts.netloc, f"{parts.path.rstrip('/')}/v1/sync/{session}", "", ""))

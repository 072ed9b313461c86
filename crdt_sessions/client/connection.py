"""Keeps a replica connected: dials, converses, dials again with backoff, and gives up when told to stay away."""

from __future__ import annotations

import asyncio
import contextlib
import random
from urllib.parse import urlencode

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket

from crdt_sessions.client.backoff import Backoff
from crdt_sessions.client.contact import Contact
from crdt_sessions.client.obstacles import is_final, of_closing, of_failure
from crdt_sessions.client.token import Token, current_token
from crdt_sessions.clock import Clock
from crdt_sessions.errors import (
    BadDocument,
    ConnectionClosed,
    CrdtSessionsError,
    NotAuthenticated,
    NoToken,
    ServiceUnreachable,
    UpdateError,
    WireError,
)
from crdt_sessions.ids import SessionId, lineage_of
from crdt_sessions.signals import Signal
from crdt_sessions.sync import Replica
from crdt_sessions.wire.closing import closing_for, is_permanent

_SILENCE_S = 45.0  # the server says something every 20 s
_RENEW_CHECK_S = 3.0
_NOT_ALLOWED = 4403
_NOT_AUTHENTICATED = closing_for(NotAuthenticated()).code


class Connection:
    """The connection of one replica to the service.

    Args:
        contact: with the service; shared with other connections to it.
        session: the session.
        token: if the service asks for one.
        replica: what is kept in sync.
        clock: the only source of time.
        changed: notified whenever something arrives, or the connection opens or ends.
        rng: source of jitter.
        lease: token of a run's lease, if this is the connection of its holder.
        heartbeat_s: how often to look whether the replica has something to send.
        patient: whether to go on trying when something else answers in the service's place, as some networks have it,
            or no token can be fetched.
    """

    def __init__(
        self,
        contact: Contact,
        session: SessionId,
        token: Token | None,
        replica: Replica,
        *,
        clock: Clock,
        changed: Signal,
        rng: random.Random,
        lease: str | None = None,
        heartbeat_s: float | None = None,
        patient: bool = False,
    ) -> None:
        self._contact = contact
        self._endpoint = f"ws{contact.url.removeprefix('http')}/v1/sync/{session}"
        self._token = token
        self._refused: str | None = None
        """A token that the service accepted once and has refused since."""
        self._patient = patient
        self._serve(replica, lease, heartbeat_s)
        self._clock = clock
        self._changed = changed
        self._backoff = Backoff(rng=rng)
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

        A failure that may pass is reported and tried again. Before the first contact, fewer failures count as such.

        Raises:
            ConnectionClosed: the server told this peer to stay away.
            NoService, RequestRefused, NoToken: there never was contact, and waiting would not help.
            TooLarge: a frame to send is larger than the server accepts.
        """
        try:
            while True:
                await self._online.wait()
                try:
                    await self._connect()
                except CrdtSessionsError as error:
                    self._hindered(error)
                if self._online.is_set():
                    await self._clock.sleep(self._backoff.next())
        finally:
            self._contact.ended(self)

    def _hindered(self, error: CrdtSessionsError) -> None:
        """Report an error that may pass; raise any other."""
        made = self._contact.made
        if isinstance(error, ConnectionClosed):  # not without another token, says the protocol
            again = made and error.code == _NOT_AUTHENTICATED and callable(self._token)
        elif is_final(error) or isinstance(error, NoToken):
            again = made or self._patient
        else:
            again = isinstance(error, ServiceUnreachable)
        if not again:
            raise error
        if self._online.is_set():
            self._contact.failed(self, error)
        else:
            self._contact.ended(self)

    async def _connect(self) -> None:
        """Connect, and converse until the connection ends.

        Raises:
            ServiceUnreachable, NoService, RequestRefused, NoToken: the connection could not be opened, or broke.
            ConnectionClosed: the server told this peer to stay away, at least with this token.
        """
        token = await current_token(self._token)
        if token is not None and token == self._refused:
            raise ConnectionClosed(code=_NOT_AUTHENTICATED, reason="there is no fresh token yet")
        try:
            async with open_websocket(
                self._address(token),
                max_size=2 * self._replica.limits.max_frame_bytes,
                user_agent_header=None,
                compression=None,
                ping_interval=None,  # the protocol has its own keepalive
            ) as websocket:
                await self._converse(websocket)
        except (OSError, websockets.WebSocketException, WireError, UpdateError) as error:
            raise of_failure(error, self._contact.url) from error
        code, reason = websocket.close_code, websocket.close_reason
        if code is None or not is_permanent(code):
            raise of_closing(code, reason, self._contact.url)
        self._refused = token if code == _NOT_AUTHENTICATED else None
        raise ConnectionClosed(code=code, reason=reason or "")

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
            self._changed.notify_all()
        if websocket.close_code is not None and is_permanent(websocket.close_code):
            return
        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, websockets.ConnectionClosed):
                raise outcome

    async def _read(self, websocket: ClientConnection) -> None:
        while True:
            async with asyncio.timeout(_SILENCE_S):
                message = await websocket.recv()
            if isinstance(message, bytes):
                self._replica.receive(message, self._clock.now())
                if self._replica.denied is not None:  # its document holds what the service will never take
                    raise ConnectionClosed(code=_NOT_ALLOWED, reason=self._replica.denied)
                if self._replica.synced:
                    self._backoff.reset()
                    self._contact.made = True
                    self._contact.works(self)
                self._outgoing.set()
                self._changed.notify_all()

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
        """Return the address to dial. A replica that holds a document names the session it belongs to."""
        query = {"token": token} if token else {}
        if self._lease is not None:
            query["lease"] = self._lease
        with contextlib.suppress(BadDocument):  # nothing was ever received
            meta = self._replica.view.meta
            query["generation"] = str(meta.generation)
            query["lineage"] = meta.lineage or lineage_of(meta.generation, meta.created_at)
        return f"{self._endpoint}?{urlencode(query)}" if query else self._endpoint

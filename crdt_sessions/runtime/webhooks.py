"""The outbox: tells endpoints outside what happened to runs, at least once, however often they or we are down.

A delivery is stored in the transaction that stores what it tells of. Attempts are signed as Standard Webhooks
say (https://www.standardwebhooks.com, specification 1.0.0); one that keeps failing ends as a dead letter, which
can be looked at and tried again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import importlib
import ipaddress
import json
import logging
import random
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from crdt_sessions.clock import Clock
from crdt_sessions.errors import NotFound, StorageError
from crdt_sessions.ids import Millis, SessionId, name_of, tenant_of
from crdt_sessions.runtime.loops import logged
from crdt_sessions.runtime.pushes import PUSH, Pushes, timestamp
from crdt_sessions.runtime.said import Said
from crdt_sessions.signals import Signal
from crdt_sessions.storage import Deliveries, Delivery
from crdt_sessions.sync import Notice, Records, SessionEngine

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger("crdt_sessions.webhooks")

Send = Callable[[str, dict[str, str], bytes], Awaitable[int]]
"""Posts a body with headers to a URL and returns the HTTP status; raises OSError or httpx.HTTPError."""


class Reply(NamedTuple):
    """What a receiver answered."""

    status: int
    body: bytes
    """Its first 64 KiB."""


EVENTS = (
    "run.queued",
    "run.approval_requested",
    "run.call_waiting",
    "run.completed",
    "run.failed",
    "run.cancelled",
    "run.interrupted",
)
MAX_ATTEMPTS = 12
_FIRST_RETRY_S = 5.0
_LONGEST_RETRY_S = 6 * 3600.0
ATTEMPT_S = 15.0
"""A receiver must have answered within it, however busily it is at it."""
_MOST_ANSWERED = 64 * 1024
_BATCH = 20
"""So many attempts are under way to one receiver at a time."""
_LEASE_MS = 60_000
"""After how long another process tries what one has taken and said nothing more of."""
_LOOK_EVERY_S = 1.0
_SECRET_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint to tell.

    Args:
        name: for people and for dead letters.
        url: where to post.
        secret: ``whsec_`` and base64: the key that signs.
        events: which ones; all of :data:`EVENTS` if empty. :data:`PUSH` only if it is named.
        tenant: whose sessions it hears of.
        content: whether pushes have words of what happened.

    Raises:
        ValueError: the secret is not of that form, the URL has no host that can be looked up, or an event is unknown.
    """

    name: str
    url: str
    secret: str
    events: tuple[str, ...] = ()
    tenant: str = ""
    content: bool = False

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError(f"webhook {self.name!r}: the secret is {_SECRET_PREFIX!r} and 24 to 64 bytes in base64")
        if not has_host(self.url):
            raise ValueError(f"webhook {self.name!r}: no host can be looked up that is called as in its URL")
        if unknown := set(self.events) - {*EVENTS, PUSH}:
            known = ", ".join((*EVENTS, PUSH))
            raise ValueError(f"webhook {self.name!r}: there are no events {', '.join(sorted(unknown))}, only {known}")

    @property
    def key(self) -> bytes:
        """The signing key; empty if the secret is not valid."""
        try:
            key = base64.b64decode(self.secret.removeprefix(_SECRET_PREFIX), validate=True)
        except ValueError:
            return b""
        return key if self.secret.startswith(_SECRET_PREFIX) and 24 <= len(key) <= 64 else b""

    def signed(self, id: str, at: Millis, body: bytes) -> dict[str, str]:
        """Return the headers for an attempt, at *at*, to deliver *body* as *id*.

        Source: Standard Webhooks 1.0.0, "Signature scheme".
        """
        stamp = str(at // 1000)
        digest = hmac.new(self.key, b".".join((id.encode(), stamp.encode(), body)), hashlib.sha256).digest()
        return {
            "content-type": "application/json",
            "webhook-id": id,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }


class Outbox:
    """The deliveries of a process.

    Args:
        store: where they are kept.
        webhooks: the receivers.
        clock: the only source of time.
        rng: source of jitter.
        send: how to post; HTTP if None.
        pushes: finds out whom to wake up.
    """

    def __init__(
        self,
        store: Deliveries,
        webhooks: Iterable[Webhook],
        *,
        clock: Clock,
        rng: random.Random,
        send: Send | None = None,
        pushes: Pushes,
    ) -> None:
        self._pushes = pushes
        self._store = store
        self._webhooks = {webhook.name: webhook for webhook in webhooks}
        self._clock = clock
        self._rng = rng
        self._send = send or post
        self._filled = Signal()
        self._busy: dict[str, asyncio.Task[None]] = {}
        """The receivers to which something is under way."""
        if self._webhooks:  # now, since it takes a moment; a service without webhooks needs none of it
            importlib.import_module("httpx")

    def __bool__(self) -> bool:
        return bool(self._webhooks)

    def deliveries(self, session: SessionId, notice: Notice, absent: list[str]) -> list[Delivery]:
        """Return the deliveries for *notice*, to store together with the change it is about."""
        body = json.dumps(
            {
                "type": notice.kind,
                "timestamp": timestamp(notice.at),
                "data": {"session": name_of(session), **_present(notice.data), "absent": absent},
            },
            ensure_ascii=False,
        )
        return [
            Delivery(
                f"msg_{uuid.uuid4().hex}", webhook.name, session, notice.kind, body, notice.at, next_at=notice.at
            )
            for webhook in self._webhooks.values()
            if webhook.tenant == tenant_of(session) and (not webhook.events or notice.kind in webhook.events)
        ]

    def pushes_of(
        self, session: SessionId, engine: SessionEngine, said: Said, records: Sequence[Records]
    ) -> list[Delivery]:
        """Return the deliveries for whom *records* concern and who is not there, to store together with these."""
        receivers = [
            webhook
            for webhook in self._webhooks.values()
            if PUSH in webhook.events and webhook.tenant == tenant_of(session)
        ]
        found = self._pushes.happenings(session, engine, said, records) if receivers else []
        return [
            self._pushes.delivery(session, engine, each, webhook.name, content=webhook.content)
            for each in found
            for webhook in receivers
        ]

    def look(self) -> None:
        """Look now: something was stored."""
        self._filled.notify_all()

    async def dead(self, limit: int, tenant: str | None = None) -> Sequence[Delivery]:
        """Return the dead letters, oldest first; of one *tenant*, or of all if None."""
        return await self._store.deliveries(dead=True, limit=limit, tenant=tenant)

    async def waiting(self, limit: int, tenant: str | None = None) -> Sequence[Delivery]:
        """Return the pending deliveries, oldest first; of one *tenant*, or of all if None."""
        return await self._store.deliveries(limit=limit, tenant=tenant)

    async def retry(self, id: str, tenant: str | None = None) -> None:
        """Try a delivery again, now and anew; of one *tenant*, or of any if None.

        Raises:
            NotFound: there is no such delivery.
        """
        now = self._clock.now()
        if not await self._store.postpone(id, attempts=0, next_at=now, error=None, dead=False, tenant=tenant):
            raise NotFound(what="delivery", id=id)
        self.look()

    async def run(self) -> None:
        """Deliver until cancelled: to each receiver some at a time, oldest first, and to none after another one."""
        try:
            while True:
                seen = self._filled.count
                due = await self._take()
                for receiver in {each.endpoint: None for each in due}:
                    self._begin(receiver, [each for each in due if each.endpoint == receiver])
                if not due and self._filled.count == seen:
                    await self._wait()
        finally:
            under_way = list(self._busy.values())
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _take(self) -> Sequence[Delivery]:
        """Return some that are due, to receivers to which nothing is under way."""
        try:
            return await self._store.take_deliveries(
                self._clock.now(), limit=_BATCH, lease_ms=_LEASE_MS, without=list(self._busy)
            )
        except StorageError as error:
            _log.error("the outbox cannot be read: %s", error)
            return ()

    def _begin(self, receiver: str, due: Sequence[Delivery]) -> None:
        task = self._busy[receiver] = asyncio.create_task(self._deliver_all(due), name=f"webhook {receiver}")

        def ended(task: asyncio.Task[None]) -> None:
            del self._busy[receiver]
            self.look()

        task.add_done_callback(ended)

    async def _deliver_all(self, due: Sequence[Delivery]) -> None:
        """Deliver what one receiver is to be told."""
        ended = await asyncio.gather(*map(self._deliver, due), return_exceptions=True)
        failed = [error for error in ended if isinstance(error, Exception)]
        for error in failed:
            if isinstance(error, StorageError):
                _log.error("what became of a delivery cannot be stored: %s", error)
            else:
                logged(error, "the outbox")
        if failed:
            await self._clock.sleep(_LOOK_EVERY_S)  # they may be due still

    async def _wait(self) -> None:
        """Wait until something is stored, or for a moment, since postponed deliveries may be due."""
        count = self._filled.count
        await self._filled.wait_within(lambda: self._filled.count > count, self._clock.sleep(_LOOK_EVERY_S))

    async def _deliver(self, delivery: Delivery) -> None:
        error = await self._attempt(delivery)
        if error is None:
            await self._store.delivered(delivery.id)
            return
        attempts = delivery.attempts + 1
        dead = attempts >= MAX_ATTEMPTS
        pause = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2 ** (attempts - 1)) * self._rng.uniform(0.8, 1.2)
        next_at = Millis(self._clock.now() + int(pause * 1000))
        await self._store.postpone(delivery.id, attempts=attempts, next_at=next_at, error=error, dead=dead)
        _log.log(
            logging.ERROR if dead else logging.WARNING,
            "webhook %s failed, %s: %s",
            delivery.endpoint,
            "given up" if dead else f"again in {pause:.0f} s",
            error,
            extra={"session": delivery.session, "delivery": delivery.id},
        )

    async def _attempt(self, delivery: Delivery) -> str | None:
        """Post once, unless that is needless; return why it failed, or None.

        Raises:
            StorageError: the store cannot be asked: nothing is known of the receiver.
        """
        webhook = self._webhooks.get(delivery.endpoint)
        if webhook is None:
            return "there is no webhook of that name any more"
        import httpx

        body = delivery.body.encode()
        try:
            async with asyncio.timeout(ATTEMPT_S):
                if await self._pushes.needless(delivery):
                    return None
                status = await self._send(webhook.url, webhook.signed(delivery.id, self._clock.now(), body), body)
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{type(error).__name__}: {str(error) or 'no answer in time'}"
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - it is this delivery's: those of others go on
            return logged(error, "an attempt to deliver")
        return None if 200 <= status < 300 else f"HTTP {status}"


async def post(url: str, headers: dict[str, str], body: bytes) -> int:
    """Post over HTTP, to wherever the URL leads; redirects count as failures. What is answered is not read."""
    async with _answered(url, headers, body) as response:
        return response.status_code


async def post_outside(url: str, headers: dict[str, str], body: bytes) -> int:
    """Post as :func:`post`, but never to this machine or a private network; see :func:`exchange_outside`."""
    async with _answered_outside(url, headers, body) as response:
        return response.status_code


async def exchange(url: str, headers: dict[str, str], body: bytes) -> Reply:
    """Post over HTTP as :func:`post` does, and return what was answered."""
    async with _answered(url, headers, body) as response:
        return await _read(response)


async def exchange_outside(url: str, headers: dict[str, str], body: bytes) -> Reply:
    """Post as :func:`exchange`, but never to this machine or a private network, whatever a name may stand for.

    The address that was looked at is the one that is connected to, so a name cannot stand for another one a moment
    later.

    Raises:
        OSError: the name cannot be resolved, or stands for an address that is not public.
    """
    async with _answered_outside(url, headers, body) as response:
        return await _read(response)


async def _read(response: httpx.Response) -> Reply:
    answered = b""
    async for piece in response.aiter_raw(_MOST_ANSWERED):
        answered += piece
        if len(answered) >= _MOST_ANSWERED:
            break
    return Reply(response.status_code, answered[:_MOST_ANSWERED])


@asynccontextmanager
async def _answered(url: str, headers: dict[str, str], body: bytes, **how: Any) -> AsyncIterator[httpx.Response]:
    import httpx

    async with (
        httpx.AsyncClient(timeout=ATTEMPT_S, trust_env=False) as client,
        client.stream("POST", url, headers=headers, content=body, **how) as response,
    ):
        yield response


@asynccontextmanager
async def _answered_outside(url: str, headers: dict[str, str], body: bytes) -> AsyncIterator[httpx.Response]:
    import httpx

    target = httpx.URL(url)
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(target.host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{target.host} is no name of a host: {error}") from error
    addresses = [ipaddress.ip_address(str(each[4][0]).split("%")[0]) for each in found]
    if private := [address for address in addresses if not is_public(address)]:
        raise OSError(f"{target.host} stands for {private[0]}, which is not public; see webhooks_to_private")
    async with _answered(
        str(target.copy_with(host=str(addresses[0]))),
        {**headers, "host": target.netloc.decode("ascii")},
        body,
        extensions={"sni_hostname": target.host},
    ) as response:
        yield response


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one that anybody in the world can reach."""
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
    return bool(inner.is_global) and bool(address.is_global or inner is not address) and not inner.is_multicast


def has_host(url: str) -> bool:
    """Whether a URL names a host that could be looked up: a name with an empty or too long label could not."""
    try:
        return bool((urlsplit(url).hostname or "").encode("idna"))
    except ValueError:
        return False


def _present(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}

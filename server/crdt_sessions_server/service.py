"""The service as an object: wiring only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from quart import Quart

from crdt_sessions.clock import Clock, SystemClock
from crdt_sessions.errors import Fenced, StorageError
from crdt_sessions.runtime import (
    Load,
    Reply,
    Sandbox,
    SessionRegistry,
    Subscriptions,
    exchange,
    exchange_outside,
    keep_going,
    post,
    post_outside,
)
from crdt_sessions.storage import SqliteStore, UpdateStore
from crdt_sessions_server.asgi import App, Receive, Scope, Send
from crdt_sessions_server.auth import Admission, Authorizer, Grants, Open
from crdt_sessions_server.auth.factory import authorizer_for, rates_of
from crdt_sessions_server.cluster.silence import Silence
from crdt_sessions_server.gateways import GATEWAYS, mcp, y_sweet
from crdt_sessions_server.gateways.ai_sdk.websocket import ChatSockets
from crdt_sessions_server.gateways.durable_streams import subscription_routes
from crdt_sessions_server.gateways.durable_streams.appending import Appends
from crdt_sessions_server.gateways.durable_streams.signing import SigningKey
from crdt_sessions_server.http import (
    docs,
    errands,
    health,
    metrics,
    middleware,
    pages,
    paths,
    problem_documents,
    request_forwarding,
)
from crdt_sessions_server.http.hardening import Hardened
from crdt_sessions_server.http.origins import Cors, Origins
from crdt_sessions_server.http.request_checks import RequestChecks
from crdt_sessions_server.http.schemas import Api
from crdt_sessions_server.http.unread_bodies import UnreadBodies
from crdt_sessions_server.ops.expiry import expire, sweep
from crdt_sessions_server.ops.postgres import no_driver
from crdt_sessions_server.rest import RESOURCES, privacy, tokens
from crdt_sessions_server.serving.hocuspocus import HocuspocusEndpoint
from crdt_sessions_server.serving.sync_endpoint import SyncEndpoint, YSweetEndpoint
from crdt_sessions_server.settings import Settings
from crdt_sessions_server.settings_check import check_settings

if TYPE_CHECKING:
    from crdt_sessions.storage.postgres import PostgresStore
    from crdt_sessions_server.cluster.cluster import Cluster

_log = logging.getLogger("crdt_sessions.serve")


class Service:
    """The Quart application with its registry, and the order in which they start and stop.

    Use it as a context manager, or leave that to the ASGI server's lifespan.

    Args:
        settings: what the service was told.
        store: where sessions are kept; the database of the settings if None.
        authorizer: who may come in; what the settings say if None.
        clock: for tests.
        address: where other nodes reach this one; empty if they do not.
        free_garbage: called where memory is short and sessions were dropped; by whoever has a policy for Python's
            collector.

    Raises:
        ValueError: the settings contradict each other, or a file they name cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: UpdateStore | None = None,
        authorizer: Authorizer | None = None,
        clock: Clock | None = None,
        free_garbage: Callable[[], None] = lambda: None,
        address: str = "",
    ) -> None:
        self._machines: SystemClock | None = None
        if clock is None:
            clock = self._machines = SystemClock()
        if authorizer is None:
            authorizer = authorizer_for(settings, clock)
            if settings.exposed:
                raise ValueError(
                    f"without tokens the service listens on this machine only, and {settings.host} is reachable"
                    " from others: use --host 127.0.0.1, or give --jwt-secret-file, --jwks-url or --tokens-file"
                )
        check_settings(settings)
        self._stack: AsyncExitStack | None = None
        self._own = store_of(settings, address=address, fenced=self._fenced) if store is None else None
        self._sandbox = Sandbox(memory_bytes=settings.max_sandbox_bytes) if settings.sandbox else None
        self.open = isinstance(authorizer, Open)
        """Whether everybody on this machine is let in."""
        self._origins = Origins(settings.allowed_origins, loopback=self.open)
        self.registry = SessionRegistry(
            store or self._own,  # type: ignore[arg-type]  # one of them is there
            clock=clock,
            limits=settings.limits,
            timing=settings.timing,
            compaction=settings.compaction,
            rules=settings.rules,
            usage_limits=settings.usage_limits,
            webhooks=settings.webhooks,
            retention=settings.retention,
            sandbox=self._sandbox,
            load=Load(settings.limits, free_garbage=free_garbage),
            auto_create=settings.auto_create,
            enforce_authorship=settings.authorship == "enforce",
            send=post if settings.sends_to_private else post_outside,
        )
        self.admission = Admission(
            Grants(authorizer, self.registry.store, clock), self.registry, rates_of(settings, clock), settings.proxies
        )
        self._checks = RequestChecks(self.registry, self.admission, self._origins)
        self.cluster: Cluster | None = None
        """This node and the others; None if they do not reach it."""
        if address:
            self.cluster = self._among_others(settings)
        self._expire_days = settings.expire_days
        self._mcp = mcp.Host(settings.limits.max_body_bytes)
        key = SigningKey(self.registry.store, clock)
        exchanged = exchange if settings.sends_to_private else exchange_outside

        async def deliver(url: str, body: bytes) -> Reply:
            return await exchanged(url, await key.headers(body), body)

        self.subscriptions = Subscriptions(
            self.registry.streams, self.registry.store, clock, deliver, shared=self.registry.store.shared
        )
        """Who is woken when something is new in durable streams."""
        self.app = self._quart(settings)
        self.app.register_blueprint(
            subscription_routes.blueprint(
                self.registry, subscriptions=self.subscriptions, key=key, private=settings.sends_to_private
            )
        )
        self.chat = ChatSockets(
            self._requests(settings),
            self.registry,
            self.admission,
            self._origins,
            patience_s=settings.timing.send_timeout_s,
            elsewhere=self.cluster,
        )
        self.sync = SyncEndpoint(
            self.chat,
            self.registry,
            self.admission,
            self._origins,
            self.cluster,
        )
        self.y_sweet = YSweetEndpoint(self.sync, self.registry, self.admission, self._origins, self.cluster)
        self.hocuspocus = HocuspocusEndpoint(
            self.y_sweet, self.registry, self.admission, self._origins, settings.timing, self.cluster
        )
        served: App = self.hocuspocus
        if self.registry.store.shared:
            cast("PostgresStore", self.registry.store).nodes.figures = self._figures
        if self.cluster is not None:
            served = Silence(served, self.cluster.may_tell)
        self.app.asgi_app = served  # type: ignore[assignment]

    async def __aenter__(self) -> Service:
        async with AsyncExitStack() as stack:
            if self._own is not None:
                await stack.enter_async_context(self._own)
                if self._own.shared and self._machines is not None:
                    self._machines.go_by(cast("PostgresStore", self._own).now_ns)
            if self._sandbox is not None:
                await stack.enter_async_context(self._sandbox)
            await stack.enter_async_context(self.registry)
            await self.admission.grants.start()
            loops: dict[str, Callable[[], Awaitable[None]]] = {
                "accesses": self.admission.live.run,
                "the end of old sessions": partial(expire, self.registry, self._expire_days),
                "the end of streams": partial(sweep, self.registry),
                "subscriptions": self.subscriptions.run,
            }
            if self.registry.store.shared:
                loops["changes of rights by others"] = self.admission.grants.follow
            for name, run in loops.items():
                task = asyncio.create_task(keep_going(name, run, self.registry.clock), name=name)
                stack.push_async_callback(_ended, task)
            stack.push_async_callback(self._mcp.close)
            if self.cluster is not None:
                stack.push_async_callback(self.cluster.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    async def stop(self) -> None:
        """Store everything, close every connection with 1012, and return when all have been told.

        If there are other nodes, they are given the sessions before, one after the other.
        """
        if self.cluster is not None:
            try:
                await self.cluster.drain()
            except StorageError as error:
                _log.error("sessions cannot be handed over: %s", error)
        await self.registry.shutdown()
        await self.chat.stop()
        await self._mcp.close()
        await self.sync.closed()
        await self.y_sweet.closed()
        await self.hocuspocus.stop()

    def _among_others(self, settings: Settings) -> Cluster:
        """Return this node and the others; a service that is alone imports nothing of them."""
        from crdt_sessions_server.cluster.attendance import AttendanceElsewhere
        from crdt_sessions_server.cluster.claims import ClaimsElsewhere
        from crdt_sessions_server.cluster.cluster import Cluster

        store = cast("PostgresStore", self.registry.store)
        cluster = Cluster(
            self._serve,
            store,
            self.registry,
            self.admission,
            settings.cluster_secret,
            settings.handovers_per_s,
        )
        ClaimsElsewhere(self.registry, cluster.peers, cluster.door)
        AttendanceElsewhere(self.registry.pushes, cluster.peers, cluster.door)
        return cluster

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)  # type: ignore[arg-type]  # Quart types every event

    def _figures(self) -> tuple[int, int, int]:
        """Return how many sessions are in memory, how many connections there are, and sockets for other nodes."""
        passed_on = self.cluster.traffic.open if self.cluster is not None else 0
        return len(self.registry.live), self.registry.capacity.connections, passed_on

    def _fenced(self) -> None:
        self.registry.abandon(Fenced())

    def _requests(self, settings: Settings) -> App:
        """Return what answers HTTP requests."""
        most, routes = settings.limits.max_body_bytes, cast("App", self.app.asgi_app)  # Quart types every event
        answers = Appends(routes, self.registry, self._checks, most)
        tls = settings.tls_certificate is not None
        return UnreadBodies(Hardened(Cors(answers, self._origins), tls=tls))

    def _quart(self, settings: Settings) -> Quart:
        app = Api("crdt_sessions_server", static_folder=None)
        app.config["MAX_CONTENT_LENGTH"] = settings.limits.max_body_bytes
        problem_documents.install(app)
        paths.install(app)
        request_forwarding.install(app, self.cluster)
        done = errands.Errands(privacy.errands(self.registry, self.admission.grants), self.cluster)
        errands.install(app, done)
        if self.cluster is not None:
            self.cluster.do_errands(done)
        app.extensions["admission"] = self.admission
        app.register_blueprint(pages.blueprint(self.registry, shown=settings.shows_page))
        for module in (docs, health, metrics, *RESOURCES, *GATEWAYS):
            app.register_blueprint(module.blueprint(self.registry))
        for module in (tokens, y_sweet):
            app.register_blueprint(
                module.blueprint(
                    self.registry,
                    secret=settings.secret,
                    audience=settings.jwt_audience,
                    issuer=settings.jwt_issuer,
                )
            )
        app.register_blueprint(mcp.blueprint(self.registry, host=self._mcp, issuer=settings.jwt_issuer))
        middleware.install(app, self._checks)

        @app.while_serving
        async def lifespan() -> AsyncGenerator[None, None]:
            if self._stack is not None:  # the server has entered it
                yield
                return
            async with self:
                yield

        return app


def store_of(
    settings: Settings, *, address: str = "", fenced: Callable[[], None] = lambda: None
) -> SqliteStore | PostgresStore:
    """Return the store that the settings name.

    Args:
        settings: what the service was told.
        address: where other nodes reach this one.
        fenced: called when other nodes counted this one as gone.
    """
    if isinstance(settings.database, Path):
        return SqliteStore(
            settings.database, max_bytes=settings.max_database_bytes, max_wal_bytes=settings.max_wal_bytes
        )
    try:
        from crdt_sessions.storage.postgres import PostgresStore
    except ImportError as error:
        raise no_driver(settings.database) from error
    return PostgresStore(settings.database, quorum=settings.durability == "quorum", address=address, fenced=fenced)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def create_app(settings: Settings | None = None) -> Quart:
    """Return the service as an ASGI application, for any server: ``crdt_sessions_server.service:create_app()``."""
    return Service(settings or Settings.load({})).app

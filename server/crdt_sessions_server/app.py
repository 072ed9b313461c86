"""The application: wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from quart import Quart, Response, g, request, websocket
from quart_schema import QuartSchema

from crdt_sessions.clock import Clock, SystemClock
from crdt_sessions.errors import AccessDenied
from crdt_sessions.runtime import Load, Sandbox, SessionRegistry, post, post_outside
from crdt_sessions.storage import SqliteStore, UpdateStore
from crdt_sessions_server import (
    api,
    events,
    health,
    holders,
    identity,
    lists,
    metrics,
    openapi,
    page,
    paths,
    privacy,
    problems,
    runs,
    transfer,
    versions,
    webhooks,
)
from crdt_sessions_server.access import Authorizer, Door, Gate, Open
from crdt_sessions_server.access.configured import authorizer_for, rates_of
from crdt_sessions_server.access.permissions import NAMED_IN_BODY, PUBLIC, ROUTES
from crdt_sessions_server.asgi import http_token
from crdt_sessions_server.bodies import strict_json
from crdt_sessions_server.expiry import expire
from crdt_sessions_server.gateways import GATEWAYS
from crdt_sessions_server.origins import Cors, Origins
from crdt_sessions_server.settings import Settings
from crdt_sessions_server.sync_endpoint import SyncEndpoint


class Service:
    """The Quart application with its registry, and the order in which they start and stop.

    Use it as a context manager, or leave that to the ASGI server's lifespan.

    Args:
        settings: what the service was told.
        store: where sessions are kept; the SQLite file of the settings if None.
        authorizer: who may come in; what the settings say if None.
        clock: for tests.

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
    ) -> None:
        clock = clock or SystemClock()
        if authorizer is None:
            authorizer = authorizer_for(settings, clock)
            if settings.exposed:
                raise ValueError(
                    f"without tokens the service listens on this machine only, and {settings.host} is reachable"
                    " from others: use --host 127.0.0.1, or give --jwt-secret-file, --jwks-url or --tokens-file"
                )
        settings.check()
        self._stack: AsyncExitStack | None = None
        self._sqlite = (
            SqliteStore(
                settings.database, max_bytes=settings.max_database_bytes, max_wal_bytes=settings.max_wal_bytes
            )
            if store is None
            else None
        )
        self._sandbox = Sandbox(memory_bytes=settings.max_sandbox_bytes) if settings.sandbox else None
        self.open = isinstance(authorizer, Open)
        """Whether everybody on this machine is let in."""
        self._origins = Origins(settings.allowed_origins, loopback=self.open)
        self.registry = SessionRegistry(
            store or self._sqlite,  # type: ignore[arg-type]  # one of them is there
            clock=clock,
            limits=settings.limits,
            timing=settings.timing,
            compaction=settings.compaction,
            rules=settings.rules,
            webhooks=settings.webhooks,
            retention=settings.retention,
            sandbox=self._sandbox,
            load=Load(settings.limits),
            auto_create=settings.auto_create,
            enforce_authorship=settings.authorship == "enforce",
            send=post if settings.sends_to_private else post_outside,
        )
        self.door = Door(
            Gate(authorizer, self.registry.store, clock), self.registry, rates_of(settings, clock), settings.proxies
        )
        self._expire_days = settings.expire_days
        self.app = self._quart(settings)
        self.sync = SyncEndpoint(
            Cors(self.app.asgi_app, self._origins),  # type: ignore[arg-type]  # Quart types every event
            self.registry,
            self.door,
            self._origins,
            direct=settings.direct,
        )
        self.app.asgi_app = self.sync  # type: ignore[assignment]

    async def __aenter__(self) -> Service:
        async with AsyncExitStack() as stack:
            if self._sqlite is not None:
                await stack.enter_async_context(self._sqlite)
            if self._sandbox is not None:
                await stack.enter_async_context(self._sandbox)
            await stack.enter_async_context(self.registry)
            await self.door.gate.start()
            for watching in (self.door.live.run(), expire(self.registry, self._expire_days)):
                task = asyncio.create_task(watching)
                stack.push_async_callback(_ended, task)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    async def stop(self) -> None:
        """Store everything, close every connection with 1012, and return when all have been told."""
        await self.registry.shutdown()
        await self.sync.closed()

    def _quart(self, settings: Settings) -> Quart:
        app = Quart("crdt_sessions_server", static_folder=None)
        app.config["MAX_CONTENT_LENGTH"] = settings.limits.max_body_bytes
        app.config["QUART_SCHEMA_PYDANTIC_DUMP_OPTIONS"] = {"by_alias": True, "exclude_none": True}
        QuartSchema(
            app,
            openapi_path=None,
            swagger_ui_path=None,
            redoc_ui_path=None,
            scalar_ui_path=None,
            convert_casing=False,
            conversion_preference="pydantic",
        )
        strict_json(app)
        problems.install(app)
        paths.install(app)
        app.extensions["door"] = self.door
        app.register_blueprint(page.blueprint(self.registry, shown=settings.shows_page))
        for routes in (
            openapi,
            health,
            metrics,
            api,
            runs,
            lists,
            holders,
            webhooks,
            events,
            transfer,
            versions,
            privacy,
            *GATEWAYS,
        ):
            app.register_blueprint(routes.blueprint(self.registry))
        app.register_blueprint(
            identity.blueprint(
                self.registry,
                secret=settings.secret,
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
            )
        )
        self._guard(app, settings)

        @app.while_serving
        async def lifespan() -> AsyncGenerator[None, None]:
            if self._stack is not None:  # whoever serves this has entered it
                yield
                return
            async with self:
                yield

        return app

    async def _authorize(self, endpoint: str | None) -> None:
        if request.method == "OPTIONS" or endpoint is None or endpoint in PUBLIC:
            return  # a browser sends no token with its preflight, and what is not there needs none
        self.registry.check_lag()
        if endpoint not in ROUTES:
            raise AccessDenied(what="nobody may: the table of permissions does not know this route")
        if endpoint in NAMED_IN_BODY:
            return  # the route looks at the body first
        scope, needs = dict(request.scope), ROUTES[endpoint]
        g.visit = await self.door.admit(scope, http_token(scope), (request.view_args or {}).get("name"), needs)
        self.door.count_request(g.visit.principal, needs)

    def _guard(self, app: Quart, settings: Settings) -> None:
        """Let in who may come in, and have answers say what browsers may not do with them."""

        @app.before_websocket
        async def check_origin() -> None:
            self._origins.check(dict(websocket.scope))

        @app.before_request
        async def authorize() -> None:
            self._origins.check(dict(request.scope))
            await self._authorize(request.endpoint)

        @app.after_request
        async def harden(response: Response) -> Response:
            if request.http_version == "1.1" and request.content_length and not request.body._complete.is_set():
                # Hypercorn hangs up behind the answer to a body that has not come: who is not told loses a request.
                response.headers["Connection"] = "close"
            for name, value in page.HARDENING.items():
                response.headers.setdefault(name, value)
            if settings.tls_certificate is not None:
                response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            return response


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def create_app(settings: Settings | None = None) -> Quart:
    """Return the service as an ASGI application, for any server: ``crdt_sessions_server.app:create_app()``."""
    return Service(settings or Settings.load({})).app

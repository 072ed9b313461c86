"""Routes and the ids in their paths: every id that may be one can stand in a URL, a slash in it included.

ASGI servers decode the path before it is routed, so that ``a%2Fb`` is two segments and no route's. Here it is routed
as it came, segment by segment, and a segment is decoded when it is taken out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from urllib.parse import quote, unquote

from quart import Quart
from quart.routing import QuartRule
from werkzeug.routing import BaseConverter, PathConverter

from crdt_sessions_server.asgi import App, Receive, Scope, Send

_SAFE = "!$&'()*+,;=:@-._~"
_ALSO = {"/v1/stream/": "/v1/streams/"}
"""Prefixes that clients of others know, and what ours are."""
_VISIBLE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


class Id(BaseConverter):
    """One segment: ``<name>``."""

    part_isolating = True

    def to_python(self, value: str) -> str:
        """Return the decoded segment."""
        return unquote(value)

    def to_url(self, value: str) -> str:
        """Return how it is to stand there."""
        return quote(value, safe="")


class Ids(PathConverter):
    """All segments that are left: ``<path:name>``."""

    def to_python(self, value: str) -> str:
        """Return the decoded segment."""
        return unquote(value)


class Room(Ids):
    """A session's name as clients put it there that do not encode it: ``<room:name>``."""

    regex = ".+?"
    part_isolating = False


class Route(QuartRule):
    """A rule that makes its builders of URLs when one is asked for.

    Werkzeug compiles two for each rule, which was a third of the processor time of a start, and nobody builds URLs.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = cache(super()._compile_builder)

        def build(rule: Route, **values: object) -> tuple[str, str]:
            return compiled(append_unknown)(rule, **values)

        return build


class EncodedPaths:
    """An ASGI application whose paths are encoded.

    Args:
        app: the application; its routes have the converters of :func:`install`.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "path": _encoded(scope)}
        await self._app(scope, receive, send)


def install(app: Quart) -> None:
    """Make the routes of *app* take ids out of encoded paths. Before any is registered."""
    app.url_rule_class = Route
    app.url_map.converters |= {"default": Id, "string": Id, "path": Ids, "room": Room}
    app.url_map.merge_slashes = False  # a session may be named by a URL
    app.asgi_app = EncodedPaths(app.asgi_app)  # type: ignore[assignment,arg-type]  # Quart types every event


def header_value(id: str) -> str:
    """Return an id for a header: everything but visible ASCII, and ``%``, is percent-encoded."""
    return quote(id, safe=_VISIBLE)


def from_header(value: str) -> str:
    """Return the id in a header, percent-encoded or as bare UTF-8."""
    return unquote(value if value.isascii() else value.encode("latin-1", "replace").decode("utf-8", "replace"))


def _encoded(scope: Scope) -> str:
    """Return the path with its segments encoded in one way, however they came, and by the name that is ours."""
    raw = scope.get("raw_path")
    if raw is None:  # the server does not tell: what it has decoded cannot be told apart any more
        path = quote(scope["path"], safe=_SAFE + "/")
    else:
        segments = raw.partition(b"?")[0].decode("latin-1").split("/")
        path = "/".join(quote(unquote(segment), safe=_SAFE) for segment in segments)
    for prefix, ours in _ALSO.items():
        path = ours + path.removeprefix(prefix) if path.startswith(prefix) else path
    return path

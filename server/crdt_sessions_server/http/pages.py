"""The demo page: static files, no Node on the user's machine."""

from __future__ import annotations

import secrets
from pathlib import Path

from quart import Blueprint, Response, request, send_from_directory

from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.http.describing import BYTES, HTML, answers, refuses
from crdt_sessions_server.http.problem_documents import Refusal
from crdt_sessions_server.http.problems import NO_SUCH_ROUTE

PAGE = Path(__file__).parent.parent / "web"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-NONCE'; style-src-attr 'unsafe-inline';"
    " img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
"""The editor makes style sheets of its own, and colours selections by attributes; nothing else is inline."""
_FOR_THE_WORKER = {
    "Service-Worker-Allowed": "/",
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'",
}
_WORKER = "worker.js"
"""The service worker, which keeps the page for where there is no network."""


def blueprint(registry: SessionRegistry, *, shown: bool = True) -> Blueprint:
    """Return the routes; they need no token, since there is nothing of a session in them.

    Args:
        registry: the sessions.
        shown: whether there is a page; if not, a visitor is told how to have one.
    """
    pages = Blueprint("pages", __name__)
    index = (PAGE / "index.html").read_text("utf-8")

    @pages.before_request
    async def look() -> None:
        if not shown and request.endpoint != "pages.favicon":
            raise Refusal(NO_SUCH_ROUTE, "there is no page here; the option --page serves the demo page")

    @pages.get("/")
    @answers(200, {HTML: {"type": "string"}})
    @refuses(NO_SUCH_ROUTE)
    async def home() -> Response:
        """Show the demo page."""
        nonce = secrets.token_urlsafe(16)
        headers = {"Content-Security-Policy": _POLICY.replace("NONCE", nonce), "Cache-Control": "no-store"}
        return Response(index.replace("NONCE", nonce), content_type="text/html; charset=utf-8", headers=headers)

    @pages.get("/favicon.ico")
    @answers(200, {"image/svg+xml": BYTES})
    async def favicon() -> Response:
        """Return the icon."""
        return await send_from_directory(PAGE, "icon.svg")  # browsers ask for it, whatever of ours they show

    @pages.get("/demo/<path:name>")
    @answers(200, {"*/*": BYTES})
    @refuses(NO_SUCH_ROUTE)
    async def asset(name: str) -> Response:
        """Return a file of the demo page."""
        response = await send_from_directory(PAGE, name)
        if name == _WORKER:  # it looks after the whole page, and fetches for it
            response.headers.update(_FOR_THE_WORKER)
        return response

    return pages

"""The demo page: static files, no Node on the user's machine. And what browsers are told of everything we send."""

from __future__ import annotations

import secrets
from pathlib import Path

from quart import Blueprint, Response, send_from_directory

from crdt_sessions.runtime import SessionRegistry

PAGE = Path(__file__).parent / "web"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-NONCE'; style-src-attr 'unsafe-inline';"
    " img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
"""The editor makes style sheets of its own, and colours selections by attributes; nothing else is inline."""
HARDENING = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Headers of every answer that says nothing else."""


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes; they need no token, since there is nothing of a session in them."""
    page = Blueprint("page", __name__)
    index = (PAGE / "index.html").read_text("utf-8")

    @page.get("/")
    async def home() -> Response:
        nonce = secrets.token_urlsafe(16)
        headers = {"Content-Security-Policy": _POLICY.replace("NONCE", nonce), "Cache-Control": "no-store"}
        return Response(index.replace("NONCE", nonce), content_type="text/html; charset=utf-8", headers=headers)

    @page.get("/demo/<path:name>")
    async def asset(name: str) -> Response:
        return await send_from_directory(PAGE, name)

    return page

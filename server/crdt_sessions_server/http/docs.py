"""``/openapi.json``: all routes of the running service, and ``/docs``, the same for people."""

from __future__ import annotations

import json
from typing import Any, cast

from quart import Blueprint, Response, current_app

from crdt_sessions_server.http.describing import HTML, answers
from crdt_sessions_server.http.docs_page import PAGE_POLICY, STYLE, page
from crdt_sessions_server.http.openapi import Json, document
from crdt_sessions_server.http.schemas import JSON


def blueprint(_: object = None) -> Blueprint:
    """Return the routes; they need no token, since there is nothing of a session in them."""
    routes = Blueprint("docs", __name__)

    @routes.get("/openapi.json")
    @answers(200, {JSON: {"type": "object"}})
    async def openapi_document() -> Response:
        """Return this document: all routes of the service, as OpenAPI 3.1."""
        return Response(json.dumps(_kept(current_app), ensure_ascii=False), content_type=JSON)

    @routes.get("/docs")
    @answers(200, {HTML: {"type": "string"}})
    async def docs_page() -> Response:
        """Read this document as a page."""
        headers = {"Content-Security-Policy": PAGE_POLICY}
        return Response(page(_kept(current_app)), content_type=f"{HTML}; charset=utf-8", headers=headers)

    @routes.get("/docs/style.css")
    @answers(200, {"text/css": {"type": "string"}})
    async def docs_style() -> Response:
        """Return the style sheet of that page."""
        return Response(STYLE.read_text("utf-8"), content_type="text/css; charset=utf-8")

    return routes


def _kept(app: Any) -> Json:
    """Return the document, which is made once."""
    found = app.extensions.get("openapi")
    if found is None:
        found = app.extensions["openapi"] = document(app)
    return cast(Json, found)

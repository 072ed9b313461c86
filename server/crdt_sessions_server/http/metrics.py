"""``/metrics`` for Prometheus: load by tenant, and refusals."""

from __future__ import annotations

from quart import Blueprint, Response

from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.auth import current_admission, current_principal
from crdt_sessions_server.http.describing import TEXT, answers

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the route."""
    metrics = Blueprint("metrics", __name__)

    @metrics.get("/metrics")
    @answers(200, {TEXT: {"type": "string"}})
    async def read_metrics() -> Response:
        """Return the figures of one's tenant; where one belongs to none, of all, and of the process."""
        from crdt_sessions_server.http.figures import told  # with the library, which nobody else needs

        figures = told(registry, current_admission(), current_principal().tenant or None)
        return Response(figures, content_type=_TEXT)

    return metrics

"""AG-UI 1.0: ``HttpAgent``, unmodified.

Source: AG-UI 1.0, "HTTP binding". The protocol cannot resume a stream, so joining is a stream of its own: ``GET``
with the thread tells the conversation as it is, then the present answer from its first character. A connection that
closes does not cancel the run: cancelling is a command.
"""

from __future__ import annotations

from crdt_sessions_server.gateways.ag_ui.routes import blueprint

__all__ = ["blueprint"]

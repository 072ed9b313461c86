"""AI SDK 7: ``useChat`` with ``DefaultChatTransport`` or ``WebSocketChatTransport``, unmodified.

Sources: AI SDK 7, "Stream Protocol" and the types ``UIMessage``, ``UIMessageChunk``, ``ChatTransport``. A stream has
one message with a stable id, and ends with ``finish`` or ``error``. A connection that closes does not stop the run:
stopping is a command of its own.
"""

from __future__ import annotations

from crdt_sessions_server.gateways.ai_sdk.routes import blueprint

__all__ = ["blueprint"]

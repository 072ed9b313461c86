"""Gateways: chat front ends that do not know Yjs, on the same document as the Yjs peers.

Each module or package encodes the projector's events in one protocol, and turns requests of its clients into
proposals. To add one, write a module with a ``blueprint(registry)`` and list it in :data:`GATEWAYS`; nothing else
needs to know it. :mod:`.conversation` holds the parts that all of them share. Two stand beside them and are no chat:
:mod:`.mcp`, which is started and stopped with the service, and :mod:`.y_sweet`, which makes tokens.
"""

from __future__ import annotations

from crdt_sessions_server.gateways import ag_ui, ai_sdk, durable_streams, openai, tanstack
from crdt_sessions_server.gateways.durable_streams import session_routes, yjs_routes

GATEWAYS = (ai_sdk, ag_ui, tanstack, openai, durable_streams, session_routes, yjs_routes)

"""Front ends that never heard of Yjs, served from the same document that the Yjs peers see.

Each module spells the projector's events in one protocol, and turns what its clients send into proposals like anybody
else's. To add one: write a module with a ``blueprint(registry)``, and list it in :data:`GATEWAYS`. Nothing else knows
of it. What they have in common is in :mod:`.conversation`.
"""

from __future__ import annotations

from crdt_sessions_server.gateways import ag_ui, ai_sdk, openai, tanstack

GATEWAYS = (ai_sdk, ag_ui, tanstack, openai)

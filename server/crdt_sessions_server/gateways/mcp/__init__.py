"""The Model Context Protocol at ``/mcp``: its clients see and use sessions.

:mod:`crdt_sessions_server.mcp` is what they are offered. Here it is served over HTTP: :mod:`.routes` has the routes,
:mod:`.host` runs the library's server behind them.
"""

from crdt_sessions_server.gateways.mcp.host import Host
from crdt_sessions_server.gateways.mcp.routes import blueprint

__all__ = ["Host", "blueprint"]

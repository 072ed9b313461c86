"""``/v1/hocuspocus``: the protocol of Hocuspocus providers, many documents on one socket."""

from crdt_sessions_server.serving.hocuspocus.endpoint import PATH, HocuspocusEndpoint
from crdt_sessions_server.serving.hocuspocus.stateless import Handler, StatelessMessage, StatelessMessages

__all__ = ["PATH", "Handler", "HocuspocusEndpoint", "StatelessMessage", "StatelessMessages"]

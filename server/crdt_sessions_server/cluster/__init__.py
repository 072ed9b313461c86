"""Several nodes on one database: a client comes to any of them, and its session is where its owner is.

``hop`` is what one node says to another with each request, ``inner_door`` lets in who says it, ``peers`` asks another
node something. ``docs/design/nodes.md`` tells how it fits together.
"""

from crdt_sessions_server.cluster.cluster import Cluster

__all__ = ["Cluster"]

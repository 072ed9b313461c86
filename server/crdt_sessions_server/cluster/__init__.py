"""Several nodes on one database: a client comes to any of them, and its session is where its owner is.

``cluster`` is the whole. ``router`` knows which node owns a session, ``forward`` passes HTTP on, ``splice`` and
``relay`` WebSockets. ``hop`` is what one node says to another with each request, ``inner_door`` lets in who says it,
``peers`` asks another node something, and ``claims`` asks for runs. ``docs/design/nodes.md`` tells how it fits
together.
"""

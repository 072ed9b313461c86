"""Sessions of the older protocol, which live in one process: their ids say in which node."""

from __future__ import annotations

import re
from collections.abc import Sequence

from crdt_sessions_server.asgi import Scope

_HEADER = b"mcp-session-id"
_ID = re.compile(rb"([0-9]{1,19})-([!-~]+)")


def named(headers: Sequence[tuple[bytes, bytes]], node: int) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer with the node in the session's id, if they name one."""
    return [(name, b"%d-%s" % (node, value) if name.lower() == _HEADER else value) for name, value in headers]


def taken_apart(scope: Scope) -> tuple[int | None, Scope]:
    """Return the node that the session of a request is at, and the request as that node's library knows it.

    The node is None if the request names no session, or one of a service without others.
    """
    node, headers = None, []
    for name, value in scope["headers"]:
        found = _ID.fullmatch(value) if name.lower() == _HEADER else None
        if found is not None:
            node, value = int(found[1]), found[2]
        headers.append((name, value))
    return node, {**scope, "headers": headers}

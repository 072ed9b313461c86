"""Sockets that listen: bound first, since some listen only when their process is ready."""

from __future__ import annotations

import socket

_BACKLOG = 1024


def bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that has an address, and does not listen yet.

    Args:
        host: the name or IP address.
        port: 0 picks a free one.
        shared: whether other processes may have the same address, if they say so, too.

    Raises:
        OSError: it cannot be had.
    """
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


def listening(made: socket.socket) -> socket.socket:
    """Have a bound socket listen, and return it; it is closed if it cannot.

    Raises:
        OSError: it cannot.
    """
    try:
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made

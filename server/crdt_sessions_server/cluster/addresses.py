"""Where a node listens for the others: a host and a port, or a socket in the file system."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from crdt_sessions_server.sockets import bound, listening

_UNIX = "unix:"
_ANY = ("", "0.0.0.0", "::")
Protocol = TypeVar("Protocol", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a node.

    Args:
        host: a name or an IP address; empty for a socket in the file system.
        port: of the host.
        path: of a socket in the file system.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:/PATH``.

        Raises:
            ValueError: it is none.
        """
        if text.startswith(_UNIX):
            path = text.removeprefix(_UNIX)
            if path.startswith("/"):
                return cls(path=path)
        else:
            host, colon, port = text.rpartition(":")
            if colon and port.isascii() and port.isdigit() and int(port) < 65536:
                return cls(host.removeprefix("[").removesuffix("]"), int(port))
        raise ValueError(f"{text!r} is no address of a node: give HOST:PORT, such as 10.0.0.7:8001, or unix:/PATH")

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def anywhere(self) -> bool:
        """Whether it means all addresses of a machine, by which nobody else can reach it."""
        return not self.path and self.host in _ANY

    def listen(self) -> socket.socket:
        """Return a socket that listens there.

        Raises:
            OSError: one cannot; the message says what to do.
        """
        try:
            return listening(self._in_file_system() if self.path else bound(self.host, self.port))
        except OSError as error:
            hint = "stop what listens there, or choose" if error.errno == errno.EADDRINUSE else "choose"
            raise OSError(
                error.errno, f"cannot listen on {self}: {error.strerror}; {hint} another --cluster-listen"
            ) from error

    def _in_file_system(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(FileNotFoundError):  # what a process left that was killed
                os.unlink(self.path)
            made.bind(self.path)
            os.chmod(self.path, 0o600)
        except OSError:
            made.close()
            raise
        return made

    def bound(self, listener: socket.socket) -> Address:
        """Return the address with the port that *listener* was given."""
        return self if self.path else Address(self.host, listener.getsockname()[1])

    async def connect(self, protocol: Protocol) -> Protocol:
        """Connect *protocol* to whoever listens there.

        Raises:
            OSError: nobody does.
        """
        loop = asyncio.get_running_loop()
        if self.path:
            await loop.create_unix_connection(lambda: protocol, self.path)
        else:
            await loop.create_connection(lambda: protocol, self.host, self.port)
        return protocol

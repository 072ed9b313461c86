"""``crdt-sessions mcp``: an MCP server on standard input and output, for programs that start their servers."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import anyio
from mcp.server.stdio import stdio_server

from crdt_sessions.client.service import ServiceClient
from crdt_sessions.errors import BadUrl
from crdt_sessions_server.arguments import parse
from crdt_sessions_server.explain import read_file
from crdt_sessions_server.mcp.api import Api
from crdt_sessions_server.mcp.server import build

_VARIABLE = "CRDT_SESSIONS_TOKEN"
_PIECE = 65536


def main() -> int:
    """Run the command line and return its exit status."""
    return run(parse(sys.argv[1:]))


def run(parsed: argparse.Namespace) -> int:
    """Serve one client until it closes standard input, or reads no more; return the exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)  # standard output is the protocol's
    try:
        client = ServiceClient(parsed.url, token_of(parsed.token_file))
    except (BadUrl, ValueError) as error:
        return _fail(str(error))
    if sys.stdin is None or sys.stdout is None:
        return _fail("an MCP client is to start this, and to speak with it on standard input and output")
    status = 0
    try:
        asyncio.run(_serve(client))
    except* BrokenPipeError:
        status = _fail("the MCP client went away before it had its answer")
    return status


def _fail(message: str) -> int:
    print(f"crdt-sessions: {message}", file=sys.stderr)  # noqa: T201 - a command's last word
    return 2


def token_of(file: Path | None) -> str | Callable[[], str] | None:
    """Return the token: what is in a file, each time anew, or else in the environment; None if there is none.

    Raises:
        ValueError: the file cannot be read.
    """
    if file is None:
        return os.environ.get(_VARIABLE) or None

    def read() -> str:
        return read_file(file, "token file").decode("utf-8", "replace").strip()

    read()
    return read


async def _serve(client: ServiceClient) -> None:
    api = Api(client)
    server = build(lambda _: api)
    with _standard_input() as (file, end):
        async with client, stdio_server(stdin=anyio.wrap_file(file)) as (source, sink):
            try:
                await server.run(source, sink, server.create_initialization_options())
            finally:
                end()


@contextmanager
def _standard_input() -> Iterator[tuple[TextIO, Callable[[], None]]]:
    """Yield standard input as a file, and what ends that file.

    Nothing ends a thread that reads standard input, and the library waits for its own. So a thread that nobody waits
    for reads, and hands on what comes through a pair of sockets: to shut it down wakes both who reads and who writes.
    """
    descriptor = sys.stdin.fileno()
    reading, writing = socket.socketpair()

    def end() -> None:
        with suppress(OSError):  # it has ended already
            writing.shutdown(socket.SHUT_WR)

    def hand_on() -> None:
        with suppress(OSError):  # nobody writes any more, or reads
            while piece := os.read(descriptor, _PIECE):
                writing.sendall(piece)
        end()

    with reading, writing, reading.makefile("r", encoding="utf-8", errors="replace") as file:
        threading.Thread(target=hand_on, name="standard input", daemon=True).start()
        yield file, end

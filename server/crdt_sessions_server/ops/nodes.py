"""``crdt-sessions nodes``: which nodes share a database, and how they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from crdt_sessions_server.ops.postgres import no_driver

if TYPE_CHECKING:
    from crdt_sessions.storage.postgres.node_list import ListedNode

_HEADS = (
    "NAME",
    "ADDRESS",
    "STATE",
    "VERSION",
    "OWNS",
    "IN MEMORY",
    "CONNECTIONS",
    "PASSED ON",
    "LAST BEAT",
    "UP FOR",
    "NODE",
)


def show(url: str, say: Callable[[str], None], *, gone: bool = False, as_json: bool = False) -> None:
    """Print the nodes of a database.

    Args:
        url: its address.
        say: called with each line.
        gone: whether those that are gone are shown, too.
        as_json: whether for programs.

    Raises:
        StorageError: it cannot be read.
        ValueError: the driver is missing.
    """
    try:
        from crdt_sessions.storage.postgres.node_list import nodes_of
    except ImportError as error:
        raise no_driver(url) from error
    found = asyncio.run(nodes_of(url, gone=gone))
    if as_json:
        say(json.dumps([{**asdict(each), "node": str(each.node)} for each in found], indent=2))
        return
    for line in table(found):
        say(line)


def table(nodes: Sequence[ListedNode]) -> list[str]:
    """Return the lines of a table for people."""
    if not nodes:
        return ["no node is up"]
    rows = [_HEADS, *(_row(each) for each in nodes)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADS))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _row(node: ListedNode) -> tuple[str, ...]:
    return (
        node.name, node.address or "-", node.state, node.version, str(node.sessions), str(node.live),
        str(node.connections), str(node.passed_on), f"{node.silent_s:.1f} s ago", _span(node.up_s), str(node.node),
    )  # fmt: skip


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

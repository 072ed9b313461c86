"""The other nodes that serve sessions of the same database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """A node as others see it.

    Args:
        node: its id, which is another one after each start.
        address: where it listens for other nodes; empty if it does not.
        draining: whether it is about to stop, and takes no sessions any more.
        name: of its machine, for people.
    """

    node: int
    address: str
    draining: bool = False
    name: str = ""

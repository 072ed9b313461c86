"""Named points at which a test lets the process die, as SIGKILL or a power cut would.

Nothing is armed unless the service is started with ``CRDT_SESSIONS_FAILPOINTS``, such as ``before-commit:3`` (the
third time) or several of them with commas. Source of the idea: failpoints in FreeBSD, ``fail(9)``.
"""

from __future__ import annotations

import os
import signal
from typing import Literal, get_args

Name = Literal[
    "before-append",  # an update was taken from the queue, nothing is written
    "before-commit",  # it is written, the transaction is open
    "after-commit",  # it is on disk, nobody has heard of it
    "snapshot",  # a snapshot is written, the rows it replaces are still there
    "truncate",  # they are deleted, the transaction is open
    "migration",  # between two statements of a migration
    "acquired",  # a session belongs to this node, which has read nothing of it
    "handover",  # it was stored and its peers were sent away, and no other node may have it yet
    "spliced",  # a client's connection and one to the node of its session have become one
    "unload",  # a session was stored and is about to be freed
    "import",  # a part of a file is copied into another database, the transaction is open
    "shutdown",  # every session was stored, connections are being closed
]
NAMES: tuple[Name, ...] = get_args(Name)
"""All of them."""

_armed: dict[str, int] = {}


def arm(specification: str) -> None:
    """Arm points: ``name:times`` with commas between.

    Raises:
        ValueError: a name is unknown, or a number is none.
    """
    _armed.clear()
    for part in filter(None, specification.split(",")):
        name, _, times = part.partition(":")
        if name not in NAMES:
            raise ValueError(f"unknown failpoint {name!r}; there are {', '.join(NAMES)}")
        _armed[name] = int(times or 1)


def reach(name: Name) -> None:
    """Die here, if this point is armed and it is time."""
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

"""Errors of updates that the CRDT library does not take."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError


class UpdateError(CrdtSessionsError):
    """An update that the CRDT library does not take. Nothing of it was stored."""

    def __init__(self, *, size: int) -> None:
        super().__init__(f"an update of {size} bytes cannot be decoded")
        self.size = size


class MalformedUpdate(UpdateError):
    """The CRDT library rejected the bytes."""


class PanickedUpdate(UpdateError):
    """The CRDT library panicked on the bytes, or gave up in the middle; the document cannot be trusted any more."""


class EarlyUpdate(UpdateError):
    """Something of an update needs another one, which has not arrived. It was not taken; the rest of it was.

    What a replica with the server's state vector lacks, as one update, is never early.
    """

    def __init__(self, *, size: int) -> None:
        super().__init__(size=size)
        self.args = ("an update needs another one that has not arrived: send all that the server lacks in one",)

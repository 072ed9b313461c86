"""What waits for the disk in all sessions of a process together."""

from __future__ import annotations


class Backlog:
    """Counts memory. Sessions that share one read no more from their peers while there is too much of it.

    Args:
        max_bytes: how much is too much.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.bytes = 0
        """How much there is."""

    @property
    def full(self) -> bool:
        """Whether there is too much."""
        return self.bytes > self._max_bytes

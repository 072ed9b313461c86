"""For how long nothing has been written to a session, and whether that is long enough for it to sleep."""

from __future__ import annotations

from crdt_sessions.ids import Millis, Seq

_SOONER = 10
"""How many times sooner a session sleeps in which nothing was written since it was loaded."""


class Quiet:
    """Since when the log of a session has ended where it does.

    Args:
        head: where it ended when the session was loaded.
        now: when that was.
    """

    def __init__(self, head: Seq, now: Millis) -> None:
        self._loaded = self._head = head
        self._since = now

    def lasts(self, head: Seq, now: Millis, quiet_ms: float) -> bool:
        """Note where the log ends *now*; return whether nothing was written for *quiet_ms*.

        Where nothing was written since the session was loaded, a part of that is enough: most clients only look on.
        """
        if head != self._head:
            self._head, self._since = head, now
        return now - self._since >= (quiet_ms if head != self._loaded else quiet_ms / _SOONER)

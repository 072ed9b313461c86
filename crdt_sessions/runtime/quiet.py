"""For how long nothing has been written to a session, and whether that is long enough for it to sleep."""

from __future__ import annotations

from crdt_sessions.ids import Millis, Seq

_SMALL = 64 * 1024
"""Bytes of a session that is loaded in a few milliseconds."""
_SOONER, _SOONER_IF_SMALL = 10, 60
"""How many times sooner a session sleeps in which nothing was written since it was loaded."""


class Quiet:
    """Since when the log of a session has ended where it does.

    Args:
        head: where it ended when the session was loaded.
        now: when that was.
        size: bytes that were loaded.
    """

    __slots__ = ("_head", "_loaded", "_since", "_sooner")

    def __init__(self, head: Seq, now: Millis, size: int) -> None:
        self._loaded = self._head = head
        self._since = now
        self._sooner = _SOONER if size > _SMALL else _SOONER_IF_SMALL

    def lasts(self, head: Seq, now: Millis, quiet_ms: float) -> bool:
        """Note where the log ends *now*; return whether nothing was written for *quiet_ms*.

        Where nothing was written since the session was loaded, a part of that is enough: most clients only look on.
        It is a smaller part if loading the session again, for whoever does write, takes hardly any time.
        """
        if head != self._head:
            self._head, self._since = head, now
        return now - self._since >= (quiet_ms if head != self._loaded else quiet_ms / self._sooner)

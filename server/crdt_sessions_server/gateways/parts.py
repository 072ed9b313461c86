"""The parts of one message as chat protocols know them: a text is one part, and a model gave one answer.

Layout 1 goes on in a further part where a buffer is full (``continues``), and keeps a model's alternatives side by
side (``choice``). AI SDK and AG-UI have a word for neither.
"""

from __future__ import annotations

from dataclasses import replace

from crdt_sessions.model import PartBegan, PartChanged, TextAdded, TextPart
from crdt_sessions.runtime import SessionEvent


class JoinedParts:
    """Rewrites the events of one message: continued texts become one part, alternatives are left out."""

    def __init__(self) -> None:
        self._begins: dict[int, int] = {}
        """Part to the part with which its text began. Alternatives are not in it."""
        self._last: dict[str, int] = {}
        """Kind of text to the part with which the last one began."""

    def take(self, event: SessionEvent) -> SessionEvent | None:
        """Return what *event* means for a client; None if it means nothing."""
        if isinstance(event, PartBegan):
            return event if self._begin(event) else None
        if not isinstance(event, TextAdded | PartChanged):
            return event
        if isinstance(event, PartChanged) and event.continued:
            return None  # the text is not at its end
        begin = self._begins.get(event.part)
        return None if begin is None else event if begin == event.part else replace(event, part=begin)

    def _begin(self, event: PartBegan) -> bool:
        """Take in a part; return whether a client sees it begin."""
        value = event.value
        if isinstance(value, TextPart) and value.choice:
            return False
        if isinstance(value, TextPart) and value.continues and value.type in self._last:
            self._begins[event.part] = self._last[value.type]
            return False
        self._begins[event.part] = event.part
        if isinstance(value, TextPart):
            self._last[value.type] = event.part
        return True

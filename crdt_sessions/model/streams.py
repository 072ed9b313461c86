"""Stream buffers: the ``Text`` inside a part that a running agent appends to.

One writer, append-only, one contiguous run of items: that is what makes a thousand tokens cost about 5 kB.
Appending costs time in proportion to the buffer's length, so a long buffer goes on in a further part
marked ``continues``.
"""

from __future__ import annotations

from typing import Any

from pycrdt import Array, Map, Text

from crdt_sessions.model.checks import check_json

SEGMENT_BYTES = 16 * 1024
"""UTF-8 bytes after which a buffer goes on in a further part."""


class PartStream:
    """An open ``text`` or ``reasoning`` part, or an ``audio`` part's transcript, and the further parts it goes on in.

    Call every method inside a transaction of the document (:meth:`SessionDoc.edit`).
    """

    def __init__(self, parts: Array[Any], part: Map[Any]) -> None:
        self._parts = parts
        self._part = part
        self._key = "transcript" if part["type"] == "audio" else "text"
        self._text: Text = part[self._key]

    @classmethod
    def open(cls, parts: Array[Any], type: str, choice: int = 0) -> PartStream:
        """Append an empty part of *type* (``text`` or ``reasoning``); *choice* numbers alternatives."""
        part = {"type": type, "text": Text(""), "state": "streaming"}
        return cls._append(parts, part | ({"choice": choice} if choice else {}))

    @classmethod
    def open_audio(cls, parts: Array[Any], value: Any = None) -> PartStream:
        """Append an ``audio`` part with an empty transcript.

        Raises:
            BadValue: *value* is not JSON that every peer can hold.
        """
        part = {"type": "audio", "transcript": Text(""), "state": "streaming"}
        return cls._append(parts, part | ({"value": check_json(value, "value")} if value is not None else {}))

    @classmethod
    def resume(cls, parts: Array[Any]) -> PartStream | None:
        """Reopen the last part if it is a text part that a former writer did not finish."""
        last = parts[len(parts) - 1] if len(parts) else None
        if isinstance(last, Map) and isinstance(last.get("text"), Text) and last.get("state") != "done":
            if last.get("state") != "streaming":
                last["state"] = "streaming"
            return cls(parts, last)
        return None

    @property
    def type(self) -> str:
        """``text``, ``reasoning`` or ``audio``."""
        return str(self._part["type"])

    def append(self, text: str) -> None:
        """Append *text*, which must not end inside a surrogate pair."""
        while text:
            room = SEGMENT_BYTES - len(self._text)
            if room < 4:  # the longest character
                self._continue()
                continue
            piece = text if len(text) * 4 <= room else text.encode()[:room].decode(errors="ignore")
            self._text += piece
            text = text[len(piece) :]

    def close(self) -> None:
        """Mark the part as done."""
        if self._part["state"] != "done":
            self._part["state"] = "done"

    def _continue(self) -> None:
        self._part["state"] = "done"
        choice = self._part.get("choice")
        more = {"type": self.type, self._key: Text(""), "state": "streaming", "continues": True}
        self._part = self._append(self._parts, more | ({"choice": choice} if choice else {}))._part
        self._text = self._part[self._key]

    @classmethod
    def _append(cls, parts: Array[Any], part: dict[str, Any]) -> PartStream:
        parts.append(Map(part))
        return cls(parts, parts[len(parts) - 1])

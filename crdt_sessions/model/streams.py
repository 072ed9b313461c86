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
    """An open ``text`` or ``reasoning`` part, and the further parts it goes on in.

    Every method is to be called inside a transaction of the document (:meth:`SessionDoc.edit`).
    """

    def __init__(self, parts: Array[Any], part: Map[Any]) -> None:
        self._parts = parts
        self._part = part
        self._text: Text = part["text"]

    @classmethod
    def open(cls, parts: Array[Any], type: str, choice: int = 0) -> PartStream:
        """Append an empty part of *type* (``text`` or ``reasoning``); *choice* numbers alternatives."""
        part = {"type": type, "text": Text(""), "state": "streaming"}
        parts.append(Map(part | ({"choice": choice} if choice else {})))
        return cls(parts, parts[len(parts) - 1])

    @classmethod
    def resume(cls, parts: Array[Any]) -> PartStream | None:
        """Return the last part if it is a text part that is still streaming."""
        last = parts[len(parts) - 1] if len(parts) else None
        if isinstance(last, Map) and last.get("state") == "streaming" and isinstance(last.get("text"), Text):
            return cls(parts, last)
        return None

    @property
    def type(self) -> str:
        """``text`` or ``reasoning``."""
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

    def _continue(self) -> None:
        self._part["state"] = "done"
        choice = self._part.get("choice")
        more = {"type": self.type, "text": Text(""), "state": "streaming", "continues": True}
        self._parts.append(Map(more | ({"choice": choice} if choice else {})))
        self._part = self._parts[len(self._parts) - 1]
        self._text = self._part["text"]

    def close(self) -> None:
        """Mark the part as done."""
        if self._part["state"] != "done":
            self._part["state"] = "done"


class ToolStream:
    """An open ``tool`` part. Every method is to be called inside a transaction of the document."""

    def __init__(self, part: Map[Any]) -> None:
        self._part = part
        self._input: Text = part["inputText"]

    @classmethod
    def open(cls, parts: Array[Any], tool_call_id: str, tool_name: str) -> ToolStream:
        """Append a tool part whose input is about to be streamed."""
        part = {"type": "tool", "toolCallId": tool_call_id, "toolName": tool_name}
        parts.append(Map({**part, "inputText": Text(""), "state": "input-streaming"}))
        return cls(parts[len(parts) - 1])

    def append(self, text: str) -> None:
        """Append to the input as the model writes it."""
        if text:
            self._input += text

    def close(self, input: Any = None, *, error: str | None = None) -> None:
        """Mark the input as complete.

        Args:
            input: the parsed input, if it could be parsed.
            error: why it could not; the part then ends in ``output-error``.

        Raises:
            BadValue: *input* is not JSON that every peer can hold.
        """
        if input is not None:
            self._part["input"] = check_json(input, "input")
        if error is not None:
            self._part["errorText"] = error
        self._part["state"] = "input-available" if error is None else "output-error"

    def output(self, value: Any) -> None:
        """Record what the tool returned.

        Raises:
            BadValue: *value* is not JSON that every peer can hold.
        """
        self._part["output"] = check_json(value, "output")
        self._part["state"] = "output-available"

"""One message, as a typed view over the document.

A view is a key and the document; it holds no copy. ``to_value()`` takes a copy in JSON form, without the parts that
layout 1 cannot describe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pycrdt import Array, Assoc, Map, Text
from pydantic import TypeAdapter, ValidationError

from crdt_sessions.errors import WrongOffset
from crdt_sessions.ids import ClientId
from crdt_sessions.model.base import Value
from crdt_sessions.model.calls import ending
from crdt_sessions.model.checks import NO_MAP, why_not
from crdt_sessions.model.drafts import filled_in
from crdt_sessions.model.parts import Part, StreamState
from crdt_sessions.model.run_values import RunStatus
from crdt_sessions.model.spelling import json_object, spelled, whole
from crdt_sessions.model.streams import PartStream
from crdt_sessions.model.tool_stream import ToolStream
from crdt_sessions.model.values import Message, MessageHead

_PART: TypeAdapter[Part] = TypeAdapter(Part)


class MessageView:
    """One message in the document."""

    def __init__(self, id: str, entry: Map[Any]) -> None:
        self.id = id
        self._entry = entry

    @property
    def head(self) -> MessageHead | None:
        """What was written once, or None if it is missing or not valid."""
        value = self._entry.get("head")
        try:
            head = MessageHead.model_validate(json_object(value))
        except ValidationError:
            return None
        return head if head.id == self.id else None

    @property
    def steers(self) -> Any:
        """The run that it is meant to steer, as its head says, unchecked: most messages steer none."""
        value = self._entry.get("head")
        return value.get("steers") if isinstance(value, dict) else None

    def flaws(self) -> list[str]:
        """Return what of the message layout 1 cannot describe, and why; nothing while its head has not come."""
        value = self._entry.get("head")
        if value is None:
            return []
        try:
            head = MessageHead.model_validate(json_object(value))
        except ValidationError as error:
            return why_not(error, "head")
        return self.part_flaws() if head.id == self.id else ["head.id: not the id of the entry"]

    def part_flaws(self) -> list[str]:
        """Return which parts layout 1 cannot describe, and why."""
        parts = self._entry.get("parts")
        if not isinstance(parts, Array):
            return ["parts: no Y.Array"]
        return [f"parts.{at}: {why}" for at, part in enumerate(parts) if (why := _part_flaw(part)) is not None]

    @property
    def seq(self) -> int | None:
        """The message's place in the session's order, or None while the server has not given one."""
        return whole(self._entry.get("seq"))

    @seq.setter
    def seq(self, value: int | None) -> None:
        if value is None:
            self._entry.pop("seq", None)
        else:
            self._entry["seq"] = value

    @property
    def by(self) -> str | None:
        """The principal who wrote it, where the server knew."""
        value = self._entry.get("by")
        return value if isinstance(value, str) else None

    @by.setter
    def by(self, value: str | None) -> None:
        if value is None:
            self._entry.pop("by", None)
        else:
            self._entry["by"] = value

    @property
    def place(self) -> tuple[bool, int, str] | None:
        """The key by which it is ordered, as :func:`order` returns it; None while it has no valid head."""
        head = self.head
        return place_in_order(self.seq, head.created_at, self.id) if head is not None else None

    @property
    def run_id(self) -> str | None:
        """The run that writes this message."""
        value = self._entry.get("runId")
        return value if isinstance(value, str) else None

    @run_id.setter
    def run_id(self, value: str) -> None:
        self._entry["runId"] = value

    def value_of(self, key: str) -> Any:
        """Return what stands under a key of the message's map, whatever it is; None if nothing does."""
        return self._entry.get(key)

    @property
    def parts(self) -> Array[Any]:
        """The parts, as the shared array; created if a careless writer left it out."""
        parts = self._entry.get("parts")
        if not isinstance(parts, Array):
            self._entry["parts"] = Array([])
            parts = self._entry["parts"]
        return parts

    @property
    def superseded(self) -> int:
        """How many of its first parts a new beginning took the place of; see :meth:`supersede`."""
        return max(whole(self._entry.get("superseded")) or 0, 0)

    def supersede(self) -> None:
        """Begin the message anew: what stands there stays in the document, and is shown to nobody any more.

        Tool calls that people were asked about stay where they are: what was decided is decided.
        """
        if len(self.parts) > self.superseded:
            self.close_parts("interrupted")
            self._entry["superseded"] = len(self.parts)

    def put_back_superseded(self, parts: int) -> None:
        """Have exactly *parts* stand there as what was taken back. For the server only."""
        if parts:
            self._entry["superseded"] = parts
        else:
            self._entry.pop("superseded", None)

    def _shown(self) -> Iterator[tuple[int, Any]]:
        """Yield the parts that count, with their places in the array."""
        parts, gone = self._entry.get("parts"), self.superseded
        for at, part in enumerate(parts) if isinstance(parts, Array) else ():
            if not superseded(at, part, gone):
                yield at, part

    def part_clients(self) -> list[ClientId]:
        """Return the Yjs client that added each part."""
        parts = self._entry.get("parts")
        if not isinstance(parts, Array):
            return []
        places = (parts.sticky_index(at, Assoc.AFTER).to_json() for at, _ in self._shown())
        return [ClientId(place["item"]["client"]) for place in places]

    @property
    def written(self) -> tuple[int, int]:
        """Which Yjs client wrote it, and where among all that the client wrote; zeros if it has no parts."""
        parts = self._entry.get("parts")
        if not isinstance(parts, Array) or not len(parts):
            return 0, 0
        first = parts.sticky_index(0, Assoc.AFTER).to_json()["item"]
        return first["client"], first["clock"]

    def add_part(self, part: Value) -> None:
        """Append a complete part."""
        self.parts.append(part_map(part))

    def open_text(self, type: str = "text", *, choice: int = 0) -> PartStream:
        """Append an empty ``text`` or ``reasoning`` part and return its stream buffer."""
        return PartStream.open(self.parts, type, choice)

    def open_tool(self, tool_call_id: str, tool_name: str) -> ToolStream:
        """Append a ``tool`` part; its input is streamed next."""
        return ToolStream.open(self.parts, tool_call_id, tool_name)

    def open_audio(self, value: Any = None) -> PartStream:
        """Append an ``audio`` part, whose value may say where the sound is, and return its transcript's buffer."""
        return PartStream.open_audio(self.parts, value)

    def resume_text(self) -> PartStream | None:
        """Return the stream buffer that a former writer left open at the end of the message, if it did."""
        return PartStream.resume(self.parts) if len(self.parts) > self.superseded else None

    def tool(self, tool_call_id: str) -> ToolStream | None:
        """Return the part of a tool call, or None if there is none."""
        return next((tool for tool in self.tools() if tool.call_id == tool_call_id), None)

    def tools(self) -> list[ToolStream]:
        """Return the parts that are tool calls."""
        return [tool for _, part in self._shown() if (tool := ToolStream.of(part)) is not None]

    def append_at(self, offset: int, text: str, type: str = "text") -> int:
        """Append *text* where the parts of *type* have *offset* characters so far; return how many they have then.

        Doing it again changes nothing, so that a writer that got no answer may just repeat itself.

        Raises:
            WrongOffset: they have another number of characters, and *text* is not what stands there.
        """
        value = self.to_value()
        there = "" if value is None else value.text_of(0, "reasoning" if type == "reasoning" else "text")
        known = there[offset : offset + len(text)]
        if offset > len(there) or not text.startswith(known):
            raise WrongOffset(offset=offset, length=len(there))
        more = text[len(known) :]
        if more:
            open_part = self.resume_text()
            if open_part is None or open_part.type != type:
                self.close_parts()
                open_part = self.open_text(type)
            open_part.append(more)
        return len(there) + len(more)

    def close_parts(self, state: StreamState = "done") -> None:
        """Close every part that is still streaming: its writer is gone.

        Args:
            state: ``done``, or ``interrupted`` so that people see that there should have been more.
        """
        for part in self.parts:
            if isinstance(part, Map) and part.get("state") == "streaming":
                part["state"] = state
            elif isinstance(part, Map) and part.get("state") == "input-streaming":
                part["state"] = "input-available" if state == "done" else "output-error"
                if state != "done":
                    part["errorText"] = "interrupted"

    def ends_with(self, status: RunStatus) -> bool:
        """Whether :meth:`end_calls` would change something."""
        return any(ending(tool.state, tool.approval, status) is not None for tool in self.tools())

    def end_calls(self, status: RunStatus) -> None:
        """End the tool calls that have no result: their run has ended with *status*. See :func:`model.ending`."""
        for tool in self.tools():
            tool.end(status)

    def part_values(self) -> Iterator[Part]:
        """Yield the parts that count, in JSON form; those that layout 1 cannot describe are left out."""
        for _, part in self._shown():
            if (value := part_value(part)) is not None:
                yield value

    def to_value(self) -> Message | None:
        """Return the message in JSON form, or None if its head is missing or not valid."""
        head = self.head
        if head is None:
            return None
        beside = {"seq": self.seq, "by": self.by, "runId": self.run_id, "parts": list(self.part_values())}
        return Message.model_validate({**head.model_dump(by_alias=True), **beside})  # a head may have any further key


def part_map(part: Value) -> Map[Any]:
    """Return a part as it stands in a document."""
    value = part.json_value()
    for key in ("text", "inputText", "transcript"):
        if isinstance(value.get(key), str):
            value[key] = Text(value[key])
    return Map(value)


def superseded(at: int, part: Any, gone: int) -> bool:
    """Whether a new beginning took the place of the part at *at*, where it did of the first *gone* ones.

    It does not of a tool call that people, or devices of theirs, were asked about.
    """
    asked = isinstance(part, Map) and (part.get("approvalRequest") or part.get("clientCall")) is not None
    return at < gone and not asked


def part_value(part: Any) -> Part | None:
    """Return a part in JSON form, or None if it is none that layout 1 can describe."""
    try:
        return _part_value(part) if isinstance(part, Map) else None
    except ValidationError:
        return None


def _part_value(part: Map[Any]) -> Part:
    value = spelled(part)
    if isinstance(value.get("draft"), dict):
        value["draft"] = filled_in(part["draft"])
    return _PART.validate_python(value)


def _part_flaw(part: Any) -> str | None:
    if not isinstance(part, Map):
        return NO_MAP
    try:
        _part_value(part)
    except ValidationError as error:
        return "; ".join(why_not(error))
    return None


def place_in_order(seq: int | None, created_at: int, id: str) -> tuple[bool, int, str]:
    """Return the key by which messages are ordered; those without a number stand last."""
    return (True, created_at, id) if seq is None else (False, seq, id)

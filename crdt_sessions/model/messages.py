"""``messages``: the conversation, as typed views over the document.

What one message is stands in ``message_view``. Documents are written by many hands, so reading never fails on one bad
entry: what layout 1 cannot describe is skipped (a message without a valid head, a part of unknown shape).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from pycrdt import Array, Map

from crdt_sessions.errors import NotFound
from crdt_sessions.model.base import Value
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.message_view import MessageView, part_map, place_in_order
from crdt_sessions.model.tool_stream import ToolStream
from crdt_sessions.model.values import Message, MessageHead


class Messages:
    """The messages of a session.

    What child runs write stands beside the conversation (``delegated``): it is found by its id, and has no place in
    the order.
    """

    def __init__(self, document: SessionDoc) -> None:
        self._document = document

    @property
    def _root(self) -> Map[Any]:
        return self._document.roots.messages

    @property
    def _beside(self) -> Map[Any]:
        return self._document.roots.delegated

    def __len__(self) -> int:
        return len(self._root)

    def __contains__(self, message_id: object) -> bool:
        return isinstance(message_id, str) and (message_id in self._root or message_id in self._beside)

    def add(
        self,
        head: MessageHead,
        parts: list[Value] | None = None,
        *,
        run_id: str | None = None,
        beside: bool = False,
    ) -> MessageView:
        """Add a message; if its id is taken, return the existing message (ids are idempotency keys).

        Args:
            head: the part that is written once.
            parts: complete parts. Streamed ones are opened on the view.
            run_id: the run that writes this message.
            beside: whether it stands beside the conversation.
        """
        if head.id not in self:
            entry: dict[str, Any] = {
                "head": head.json_value(),
                "parts": Array([part_map(part) for part in parts or []]),
            }
            if run_id is not None:
                entry["runId"] = run_id
            (self._beside if beside else self._root)[head.id] = Map(entry)
        return self[head.id]

    def __getitem__(self, message_id: str) -> MessageView:
        """Return the view of a message.

        Raises:
            NotFound: there is no such message.
        """
        view = self.find(message_id)
        if view is None:
            raise NotFound(what="message", id=message_id)
        return view

    def find(self, message_id: str) -> MessageView | None:
        """Return the view of a message, or None if there is none."""
        entry = self._root.get(message_id)
        if entry is None:
            entry = self._beside.get(message_id)
        return MessageView(message_id, entry) if isinstance(entry, Map) else None

    def find_tool(self, message_id: str | None, tool_call_id: str) -> ToolStream | None:
        """Return the part of a tool call; None if its message has none, or if there is no such message."""
        message = self.find(message_id) if message_id is not None else None
        return message.tool(tool_call_id) if message is not None else None

    def is_beside(self, message_id: str) -> bool:
        """Whether a message stands beside the conversation."""
        return message_id in self._beside and message_id not in self._root

    def ids(self) -> list[str]:
        """Return the ids of all entries of the conversation, in no order."""
        return list(self._root.keys())

    def ids_beside(self) -> list[str]:
        """Return the ids of all entries beside the conversation, in no order."""
        return list(self._beside.keys())

    def beside(self) -> list[Message]:
        """Return the messages beside the conversation, oldest first."""
        values = (self.value(message_id) for message_id in self.ids_beside() if self.is_beside(message_id))
        return sorted((value for value in values if value is not None), key=order)

    def ordered(self) -> list[Message]:
        """Return all messages in the session's order: by ``seq``; without one last, by creation time, then id."""
        return sorted(self._values(), key=order)

    def _values(self) -> Iterator[Message]:
        for message_id in self.ids():
            value = self.value(message_id)
            if value is not None:
                yield value

    def views(self) -> Iterator[MessageView]:
        """Yield a view of each message of the conversation, in no order."""
        return (MessageView(message_id, entry) for message_id, entry in self._root.items() if isinstance(entry, Map))

    def all_views(self) -> Iterator[MessageView]:
        """Yield a view of each message, also of those beside the conversation, in no order."""
        for root in (self._root, self._beside):
            yield from (MessageView(id, entry) for id, entry in root.items() if isinstance(entry, Map))

    def page(self, after: int, limit: int) -> list[Message]:
        """Return up to *limit* messages with a place in the order after *after*, in that order.

        Only those of the page are converted.
        """
        placed = [(seq, view) for view in self.views() if (seq := view.seq) is not None and seq > after]
        values = (view.to_value() for _, view in sorted(placed, key=lambda pair: pair[0]))
        return list(islice((value for value in values if value is not None), limit))

    def heads(self) -> list[MessageHead]:
        """Return the heads of all messages, in no order."""
        return [head for view in self.views() if (head := view.head) is not None]

    def last_seq(self) -> int:
        """Return the last place in the order that was given; 0 if none was."""
        return max((view.seq or 0 for view in self.views()), default=0)

    def count_after(self, seq: int, *, besides: str) -> int:
        """Return how many messages after *seq* in the order are by another author than *besides*."""
        after = (view.head for view in self.views() if (view.seq or 0) > seq)
        return sum(head is not None and head.author.id != besides for head in after)

    def value(self, message_id: str) -> Message | None:
        """Return a message in JSON form, or None if there is none that layout 1 can describe."""
        view = self.find(message_id)
        return view.to_value() if view is not None else None

    def find_value(self, message_id: str) -> Message:
        """Return a message in JSON form.

        Raises:
            NotFound: there is none that layout 1 can describe.
        """
        value = self.value(message_id)
        if value is None:
            raise NotFound(what="message", id=message_id)
        return value


def order(message: Message) -> tuple[bool, int, str]:
    """Return the key by which messages are ordered."""
    return place_in_order(message.seq, message.created_at, message.id)

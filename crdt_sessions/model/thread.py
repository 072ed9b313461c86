"""Which messages come before which: a conversation is a tree, and a thread is one path through it.

A message that names its ``parent`` comes after that. One that names none comes after whatever stood last when it got
its place in the order; if it ``replaces`` another, it comes after what that one comes after.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sessions.model.values import Message


class Threads:
    """The tree that messages form.

    Args:
        messages: in the session's order.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = {message.id: message for message in messages}
        ids = list(self._messages)
        self._before = dict(zip(ids[1:], ids, strict=False))

    def thread(self, leaf: str) -> list[Message]:
        """Return the messages that lead to *leaf*, which is the last of them; none if there is no such message."""
        path: list[Message] = []
        seen: set[str] = set()
        message = self._messages.get(leaf)
        while message is not None and message.id not in seen:  # careless writers could make a circle
            seen.add(message.id)
            path.append(message)
            message = self._messages.get(self.parent(message.id) or "")
        return path[::-1]

    def parent(self, message_id: str) -> str | None:
        """Return what a message comes after, or None if it is a beginning."""
        message = self._messages.get(message_id)
        seen: set[str] = set()
        while message is not None and message.parent is None and message.replaces is not None:
            if message.id in seen:
                return None
            seen.add(message.id)
            message = self._messages.get(message.replaces)
        if message is None:
            return None
        return message.parent if message.parent is not None else self._before.get(message.id)

    def siblings(self, message_id: str) -> list[Message]:
        """Return a message and its alternatives, oldest first: what comes after the same message in the same role."""
        message = self._messages.get(message_id)
        if message is None:
            return []
        parent = self.parent(message_id)
        return [
            each for each in self._messages.values() if each.role == message.role and self.parent(each.id) == parent
        ]

"""Which messages come before which: a conversation is a tree, and a thread is one path through it.

A message that names its ``parent`` comes after that. One that names none comes after whatever stood last when it got
its place in the order; if it ``replaces`` another, it comes after what that one comes after. The order is the
session's, but for history that was brought later: it stands in front of what it ``precedes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crdt_sessions.model.run_values import Run
from crdt_sessions.model.values import Message


class Threads:
    """The tree that messages form.

    Args:
        messages: in the session's order.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = {message.id: message for message in arranged(messages)}
        """By id, in the order in which they are read."""
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

    def original(self, message: Message) -> str:
        """Return the id of the message that *message* is a version of, through all between; its own if of none."""
        seen: set[str] = set()
        while message.replaces in self._messages and message.id not in seen:
            seen.add(message.id)
            message = self._messages[message.replaces]
        return message.id


def arranged(messages: Sequence[Message]) -> list[Message]:
    """Return *messages*, which are in the session's order, in the order in which they are read."""
    ids = {message.id for message in messages}
    ahead: dict[str, list[Message]] = {}
    for message in messages:
        if message.precedes in ids:
            ahead.setdefault(message.precedes or "", []).append(message)
    if not ahead:
        return list(messages)
    found: dict[str, Message] = {}
    stack = [message for message in reversed(messages) if message.precedes not in ids]
    while stack:
        message = stack[-1]
        if before := ahead.pop(message.id, None):
            stack += reversed(before)
        else:
            found.setdefault(message.id, stack.pop())
    circular = (message for message in messages if message.id not in found)  # careless writers could make a circle
    return [*found.values(), *circular]


def conversation(messages: Sequence[Message], runs: Iterable[Run], leaf: str | None = None) -> list[Message]:
    """Return what people see: everything but what another version, or another answer, has taken the place of.

    Several people may talk at once, so this is more than the one path that leads to the newest message. What came
    after something that is left out is left out too.

    Args:
        messages: in the session's order.
        runs: the session's; they say which answers were asked for in place of others.
        leaf: return what led to this message, which is the last then; to the newest if None.
    """
    messages = arranged(messages)
    threads = Threads(messages)
    path = {message.id for message in threads.thread(leaf)} if leaf is not None else set()
    left_out = _losers(messages, runs, threads, path)
    for message in messages:
        if message.id not in path and threads.parent(message.id) in left_out:
            left_out.add(message.id)
    seen = [message for message in messages if message.id not in left_out]
    ids = [message.id for message in seen]
    return seen[: ids.index(leaf) + 1] if leaf in ids else seen


def _losers(messages: Sequence[Message], runs: Iterable[Run], threads: Threads, path: set[str]) -> set[str]:
    """Return the messages that another one has taken the place of: the newest has, unless one is on the *path*."""
    ids = {message.id for message in messages}
    expected: dict[str, bool] = {}  # question to whether an answer that was asked for anew is still to come
    for run in runs:
        if run.request is not None and run.request.trigger == "regenerate":
            written = run.output in ids
            if written or not run.over:
                question = run.request.message_id
                expected[question] = expected.get(question, False) or not written
    rivals: dict[tuple[str, str], list[str]] = {}
    for message in messages:
        if message.role == "assistant" and message.reply_to in expected:
            rivals.setdefault(("answer", message.reply_to or ""), []).append(message.id)
        else:
            rivals.setdefault(("version", threads.original(message)), []).append(message.id)
    losers: set[str] = set()
    for (kind, key), group in rivals.items():
        kept = path.intersection(group) or ({} if kind == "answer" and expected[key] else group[-1:])
        losers.update(id for id in group if id not in kept)
    return losers

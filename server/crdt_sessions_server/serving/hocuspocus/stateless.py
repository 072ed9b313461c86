"""Stateless messages: texts between clients and the application, which belong to a session and are not kept.

What a client sends goes to the application's handlers, and to nobody else: they decide who hears of it. A client
cannot make the service broadcast.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from crdt_sessions.ids import SessionId
from crdt_sessions.runtime import Access
from crdt_sessions.wire import hocuspocus
from crdt_sessions_server.serving.hocuspocus.document import DocumentLine

_log = logging.getLogger("crdt_sessions.stateless")


@dataclass(frozen=True, slots=True)
class StatelessMessage:
    """What a client said."""

    session: SessionId
    access: Access
    """Whose connection it is, and what it may do in the session now."""
    payload: str
    reply: Callable[[str], None]
    """Sends a text back, to this client only."""
    broadcast: Callable[[str], int]
    """Sends a text to all clients of the session on this route, this one included; returns how many there are."""


Handler = Callable[[StatelessMessage], Awaitable[None]]


class StatelessMessages:
    """The handlers of stateless messages, and those who hear them."""

    def __init__(self) -> None:
        self._handlers: list[Handler] = []
        self._lines: defaultdict[SessionId, set[DocumentLine]] = defaultdict(set)

    def handle(self, handler: Handler) -> Handler:
        """Have *handler* called with each message, in order; usable as a decorator.

        While it has not returned, nothing more is read from the client's socket. What it raises is logged.
        """
        self._handlers.append(handler)
        return handler

    def broadcast(self, session: SessionId, payload: str) -> int:
        """Send a text to all clients of a session on this route; return how many there are."""
        lines = [line for line in self._lines.get(session, ()) if line.attached]
        for line in lines:
            line.write([hocuspocus.stateless(line.address, payload)])
        return len(lines)

    @contextmanager
    def reaching(self, session: SessionId, line: DocumentLine) -> Iterator[None]:
        """Let a client hear what is broadcast for as long as the context lasts."""
        self._lines[session].add(line)
        try:
            yield
        finally:
            self._lines[session].discard(line)
            if not self._lines[session]:
                del self._lines[session]

    async def hear(self, line: DocumentLine, payload: str) -> None:
        """Give the handlers what a client said that was let in."""
        session = line.session
        assert session is not None
        assert line.access is not None
        message = StatelessMessage(
            session,
            line.access,
            payload,
            reply=lambda text: line.write([hocuspocus.stateless(line.address, text)]),
            broadcast=lambda text: self.broadcast(session, text),
        )
        if not self._handlers:
            _log.debug("nobody handles stateless messages", extra={"session": session})
        for handler in self._handlers:
            try:
                await handler(message)
            except Exception:  # noqa: BLE001 - the application's; the client is served on
                _log.exception("a handler of stateless messages failed", extra={"session": session})

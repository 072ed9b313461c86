"""The conversation, followed: messages as they are finished, or every change of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from crdt_sessions.model import Message, order

if TYPE_CHECKING:
    from crdt_sessions.client.session import SessionPeer


class FollowedMessages:
    """The messages of a session that a peer is connected to."""

    def __init__(self, peer: SessionPeer) -> None:
        self._peer = peer

    def all(self) -> list[Message]:
        """Return all messages in the session's order."""
        return self._peer.view.messages.ordered()

    async def follow(self) -> AsyncIterator[Message]:
        """Yield every message once, in the session's order, when it is finished: those that are there, then new ones.

        A message that is still being written holds back those behind it.

        Raises:
            ConnectionClosed: the server refused this peer for good.
        """
        waiting: dict[str, Message] = {}
        seen: set[str] = set()
        async for changed in self._peer.changed_messages():
            waiting.update((message.id, message) for message in changed if message.id not in seen)
            for message in sorted(waiting.values(), key=order):
                if message.seq is None or not self._finished(message):
                    break
                del waiting[message.id]
                seen.add(message.id)
                yield message

    def _finished(self, message: Message) -> bool:
        """Whether nobody writes it any more: parts may all be closed while its run goes on."""
        run = self._peer.view.runs.value(message.run_id) if message.run_id is not None else None
        return message.done and (run is None or run.ending)

    async def watch(self) -> AsyncIterator[Message]:
        """Yield every message as it is now, and again each time it changes, tokens included.

        Raises:
            ConnectionClosed: the server refused this peer for good.
        """
        async for changed in self._peer.changed_messages():
            for message in changed:
                yield message

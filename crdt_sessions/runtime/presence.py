"""Who is present in a live session without a connection that the service serves: by HTTP, or by a gateway."""

from __future__ import annotations

import hashlib
import json

from crdt_sessions.ids import ClientId, Millis
from crdt_sessions.runtime.effects import EffectLoop
from crdt_sessions.sync import Actor
from crdt_sessions.wire import AwarenessEntry


class SessionPresence:
    """The presence of a session, to be changed.

    Args:
        loop: drives the session.
        life: a text that is new each time the session is loaded into memory.
    """

    def __init__(self, loop: EffectLoop, life: str) -> None:
        self._loop = loop
        self._life = life

    def announce(self, actor: Actor, name: str, state: str, ttl: Millis) -> ClientId:
        """Announce the presence of somebody without a connection; return the client that it is shown as.

        Args:
            actor: who is present.
            name: tells several presences of one principal apart.
            state: as JSON.
            ttl: for how long, if it is not announced again.

        Raises:
            TooLarge, TooMany: it is not taken.
            StorageError: the session failed.
        """
        now = self._begin()
        self._loop.wake()
        client, until = self._client_of(actor.principal, name), Millis(now + ttl)
        return self._loop.change(lambda: self._loop.engine.announce(actor, name, client, state, until, now))

    def relay(self, actor: Actor, entry: AwarenessEntry, ttl: Millis) -> None:
        """Take what a Yjs client without a connection says of its presence.

        Args:
            actor: whose client it is.
            entry: the client, its own clock and its state.
            ttl: for how long, if nothing more is heard of it.

        Raises:
            TooLarge, TooMany, AccessDenied: it is not taken.
            StorageError: the session failed.
        """
        now = self._begin()
        self._loop.wake()
        self._loop.change(lambda: (None, self._loop.engine.relay(actor, entry, Millis(now + ttl), now)))

    def withdraw(self, principal: str, name: str) -> None:
        """End a presence of *principal* that was announced by that *name*, if there is one.

        Raises:
            StorageError: the session failed.
        """
        now = self._begin()
        self._loop.change(lambda: (None, self._loop.engine.withdraw(principal, name, now)))

    def forget(self, principal: str) -> int:
        """Remove the presence of a principal until it announces one again; return the number of clients concerned.

        Raises:
            StorageError: the session failed.
        """
        now = self._begin()
        return self._loop.change(lambda: self._loop.engine.forget_presence(principal, now))

    def _begin(self) -> Millis:
        self._loop.raise_if_failed()
        return self._loop.clock.now()

    def _client_of(self, principal: str, name: str) -> ClientId:
        """Return a client id that is new in each life: its clock begins at 0, and peers remember the former one's."""
        spelled = json.dumps([self._life, principal, name])
        return ClientId(int.from_bytes(hashlib.sha256(spelled.encode()).digest()[:4]) or 1)

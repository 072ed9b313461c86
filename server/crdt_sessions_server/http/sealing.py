"""Cursors after something that whoever gets them may not see: sealed, by one key for all processes of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_sessions.clock import Clock
from crdt_sessions.errors import BadParameter
from crdt_sessions.storage import StreamStore
from crdt_sessions_server.http.stored_secret import stored_secret

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_PATH = "__ds/cursors"
_BEGINNING = "gAAAAA"
"""Of all that is sealed, until 2106. Source: the specification of Fernet, versions and timestamps."""
_PADDED = 256
"""No name is so long, so none looks like a sealed cursor; nor does the length of one tell of the name in it."""


class Seal:
    """What seals cursors, and opens them. The key is made when it is needed first, and kept in the store.

    Args:
        store: where it is kept.
        clock: the only source of time.
    """

    def __init__(self, store: StreamStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._key: Fernet | None = None

    async def sealed(self, cursor: str) -> str:
        """Return a cursor in a form that tells nothing of it."""
        padded = cursor.encode().ljust(_PADDED, b"\0")
        return (await self._loaded()).encrypt(padded).decode()

    async def opened(self, cursor: str) -> str:
        """Return the cursor that was sealed, or *cursor* itself if it is no sealed one.

        Raises:
            BadParameter: it was sealed by nobody.
        """
        if len(cursor) < _PADDED or not cursor.startswith(_BEGINNING):
            return cursor
        from cryptography.fernet import InvalidToken

        try:
            return (await self._loaded()).decrypt(cursor).rstrip(b"\0").decode()
        except (InvalidToken, ValueError) as error:
            raise BadParameter(name="cursor", text=cursor) from error

    async def _loaded(self) -> Fernet:
        if self._key is None:
            from cryptography.fernet import Fernet  # not before: few tokens are for some sessions only

            fresh = Fernet.generate_key().decode()
            self._key = Fernet(await stored_secret(self._store, self._clock, _PATH, "fernet", fresh))
        return self._key

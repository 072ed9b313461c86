"""Work on documents that are not in memory, away from the event loop: in the sandbox, or in a thread."""

from __future__ import annotations

import asyncio

from crdt_sessions.errors import EarlyUpdate
from crdt_sessions.model import Folded, SessionDoc, fold, revert_update
from crdt_sessions.runtime.identifiers import Identifiers
from crdt_sessions.runtime.sandbox import Sandbox
from crdt_sessions.wire import EMPTY_UPDATE


class Documents:
    """Makes updates of updates.

    Args:
        sandbox: where foreign updates meet the CRDT library; this process, if None.
        identifiers: source of Yjs client ids.
    """

    def __init__(self, sandbox: Sandbox | None, identifiers: Identifiers) -> None:
        self._sandbox = sandbox
        self._identifiers = identifiers

    async def fold(self, updates: list[bytes]) -> Folded:
        """Return the smallest update that holds everything in *updates*, verified.

        Raises:
            UpdateError, StorageError: that cannot be done.
        """
        if self._sandbox is not None:
            return await self._sandbox.fold(updates)
        return await asyncio.to_thread(fold, updates)

    async def vouch(self, updates: list[bytes]) -> tuple[bytes, bytes]:
        """Return what foreign updates make of an empty document, and what of them waits for something missing.

        Raises:
            UpdateError: they cannot be applied, or do harm; or something waits, and there is a sandbox.
        """
        if self._sandbox is not None:
            whole, waiting = await self._sandbox.vouch(updates)
            if waiting != EMPTY_UPDATE:
                raise EarlyUpdate(size=len(waiting))
            return whole, waiting
        document = SessionDoc(self._identifiers.client_id())
        try:
            for update in updates:
                document.apply(update)
            return document.encode(), document.waiting
        finally:
            document.close()

    async def revert_update(self, document: bytes, earlier: bytes) -> bytes:
        """Return the update that makes *document* look as it did *earlier*.

        Raises:
            UpdateError, StorageError: that cannot be done.
        """
        if self._sandbox is not None:
            return await self._sandbox.revert_update(document, earlier, self._identifiers.client_id())
        return await asyncio.to_thread(revert_update, document, earlier, self._identifiers.client_id())

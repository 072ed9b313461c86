"""A store whose appends may be kept back, and what is stored in it meanwhile."""

import asyncio
from contextlib import asynccontextmanager

from crdt_sessions.model import SessionDoc, SessionView
from crdt_sessions.storage import MemoryStore


class Held(MemoryStore):
    """A store that stores as many appends as it may."""

    def __init__(self):
        super().__init__()
        self.may = asyncio.Semaphore(100)

    async def append(self, session, rows, **options):
        await self.may.acquire()
        await super().append(session, rows, **options)

    @asynccontextmanager
    async def held(self):
        while not self.may.locked():
            await self.may.acquire()
        try:
            yield
        finally:
            for _ in range(100):
                self.may.release()


async def stored_text(store, session, message="m"):
    """Return the text of a message as far as it is stored."""
    document = SessionDoc(9)
    for row in (await store.load(session)).rows:
        document.apply(row.update)
    return SessionView(document).messages.value(message).text

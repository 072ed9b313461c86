"""pycrdt-websocket as its documentation starts it, on Hypercorn: ``python pycrdt_server.py PORT [DATABASE]``."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from pycrdt.store import SQLiteYStore, YDocNotFound
from pycrdt.websocket import ASGIServer, WebsocketServer, YRoom


class Rooms(WebsocketServer):
    """Gives every room a store, and what is in it, if there is a database."""

    def __init__(self, database: str | None) -> None:
        super().__init__()
        self.database = database
        self._starting = asyncio.Lock()  # two who come at once would both start it

    async def get_room(self, name: str) -> YRoom:
        """Return the room, started."""
        async with self._starting:
            return await self._get_room(name)

    async def _get_room(self, name: str) -> YRoom:
        if name in self.rooms or self.database is None:
            return await super().get_room(name)
        store: Any = type("Store", (SQLiteYStore,), {"db_path": self.database})(name)
        room = self.rooms[name] = YRoom(ready=False, ystore=store)
        await self.start_room(room)
        await store.started.wait()
        with contextlib.suppress(YDocNotFound):
            await store.apply_updates(room.ydoc)
        room.ready = True
        return room


async def main() -> None:
    """Serve until killed."""
    rooms = Rooms(sys.argv[2] if len(sys.argv) > 2 else None)
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.accesslog = config.errorlog = None
    async with rooms:
        print("listening", flush=True)
        await serve(ASGIServer(rooms), config)  # type: ignore[arg-type]


asyncio.run(main())

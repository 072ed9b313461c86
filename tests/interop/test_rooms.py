"""An application written for pycrdt-websocket, on sessions: docs/how-to/migrate.md says what it has to change."""

import asyncio

import pytest
import websockets
from httpx_ws import aconnect_ws
from pycrdt import Doc, Map, Provider, Text
from pycrdt.websocket.websocket import HttpxWebsocket

from crdt_sessions import SessionRegistry, SqliteStore
from crdt_sessions.errors import BadSessionId
from crdt_sessions.runtime import Access, present
from crdt_sessions.runtime.rooms import WebsocketServer
from crdt_sessions.sync import Rights
from tests.processes import PATIENCE, attempts

pytestmark = pytest.mark.interop


class Served:
    """A websocket of the application's library, as pycrdt-websocket wants it."""

    def __init__(self, socket):
        self.socket, self.path = socket, socket.request.path

    async def send(self, message):
        await self.socket.send(message)

    def __aiter__(self):
        return self.socket.__aiter__()


class Application:
    """Serves rooms, and keeps in each how often it was changed, as an application that saves files would."""

    def __init__(self, folder):
        self.folder, self.closings, self.may_write = folder, [], True

    async def __aenter__(self):
        self.store = await SqliteStore(self.folder / "s.db").__aenter__()
        self.registry = await SessionRegistry(self.store).__aenter__()
        rights = Rights(write=False)
        self.rooms = await WebsocketServer(
            self.registry, access=lambda _: Access() if self.may_write else Access("viewer", rights)
        ).__aenter__()
        self.server = await websockets.serve(self.peer, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self.server.close()
        await self.rooms.__aexit__(*error)
        await self.registry.__aexit__(*error)
        await self.store.__aexit__(*error)

    async def peer(self, socket):
        closing = await self.rooms.serve(Served(socket))
        self.closings.append(closing.code)
        await socket.close(closing.code, closing.reason)

    def client(self, name="room"):
        return aconnect_ws(f"http://127.0.0.1:{self.port}/{name}", keepalive_ping_interval_seconds=None)


async def until(condition):
    for _ in attempts():
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not come about")


def text(doc):
    return str(doc.get("source", type=Text))


async def test_the_application_and_stock_providers_write_one_document_and_it_lasts(tmp_path):
    async with Application(tmp_path) as app:
        room = await app.rooms.get_room("/room")
        assert room.ready
        source = room.ydoc.get("source", type=Text)
        source += "print(1)"  # as from a file
        async with app.client() as one, app.client() as other:
            docs = Doc(), Doc()
            async with (
                Provider(docs[0], HttpxWebsocket(one, "room")),
                Provider(docs[1], HttpxWebsocket(other, "room")),
            ):
                await until(lambda: text(docs[0]) == text(docs[1]) == "print(1)")
                mine = docs[0].get("source", type=Text)
                mine += "\nprint(2)"
                docs[1].get("state", type=Map)["dirty"] = True
                await until(lambda: text(room.ydoc) == text(docs[1]) == "print(1)\nprint(2)")
                await until(lambda: room.ydoc.get("state", type=Map).get("dirty") is True)
                source.insert(0, "# saved\n")
                await until(lambda: text(docs[0]) == "# saved\nprint(1)\nprint(2)")
                assert len(room.clients) == 2
        await until(lambda: not app.rooms.rooms)  # the last one has gone
    async with Application(tmp_path) as app:
        assert text((await app.rooms.get_room("room")).ydoc) == "# saved\nprint(1)\nprint(2)"


async def test_what_the_application_wrote_is_durable_when_it_says_so_and_presence_goes_through(tmp_path):
    async with Application(tmp_path) as app:
        room = await app.rooms.get_room("room")
        room.ydoc.get("source", type=Text).insert(0, "x")
        await asyncio.wait_for(room.durable(), PATIENCE)
        async with app.registry.open(room.session) as session:
            assert text(session.engine.document.doc) == "x"
            room.awareness.set_local_state({"user": {"name": "kernel"}})
            await until(lambda: "kernel" in str(present(session)))


async def test_messages_are_filtered_and_clients_that_may_not_write_read(tmp_path):
    async with Application(tmp_path) as app:
        room = await app.rooms.get_room("room")
        seen = []
        room.on_message = lambda message: bool(seen.append(message[0]))
        app.may_write = False
        async with app.client() as one:
            doc = Doc()
            async with Provider(doc, HttpxWebsocket(one, "room")):
                room.ydoc.get("source", type=Text).insert(0, "theirs")
                await until(lambda: text(doc) == "theirs")
                doc.get("source", type=Text).insert(0, "mine ")
                room.ydoc.get("source", type=Text).insert(6, "!")
                await until(lambda: text(doc) == "mine theirs!")
        assert text(room.ydoc) == "theirs!"
        assert 0 in seen


async def test_a_room_ends_with_its_session(tmp_path):
    async with Application(tmp_path) as app:
        room = await app.rooms.get_room("room")
        with pytest.raises(BadSessionId):
            await app.rooms.get_room("a/../b")
        await app.registry.delete(room.session)
        await until(lambda: not room.joined)
        with pytest.raises(RuntimeError, match="4404"):
            await app.rooms.get_room("room")
        assert not app.rooms.rooms

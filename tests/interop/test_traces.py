"""Real editing histories through the running service, and through wire, engine and store."""

import asyncio
import gzip
import json
import subprocess
from itertools import islice

import pytest
from pycrdt import Array, Doc, Map, Text

from crdt_sessions.ids import Millis, PeerId, Seq, SessionId
from crdt_sessions.model import SessionDoc, merge, seed, settled_meta
from crdt_sessions.storage import MemoryStore, Row, SqliteStore
from crdt_sessions.sync import TRUSTED, Committed, FrameReceived, PeerJoined, Persist, SessionEngine, Tried, Try
from crdt_sessions.wire import SyncStep1, SyncStep2, Update, YWebSocket, decode
from crdt_sessions.wire.varint import Reader
from tests.interop.node import JS, needs_node
from tests.processes import ROOT
from tests.profiles import sample

pytestmark = pytest.mark.interop

DATA = ROOT / "tests/data"
HISTORIES = 5_320
NOW = Millis(1_700_000_000_000)


@needs_node
@pytest.mark.slow
@pytest.mark.parametrize("name", ["friendsforever", "clownschool"][: sample("traces")])
@pytest.mark.nightly
def test_concurrent_traces_end_as_they_did(server, name):
    file = DATA / f"traces/{name}.concurrent.json.gz"
    done = subprocess.run(
        ["node", JS / "trace.mjs", file, server.ws, name, "20"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:] + "\n".join(server.lines)
    seen = json.loads(done.stdout)
    assert seen["equal"]
    assert seen["cuts"] == 20
    expected = json.loads(gzip.decompress(file.read_bytes()))["endContent"]
    with server.http() as http:
        stored = Doc()
        stored.apply_update(http.get(f"/v1/sessions/{name}/export", params={"format": "yjs"}).content)
    assert str(stored.get("draft", type=Text)) == expected


class Line:
    """A session engine with one writing peer, and what it handed to the store."""

    def __init__(self):
        session = SessionId("case")
        self.document = SessionDoc(99)
        self.rows = [Row(Seq(1), seed(session, generation=1, created_at=NOW, client_id=98))]
        self.document.apply(self.rows[0].update)
        self.engine = SessionEngine(
            session, self.document, after=Seq(1), settled_meta=settled_meta(session, 1, NOW, "active")
        )
        self.do(self.engine.start(NOW))
        for peer in (PeerId(1), PeerId(2)):
            self.do(self.engine.handle(PeerJoined(peer, "p"), NOW))
            self.do(self.engine.handle(FrameReceived(peer, [SyncStep1(b"\x00")]), NOW))
        self.seen = []
        self.read()

    def send(self, update):
        self.do(self.engine.handle(FrameReceived(PeerId(1), [Update(update)]), NOW))

    def do(self, effects):
        persisted = [Row(effect.seq, effect.update) for effect in effects if isinstance(effect, Persist)]
        self.rows += persisted
        if persisted:
            self.engine.handle(Committed(persisted[-1].seq), NOW)
        for effect in effects:
            if isinstance(effect, Try):
                self.do(self.engine.handle(Tried(effect.trial, TRUSTED), NOW))

    def read(self):
        """Take what the other peer is owed."""
        for data in YWebSocket(10**9).write(self.engine.take(PeerId(2), NOW)):
            self.seen += [frame.update for frame in decode(data) if isinstance(frame, SyncStep2 | Update)]


def _cases():
    reader = Reader((DATA / "yjs/small-test-dataset.bin").read_bytes())
    for _ in range(reader.varuint()):
        updates = [reader.buffer() for _ in range(reader.varuint())]
        yield updates, reader.string(), _any(reader), _any(reader)
    assert reader.remaining == 0


def _any(reader):
    """Read a lib0 "any"."""
    import struct

    tag = reader.take(1)[0]
    if tag == 125:  # a signed varint: 6 bits and a sign in the first byte, 7 in each that follows
        byte = reader.take(1)[0]
        value, shift, negative = byte & 0x3F, 6, byte & 0x40
        while byte & 0x80:
            byte = reader.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
        return -value if negative else value
    constants = {127: None, 126: None, 121: False, 120: True}
    if tag in constants:
        return constants[tag]
    readers = {
        124: lambda: struct.unpack(">f", reader.take(4))[0],
        123: lambda: struct.unpack(">d", reader.take(8))[0],
        122: lambda: struct.unpack(">q", reader.take(8))[0],
        119: reader.string,
        118: lambda: {reader.string(): _any(reader) for _ in range(reader.varuint())},
        117: lambda: [_any(reader) for _ in range(reader.varuint())],
        116: reader.buffer,
    }
    return readers[tag]()


async def test_the_conformance_data_passes_through_wire_engine_and_store(tmp_path):
    """Randomised histories of real Yjs, all of them in the weekly profile: what a reader is sent, and what is stored, is what they end as."""
    count = 0
    async with SqliteStore(tmp_path / "s.db") as store:
        for batch in batched(islice(_cases(), None, None, HISTORIES // sample("histories")), 200):
            await asyncio.gather(*(_passes(store, count + n, *case) for n, case in enumerate(batch)))
            count += len(batch)
    assert count == sample("histories")


async def _passes(store, number, updates, text, mapped, array):
    line = Line()
    for update in updates:
        line.send(update)
    line.read()
    session = SessionId(f"case-{number}")
    await store.create(session, line.rows[0].update, generation=1, title=None, now=NOW)
    await store.append(session, line.rows[1:], now=NOW)
    rows = (await store.load(session)).rows
    seen, stored = Doc(), Doc()
    seen.apply_update(merge(line.seen))
    stored.apply_update(merge(row.update for row in rows))
    for doc in (line.document.doc, seen, stored):
        assert str(doc.get("text", type=Text)) == text
        assert doc.get("map", type=Map).to_py() == (mapped or {})
        assert doc.get("array", type=Array).to_py() == array
    line.document.close()


def batched(items, size):
    """Yield lists of up to *size* items (itertools.batched needs Python 3.12)."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


async def test_a_large_history_is_stored_folded_and_loaded(tmp_path):
    update = (DATA / "yjs/b4-update.bin").read_bytes()
    for store in (MemoryStore(), SqliteStore(tmp_path / "s.db")):
        if isinstance(store, SqliteStore):
            await store.__aenter__()
        session = SessionId("b4")
        await store.create(session, update, generation=1, title=None, now=NOW)
        doc = Doc()
        doc.apply_update((await store.load(session)).rows[0].update)
        assert len(str(doc.get("text", type=Text))) == 104_852
        await store.close()

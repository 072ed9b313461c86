"""What other Yjs servers keep is read: written by themselves where they are at hand, else by their formats."""

import asyncio
import json
import shutil
import sqlite3
import struct
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Map, Text
from pycrdt.store import SQLiteYStore

from crdt_sessions.errors import StorageError, WireError
from crdt_sessions.wire.varint import varuint
from crdt_sessions_server.migration.leveldb import unsnappy
from crdt_sessions_server.migration.sources import source_at
from tests.interop.node import JS, needs_node
from tests.processes import ROOT


def letters(*words):
    """Return updates that write words one behind the other, and the document's text."""
    doc, updates = Doc(), []
    doc.observe(lambda event: updates.append(event.update))
    text = doc.get("draft", type=Text)
    for word in words:
        text += word
    return updates


def text_of(updates):
    doc = Doc()
    for update in updates:
        doc.apply_update(update)
    return str(doc.get("draft", type=Text))


def all_texts(path):
    with closing(source_at(path)) as source:
        return source.kind, {name: text_of(source.updates(name)) for name in source.names()}


async def ystore(path, documents):
    """Have pycrdt-store write documents, as Jupyter does."""

    class Store(SQLiteYStore):
        db_path = str(path)
        checkpoint_interval = 3

    for name, updates in documents.items():
        async with Store(name) as store:
            for update in updates:
                await store.write(update)


def hocuspocus(path, documents):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            'CREATE TABLE "documents" ("name" varchar(255) NOT NULL, "data" blob NOT NULL, UNIQUE(name))'
        )
        connection.executemany("INSERT INTO documents VALUES (?, ?)", documents.items())


def y_sweet(folder, documents):
    """Write what y-sweet's file store writes: a map of bytes to bytes, by bincode."""
    for name, updates in documents.items():
        number = bytes(4)
        entries = {b"\x00\x00doc\x00": number, b"\x00\x01" + number + b"\x00": updates[0],
                   b"\x00\x01" + number + b"\x01": b"\x00"}  # fmt: skip
        for clock, update in enumerate(updates[1:]):
            entries[b"\x00\x01" + number + b"\x02" + clock.to_bytes(4, "big") + b"\x00"] = update
        data = struct.pack("<Q", len(entries))
        for key, value in sorted(entries.items()):
            data += struct.pack("<Q", len(key)) + key + struct.pack("<Q", len(value)) + value
        (folder / name).mkdir(parents=True)
        (folder / name / "data.ysweet").write_bytes(data)


def written(folder: Path, documents):
    """Write plain updates."""
    folder.mkdir(exist_ok=True)
    for name, update in documents.items():
        (folder / f"{name}.bin").write_bytes(update)
    return folder


def test_documents_of_pycrdt_store(tmp_path):
    asyncio.run(ystore(tmp_path / "y.db", {"text:one": letters(*"abcdefg"), "two": letters("Grüße 😀")}))
    assert all_texts(tmp_path / "y.db") == (
        "pycrdt-store's SQLiteYStore",
        {"text:one": "abcdefg", "two": "Grüße 😀"},
    )


def test_documents_of_an_older_pycrdt_store(tmp_path):
    with closing(sqlite3.connect(tmp_path / "y.db")) as connection, connection:
        connection.execute("CREATE TABLE yupdates (path TEXT NOT NULL, yupdate BLOB, metadata BLOB, timestamp REAL)")
        rows = [("one", update, None, 1.0) for update in letters("a", "b")]
        connection.executemany("INSERT INTO yupdates VALUES (?, ?, ?, ?)", rows)
    assert all_texts(tmp_path / "y.db")[1] == {"one": "ab"}


def test_documents_of_hocuspocus(tmp_path):
    doc = Doc()
    doc.get("draft", type=Text).insert(0, "x")
    hocuspocus(tmp_path / "h.sqlite", {"a/b": doc.get_update()})
    assert all_texts(tmp_path / "h.sqlite") == ("Hocuspocus' SQLite", {"a/b": "x"})


def test_documents_of_y_sweet(tmp_path):
    y_sweet(tmp_path, {"one": letters("a", "b", "c"), "deep/two": letters("x")})
    assert all_texts(tmp_path) == ("y-sweet's files", {"deep/two": "x", "one": "abc"})
    file = tmp_path / "one/data.ysweet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StorageError, match="ysweet cannot be read"):
        source_at(tmp_path).updates("one")


def test_plain_updates_and_the_old_documents(tmp_path):
    shutil.copytree(ROOT / "tests/data/yjs", tmp_path / "old" / "yjs")
    (tmp_path / "old/readme.txt").write_text("no document")
    source = source_at(tmp_path / "old")
    assert source.kind == "plain updates"
    assert "yjs/yjs-13.2.0-text" in source.names()
    one = source_at(tmp_path / "old/yjs/yjs-13.2.0-map.bin")
    doc = Doc()
    doc.apply_update(one.updates("yjs-13.2.0-map")[0])
    expected = json.loads((ROOT / "tests/data/yjs/yjs-13.2.0-map.expected.json").read_text("utf-8"))
    assert doc.get("map", type=Map).to_py() == expected["json"]


@pytest.mark.interop
@needs_node
def test_documents_of_y_leveldb(tmp_path):
    folder = tmp_path / "level"
    subprocess.run(["node", JS / "leveldb.mjs", folder, "5"], check=True, cwd=JS, timeout=120)
    assert any(folder.glob("*.ldb")), "tables, and not only a log"
    kind, texts = all_texts(folder)
    assert kind == "y-leveldb"
    assert texts.pop("large") == "large " * 200_000
    assert len(texts.pop("many")) > 1_000_000
    assert texts == {f"dok {n}/ä": "".join(f"Wörter {n}.{word} 😀 " for word in range(20)) for n in range(5)}
    assert len(source_at(folder).updates("dok 0/ä")) == 1, "it was folded, and what it was folded of is gone"


def test_a_database_of_ours_is_none_of_theirs_and_nothing_else_is_guessed_at(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE things (x)")
    with pytest.raises(StorageError, match="something else"):
        source_at(tmp_path / "other.db")
    with pytest.raises(StorageError, match="there is no file"):
        source_at(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="no file in it"):
        source_at(tmp_path / "empty")
    (tmp_path / "level").mkdir()
    (tmp_path / "level/CURRENT").write_text("MANIFEST-000001\n")
    with pytest.raises(StorageError, match="cannot be read"):
        source_at(tmp_path / "level")


def test_what_snappy_made_is_read_and_nonsense_is_refused():
    assert unsnappy(b"\x0b\x28hello world") == b"hello world"
    assert unsnappy(b"\x08\x04ab\x09\x02") == b"abababab", "it repeats what it has just made"
    for bad in (b"\x05\x00a", b"\x02\x01\x05", b"\x04\x0cab"):
        with pytest.raises((WireError, IndexError)):
            unsnappy(bad)


@given(st.binary(max_size=500))
def test_literals_of_any_length_are_read(data):
    size = len(data)
    tag = b"" if not size else bytes([(size - 1) << 2]) if size <= 60 else b"\xf4" + (size - 1).to_bytes(2, "little")
    assert unsnappy(varuint(size) + tag + data) == data

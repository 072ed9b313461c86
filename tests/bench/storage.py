"""Bytes per streamed token: in the file, before and after the rows are folded, and written into the write-ahead log.

``python -m tests.bench.storage``
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.limits import Compaction, Retention
from crdt_sessions.model import Author, MessageHead, PartStream
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import Row, SqliteStore

ROOM = SessionId("room")
WORDS = ("The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", ".", " 😀", " naïve")
"""Tokens of about five bytes, as models stream them."""


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes of a database's pages that are in use."""
    (pages,), (free,), (page_bytes,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page_bytes)


def size(path: Path) -> tuple[int, int]:
    """Return the bytes of the file's pages that are in use, and of the updates and snapshots alone."""
    with sqlite3.connect(path) as connection:
        used = used_bytes(connection)
        ((rows,),) = connection.execute(
            "SELECT sum(length(data)) FROM (SELECT data FROM updates UNION ALL SELECT data FROM snapshots)"
        ).fetchall()
    connection.close()
    return used, int(rows)


async def measure(folder: Path, tokens: int) -> dict[str, Any]:
    """Stream *tokens* into one message, one update a token, and measure."""
    path = folder / "s.db"
    never = Compaction(max_rows=10**9, min_rows_on_unload=10**9)
    async with SqliteStore(path) as store:
        async with SessionRegistry(store, compaction=never, retention=Retention(last=1, dailies=0)) as registry:
            async with registry.open(ROOM, create=True) as session:
                empty, _ = size(path)
                head = MessageHead(
                    id="m", role="assistant", author=Author(id="a", name="A", kind="agent"), created_at=1
                )
                await session.edit(lambda view: view.messages.add(head, []))
                stream = await session.edit(lambda view: PartStream.open(view.messages["m"].parts, "text"))
                text = [WORDS[number % len(WORDS)] for number in range(tokens)]
                for token in text:
                    await session.edit(lambda _, token=token: stream.append(token))
                before = size(path)
                await session.snapshot()
                after = size(path)
    characters = len("".join(text).encode())
    return {
        "tokens": tokens,
        "text_bytes": characters,
        "before": {
            "file_per_token": round((before[0] - empty) / tokens, 1),
            "per_token": round(before[1] / tokens, 1),
        },
        "after": {"file_per_token": round((after[0] - empty) / tokens, 1), "per_token": round(after[1] / tokens, 1)},
        "after_per_text_byte": round(after[1] / characters, 2),
    }


async def written(folder: Path, *, sessions: int, tokens: int) -> float:
    """Return the bytes that a token costs in the write-ahead log, if each is committed alone and sessions alternate."""
    path = folder / "w.db"
    async with SqliteStore(path, max_wal_bytes=2**40) as store:
        rooms = [SessionId(f"session-{number}") for number in range(sessions)]
        for room in rooms:
            await store.create(room, b"seed", generation=1, title=None, now=Millis(0))
        log = path.with_name("w.db-wal")
        before = log.stat().st_size
        for number in range(tokens):
            row = Row(Seq(2 + number // sessions), b"an update of 24 bytes...")
            await store.append(rooms[number % sessions], [row], now=Millis(number))
        return (log.stat().st_size - before) / tokens


def main() -> None:
    """Print a line of JSON for each size."""
    for tokens in (1_000, 5_000):
        with tempfile.TemporaryDirectory() as folder:
            log = asyncio.run(written(Path(folder), sessions=20, tokens=tokens))
            print(json.dumps(asyncio.run(measure(Path(folder), tokens)) | {"written_per_token": round(log)}))


if __name__ == "__main__":
    main()

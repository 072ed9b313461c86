"""W2 and W4: clients that come for the first time, come back, all at once after a restart; and what is on the disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.document import History, check, held
from tests.bench.load import load
from tests.bench.peers import Peer, Running, running
from tests.bench.storage import used_bytes

_SETTLE_S = 3.0  # Hocuspocus stores two seconds after the last change


def join(server: Running, folder: Path, content: History, *, count: int, back: bool) -> dict[str, Any]:
    """Have *count* clients join at once, fresh or *back* from missing a hundredth; return how long each took."""
    dump, vector = folder / "dump", folder / "vector"
    dump.unlink(missing_ok=True)
    expected = len(content.missed if back else content.whole)
    options: dict[str, float | str] = {"joins": count, "dump": str(dump), "expect": expected * 0.95}
    if back:
        vector.write_bytes(content.vector)
        options["vector"] = str(vector)
    used = server.cpu()
    with load(server, "join", **options) as running_load:
        result = running_load.until("result")
    check(list(_updates(dump.read_bytes())), content, back=back)
    result.pop("event")
    return {**result, "server_cpu_s": round(server.cpu() - used, 3)}


def _updates(dumped: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(dumped):
        end = at + 4 + int.from_bytes(dumped[at : at + 4], "little")
        yield dumped[at + 4 : end]
        at = end


def joins(peer: Peer, folder: Path, content: History) -> dict[str, dict[str, Any]]:
    """Return the figures of fresh joins, returns, a first join after a restart, and a herd after another one."""
    data = folder / "data.db"
    found: dict[str, dict[str, Any]] = {}
    with running(peer, data) as server, held(server, content):
        time.sleep(_SETTLE_S)
        for name, back in (("fresh", False), ("back", True)):
            each = [join(server, folder, content, count=1, back=back) for _ in range(9)]
            found[name] = sorted(each, key=lambda result: float(result["p50_ms"]))[4]
    found["disk"] = {"bytes_per_text_byte": round(size(data) / content.text_bytes, 3)}
    if not peer.durable:
        return found
    with running(peer, data) as server:
        found["cold"] = join(server, folder, content, count=1, back=False)
    with running(peer, data) as server:
        found["herd"] = join(server, folder, content, count=500, back=True)
    return found


def size(data: Path) -> int:
    """Return the bytes a server's data take on the disk; free pages of SQLite are not counted."""
    if data.is_dir():
        return sum(file.stat().st_size for file in data.rglob("*") if file.is_file())
    if not data.exists():
        return 0
    with sqlite3.connect(data) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        used = used_bytes(connection)
    connection.close()
    return used

"""W3: many sessions with one client each, that do nothing; then one in a hundred does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.bench.load import load
from tests.bench.peers import Peer, Running, running

_STANDS_STILL_S = 7.0
"""A process of the sandbox loads what it needs after five seconds."""
_PAGES = 500_000


def idle(peer: Peer, folder: Path, sessions: int, *, seconds: float) -> dict[str, Any]:
    """Return what each session costs while it rests, and what one active one in a hundred costs."""
    with running(peer, folder / "data.db") as server:
        with load(server, "idle", sessions=1, active=1, rate=100, seconds=1, patience=300) as first:
            first.until("connected")
            base = _settled(server)
        with load(
            server, "idle", sessions=sessions, active=sessions // 100, rate=100, seconds=seconds, patience=300
        ) as running_load:
            begun = time.monotonic()
            running_load.until("connected")
            took = time.monotonic() - begun
            time.sleep(2)
            held = server.memory()
            used = server.cpu()
            time.sleep(seconds)
            resting = (server.cpu() - used) / seconds
            running_load.go()
            running_load.until("begin")
            used = server.cpu()
            running_load.until("end")
            active = (server.cpu() - used) / seconds
    return {
        "connect_s": round(took, 2),
        "base_mb": round(base / 1e6, 1),
        "kb_per_session": round((held - base) / sessions / 1000, 1),
        "resting_cpu": round(resting, 3),
        "active_cpu": round(active, 3),
    }


def _settled(server: Running) -> int:
    """Return the bytes it holds once they stand still: what is started on demand, such as the sandbox, comes late."""
    held, since = server.memory(), time.monotonic()
    while time.monotonic() - since < _STANDS_STILL_S:
        time.sleep(0.5)
        now = server.memory()
        if abs(now - held) > _PAGES:
            held, since = now, time.monotonic()
    return held

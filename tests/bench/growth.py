"""W5: one session that grows: cost of a token, memory and joining, small and large."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

from crdt_sessions.model import fold
from tests.bench.document import held, history
from tests.bench.joining import join, size
from tests.bench.load import load
from tests.bench.peers import Peer, Running, running

_STEPS = 10


def one_long_message(peer: Peer, folder: Path, tokens: int) -> dict[str, Any]:
    """Stream *tokens* through one session; return what a token cost the server at the beginning and at the end."""
    data = folder / "data.db"
    step = tokens // _STEPS
    with running(peer, data) as server:
        base = server.memory()
        cpu, at = [server.cpu()], [time.monotonic()]
        with load(
            server, "fan-out", sessions=1, viewers=1, tokens=tokens, progress=step, warmup=0, seconds=600, window=2000
        ) as running_load:
            running_load.until("begin")
            for _ in range(_STEPS):
                running_load.until("progress")
                cpu.append(server.cpu())
                at.append(time.monotonic())
            running_load.until("result")
        held = server.memory()
        joined = _join_ms(server, tokens * 5)
    cost = [(after - before) / step * 1e6 for before, after in itertools.pairwise(cpu)]
    return {
        "tokens": tokens,
        "tokens_per_s": round(tokens / (at[-1] - at[0])),
        "first_cpu_us_per_token": round(cost[0], 2),
        "last_cpu_us_per_token": round(cost[-1], 2),
        "last_to_first": round(cost[-1] / max(cost[0], 0.01), 2),
        "rss_bytes_per_token": round((held - base) / tokens, 1),
        "join_ms": joined,
        "disk_bytes_per_token": round(size(data) / tokens, 1),
    }


def _join_ms(server: Running, expected: int) -> float:
    found = []
    for _ in range(5):
        with load(server, "join", joins=1, expect=expected) as running_load:
            found.append(float(running_load.until("result")["p50_ms"]))
    return sorted(found)[2]


def many_messages(peer: Peer, messages: int) -> dict[str, Any]:
    """Return how long a fresh client takes to join a session of *messages* short messages."""
    content = history(messages, 40)
    with (
        tempfile.TemporaryDirectory() as name,
        running(peer, Path(name) / "data.db") as server,
        held(server, content),
    ):
        each = sorted(join(server, Path(name), content, count=1, back=False)["p50_ms"] for _ in range(5))
        return {"messages": messages, "join_ms": each[2], "bytes": len(content.whole)}


def folding(messages: int) -> dict[str, Any]:
    """Return how long it takes to fold the rows of *messages* messages into a snapshot, verified."""
    pieces = history(messages, 40).pieces
    begun = time.perf_counter()
    folded = fold(pieces)
    took = time.perf_counter() - begun
    return {"rows": messages, "ms": round(took * 1000), "bytes": len(folded.update)}

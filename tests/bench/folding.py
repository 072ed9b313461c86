"""How long folding rows holds up the event loop: ``python -m tests.bench.folding``.

The longest gap between two turns of the loop while a session of many rows is folded: on the loop itself, as it would
be without care, in a thread, as the library does by default, and in the sandbox's process, as the service does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from crdt_sessions.model import SessionDoc, fold
from crdt_sessions.runtime import Sandbox


def rows(count: int) -> list[bytes]:
    """Return *count* updates of about 400 bytes."""
    document = SessionDoc(5)
    made = []
    for number in range(count):
        _, delta = document.edit(lambda doc, n=number: doc.roots.state.__setitem__(f"k{n % 500}", {"v": "x" * 380}))
        assert delta is not None
        made.append(delta)
    document.close()
    return made


async def longest_gap(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return the longest pause of the loop while *work* is done, and how long it took, in milliseconds."""
    gaps: list[float] = []

    async def turn() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0)
            gaps.append(time.perf_counter() - begun)

    turning = asyncio.create_task(turn())
    await asyncio.sleep(0.01)
    gaps.clear()
    begun = time.perf_counter()
    await work()
    took = time.perf_counter() - begun
    await asyncio.sleep(0)
    turning.cancel()
    return max(gaps) * 1000, took * 1000


async def measure(count: int) -> None:
    """Print a line of JSON for each way."""
    updates = rows(count)

    async def here() -> None:
        fold(updates)

    async with Sandbox() as sandbox:
        await sandbox.fold(updates[:2])  # started
        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "on the loop": here,
            "in a thread": lambda: asyncio.to_thread(fold, updates),
            "in the sandbox": lambda: sandbox.fold(updates),
        }
        for name, work in ways.items():
            gap, took = min([await longest_gap(work) for _ in range(5)])
            print(json.dumps({"rows": count, "where": name, "gap_ms": round(gap, 1), "took_ms": round(took)}))


if __name__ == "__main__":
    for number in (2_000, 10_000):
        asyncio.run(measure(number))

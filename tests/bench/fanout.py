"""W1: agents stream tokens to viewers, one update a token, a new ``Text`` every thousand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.load import fan_out
from tests.bench.peers import Peer, running

SHAPES = {"1x10": (1, 10), "50x2": (50, 2), "1x100": (1, 100), "1x1000": (1, 1000), "500x2": (500, 2)}
"""Sessions, each with one agent, and viewers of each."""
SLOW_SHAPES = {"20x2": (20, 2), "500x1": (500, 1)}
"""Those measured at :data:`SLOW` tokens a second of each agent, which is what many models speak."""
SLOW = 20
SLOW_WARMUP_S = 6
"""The first text of each of 500 documents is tried in another process before it is taken: that is over by then."""
WINDOWS = (2_000, 20_000)
"""Tokens that may be under way in all. Some servers coalesce more, some choke: each is shown at its best."""


def saturated(peer: Peer, folder: Path, shape: str, *, seconds: float) -> dict[str, Any]:
    """Return the deliveries that *peer* manages when agents write as fast as viewers read."""
    sessions, viewers = SHAPES[shape]
    results = []
    for window in WINDOWS:
        with running(peer, folder / f"{window}.db") as server:
            per_session = max(20, window // sessions)
            results.append(fan_out(server, sessions=sessions, viewers=viewers, seconds=seconds, window=per_session))
            results[-1]["window"] = window
    return max(results, key=lambda result: float(result["per_s"]))


def paced(
    peer: Peer, folder: Path, shape: str, *, seconds: float, rate: int = 100, warmup: float = 1
) -> dict[str, Any]:
    """Return what *rate* tokens a second of each agent cost *peer* after *warmup* seconds, and how late they arrive."""
    sessions, viewers = (SHAPES | SLOW_SHAPES)[shape]
    with running(peer, folder / "data.db") as server:
        return fan_out(server, sessions=sessions, viewers=viewers, seconds=seconds, rate=rate, warmup=warmup)


def by_stock_clients(peer: Peer, folder: Path, *, seconds: float, rate: int | None) -> dict[str, Any]:
    """Return what tokens of twenty agents cost *peer*, each with two viewers, all of them Hocuspocus' own clients.

    With *rate* each writes so many tokens a second, without as fast as its viewers read. One process of Node plays
    them all, which has more to do than the servers: see what a server costs, not what it could carry.
    """
    pace = {"rate": rate} if rate else {"window": 100}
    with running(peer, folder / "data.db") as server:
        return fan_out(server, stock=True, sessions=20, viewers=2, seconds=seconds, **pace)

"""Runs a load generator against a server, and looks at the server meanwhile: the compiled one (``load.c``), or Hocuspocus'
own clients (``js/stock.mjs``)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.bench.peers import HERE, Running, generator


class Load:
    """A load generator that runs."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def until(self, event: str) -> dict[str, Any]:
        """Return the next event of that name.

        Raises:
            RuntimeError: the load ended before: something wrong was received, or nothing.
        """
        assert self._child.stdout is not None
        for line in self._child.stdout:
            said: dict[str, Any] = json.loads(line)
            if said["event"] == event:
                return said
        raise RuntimeError(f"the load ended with {self._child.wait()} before {event!r}; its message stands above")

    def go(self) -> None:
        """Let it go on."""
        assert self._child.stdin is not None
        self._child.stdin.write("go\n")
        self._child.stdin.flush()


@contextmanager
def load(server: Running, mode: str, *, stock: bool = False, **options: float | str) -> Iterator[Load]:
    """Start a load generator in *mode*, that of *stock* clients or the compiled one; end it in the end."""
    program = ["node", HERE / "js/stock.mjs"] if stock else [generator()]
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    child = subprocess.Popen(
        [*program, mode, "--port", str(server.port), "--prefix", server.peer.prefix, "--dialect", server.peer.dialect, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Load(child)
    finally:
        child.kill()
        child.communicate()


def fan_out(server: Running, *, stock: bool = False, **options: float | str) -> dict[str, Any]:
    """Stream tokens through *server*; return what was delivered, how fast, and what it cost the server."""
    with load(server, "fan-out", stock=stock, **options) as running:
        running.until("begin")
        used = server.cpu()
        running.until("end")
        used = server.cpu() - used
        memory = server.memory()
        result = running.until("result")
    result.pop("event")
    deliveries = max(1, result["deliveries"])
    return {
        **result,
        "server_cpu": round(used / result["seconds"], 3),
        "cpu_us_per_delivery": round(used / deliveries * 1e6, 3),
        "bytes_per_delivery": round(result["bytes"] / deliveries, 2),
        "frames_per_delivery": round(result["frames"] / deliveries, 4),
        "rss_mb": round(memory / 1e6, 1),
    }

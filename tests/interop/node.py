"""Real JavaScript Yjs clients, in a Node process driven over pipes."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from crdt_sessions.model import decode_extent
from tests.processes import PATIENCE, Process

JS = Path(__file__).parent / "js"
AVAILABLE = shutil.which("node") is not None and (JS / "node_modules").is_dir()
WHY_NOT = "needs Node and its packages: install Node 20 or newer, then run make setup"

needs_node = pytest.mark.skipif(not AVAILABLE, reason=WHY_NOT)


class NodePeers:
    """Any number of stock clients in one Node process."""

    def __init__(self, script=JS / "peers.mjs", *arguments):
        self._process = Process("node", script, *arguments, stdin=True)
        self._ids = itertools.count(1)
        self._turn = threading.Lock()

    def __call__(self, command, **options):
        """Run a command and return its result."""
        call = next(self._ids)
        with self._turn:
            self._process.child.stdin.write(json.dumps({"call": call, "command": command, **options}) + "\n")
            self._process.child.stdin.flush()
        self._process.wait_for(rf'^\{{"call":{call},')
        line = next(line for line in self._process.lines if line.startswith(f'{{"call":{call},'))
        answer = json.loads(line)
        self._process.lines.remove(line)
        assert "error" not in answer, answer.get("error")
        return answer["result"]

    async def ask(self, command, **options):
        """Run a command without blocking the event loop."""
        return await asyncio.to_thread(self, command, **options)

    def until(self, condition, timeout=PATIENCE, **options):
        """Ask until *condition* holds for the answer; return it."""
        deadline = time.monotonic() + timeout
        while True:
            answer = self(**options)
            if condition(answer):
                return answer
            assert time.monotonic() < deadline, f"timed out; last answer: {str(answer)[:2000]}"
            time.sleep(0.03)

    def synced(self, *peers):
        for peer in peers:
            self.until(lambda status: status["synced"], command="status", peer=peer)

    def content(self, peer):
        """Return what :func:`crdt_sessions.testing.content` returns of a Python replica."""
        return _content(self("dump", peer=peer))

    async def content_async(self, peer):
        return await asyncio.to_thread(self.content, peer)

    def close(self):
        self._process.close()


def _content(dump):
    version = decode_extent(bytes.fromhex(dump["snapshot"]))
    return {"deleted": version.deleted, "clocks": version.clocks, "json": dump["json"], "draft": dump["draft"]}

"""Real processes for tests: the service, and whatever else is started and killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.forkserver import Forked

ROOT = Path(__file__).parent.parent
TREE = Path(os.environ.get("TREE", ROOT))
"""Where the code under test is; the tests of the tests put a broken copy there."""
UPGRADE = (
    b"GET /v1/sync/%b HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""The request that opens a WebSocket to the session put into it. A frame before the answer to it gets a 400."""


class Process:
    """A child process whose output is collected and can be waited for.

    With *fork* it is a Python process that finds the service and the library imported.
    """

    def __init__(self, *command, env=None, stdin=False, fork=False):
        self.lines: list[str] = []
        self._arrived = threading.Condition()
        command = [str(part) for part in command]
        env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        if fork and command[0] == sys.executable and sys.platform == "linux":
            self.child = Forked(command[1:], env=env, cwd=TREE, stdin=stdin)
        else:
            self.child = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                cwd=TREE,
                env=env,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.child.stdout:
            with self._arrived:
                self.lines.append(line.rstrip("\n"))
                self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()

    def wait_for(self, pattern, timeout=20.0):
        """Return the match of the first line that *pattern* is found in."""
        found = None

        def look():
            nonlocal found
            found = next((match for line in self.lines if (match := re.search(pattern, line))), None)
            return found is not None or not self._reader.is_alive()

        with self._arrived:
            self._arrived.wait_for(look, timeout)
        assert found is not None, f"no {pattern!r} in:\n" + "\n".join(self.lines)
        return found

    def kill(self):
        """SIGKILL: no handler runs, no buffer is flushed."""
        self.child.kill()
        self._end()

    def terminate(self, timeout=15.0):
        """SIGTERM; return the exit status."""
        self.child.send_signal(signal.SIGTERM)
        return self._end(timeout)

    def _end(self, timeout=15.0):
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise
        finally:
            self._reader.join(5)
            self.child.stdout.close()
            if self.child.stdin:
                self.child.stdin.close()

    def close(self):
        """Kill it if it runs."""
        if self.child.poll() is None:
            self.kill()
        elif not self.child.stdout.closed:
            self._end()


class Server(Process):
    """The service on a database file."""

    def __init__(self, database, *flags, port=0, env=None, python=sys.executable):
        self.database, self.flags, self.port = database, flags, port
        super().__init__(
            python, "-m", "crdt_sessions_server", "serve",
            "--database", database, "--port", port, "--log-level", "warning", *flags,
            env=env, fork=True,
        )  # fmt: skip
        try:
            self.url = self.wait_for(r"on (https?://\S+)").group(1)
        except AssertionError:
            self.close()
            raise
        self.port = int(self.url.rsplit(":", 1)[1])

    def again(self, *flags):
        """Start it again on the same port and file."""
        return Server(self.database, *(flags or self.flags), port=self.port)

    @property
    def ws(self):
        return self.url.replace("http://", "ws://") + "/v1/sync"

    def raw_peer(self, session="room", receive_buffer=None):
        """A socket after its WebSocket handshake, for peers that no library would play."""
        peer = socket.socket()
        if receive_buffer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # counts before connect only
        peer.connect(("127.0.0.1", self.port))
        peer.sendall(UPGRADE % session.encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += peer.recv(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        return peer

    def http(self, **options):
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, **options)


class Replay(Process):
    """The endpoint that replays recorded streams, at *rate* events per second."""

    def __init__(self, rate):
        self.port = free_port()
        script = ROOT / "examples/replay_server.py"
        super().__init__(sys.executable, script, "--port", self.port, "--rate", rate, fork=True)
        self.wait_for("Running on")
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {"OPENAI_BASE_URL": f"{self.url}/v1", "OPENAI_API_KEY": "none"}
        """For agents that are to ask it."""


@contextmanager
def replaying(database, rate, *flags):
    """A service, a model that replays recorded streams at *rate* events per second, and an agent between them."""
    server = Server(database, *flags)
    replay = Replay(rate)
    model = Process(
        sys.executable, ROOT / "examples/model_agent.py", "--url", server.url,
        env={**replay.env, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield server
    finally:
        for process in (model, replay, server):
            process.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""Real processes for tests: the service, and whatever else is started and killed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.forkserver import Forked

PATIENCE = float(os.environ.get("PATIENCE", "60"))
"""Seconds to wait for what is sure to come. Only a test that fails waits for so long, on however slow a machine."""
ROOT = Path(__file__).parent.parent
TREE = Path(os.environ.get("TREE", ROOT))
"""Where the code under test is; the tests of the tests put a broken copy there."""
PROBLEM = "urn:crdt-sessions:problem:"
"""What the type of a problem document begins with."""
UPGRADE = (
    b"GET /v1/sync/%b HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""The request that opens a WebSocket to the session put into it. A frame before the answer to it gets a 400."""


def attempts() -> Iterator[int]:
    """Count attempts at what is sure to succeed, for as long as there is PATIENCE."""
    until, number = time.monotonic() + PATIENCE, 0
    while number == 0 or time.monotonic() < until:
        yield number
        number += 1


RUNNING: set[Process] = set()
"""Those that nobody has waited for yet: at the end of all tests, none may run."""


class Process:
    """A child process whose output is collected and can be waited for.

    With *fork* it is a Python process that finds the service and the library imported. It works in *folder*.
    With *group*, what it has started ends with it.
    """

    def __init__(self, *command, env=None, stdin=False, fork=False, folder=TREE, group=False):
        self.lines: list[str] = []
        self._arrived = threading.Condition()
        self._group = group
        command = [str(part) for part in command]
        env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        if fork and command[0] == sys.executable and sys.platform == "linux":
            self.child = Forked(command[1:], env=env, cwd=TREE, folder=folder, stdin=stdin)
        else:
            place = ["nsenter", f"--net={env['PLACE']}"] if "PLACE" in env else []
            self.child = subprocess.Popen(
                [*place, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                cwd=folder,
                env=env,
                start_new_session=group,
            )
        self.test = os.environ.get("PYTEST_CURRENT_TEST", "")
        RUNNING.add(self)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.child.stdout:
            with self._arrived:
                self.lines.append(line.rstrip("\n"))
                self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()

    def wait_for(self, pattern, timeout=PATIENCE):
        """Return the match of the first line that *pattern* is found in."""
        return self._wait(
            pattern,
            lambda: next((match for line in self.lines if (match := re.search(pattern, line))), None),
            timeout,
        )

    def wait_for_lines(self, pattern, *, after=0, timeout=PATIENCE):
        """Return the number of the line behind where *pattern*, which may span lines, is found below line *after*."""

        def found():
            text = "".join(f"{line}\n" for line in self.lines[after:])
            match = re.search(f"^(?:{pattern})", text, re.M)
            return match and after + text.count("\n", 0, match.end())

        return self._wait(pattern, found, timeout)

    def _wait(self, pattern, looked, timeout):
        found = None

        def look():
            nonlocal found
            found = looked()
            return found is not None or not self._reader.is_alive()

        with self._arrived:
            self._arrived.wait_for(look, timeout)
        assert found is not None, f"no {pattern!r} in:\n" + "\n".join(self.lines)
        return found

    def kill(self):
        """SIGKILL: no handler runs, no buffer is flushed."""
        if self._group:
            os.killpg(self.child.pid, signal.SIGKILL)
        else:
            self.child.kill()
        self._end()

    def terminate(self, timeout=PATIENCE):
        """SIGTERM; return the exit status."""
        self.child.send_signal(signal.SIGTERM)
        return self._end(timeout)

    def _end(self, timeout=PATIENCE):
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise
        finally:
            RUNNING.discard(self)
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


def end_who_is_left():
    """Kill whom nobody has ended; return what each said first, and which test started it."""
    left = [process for process in RUNNING if process.child.poll() is None]
    for process in left:
        process.kill()
    return [f"{process.test} {process.lines[:1]}" for process in left]


def command(*arguments, **env):
    """Run ``crdt-sessions`` with *arguments*, and with *env* besides what is in the environment."""
    return python("-m", "crdt_sessions_server", *arguments, **env)


def python(*arguments, **env):
    """Run Python, a script or a module, to its end."""
    arguments = [*map(str, arguments)]
    env = os.environ | env
    if sys.platform != "linux":
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, encoding="utf-8", check=False,
            timeout=PATIENCE, cwd=TREE, env=env,
        )  # fmt: skip
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        child = Forked(arguments, env=env, cwd=TREE, stderr=errors.fileno())
        with child.stdout:
            said = child.stdout.read()
        status = child.wait(PATIENCE)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, status, said, errors.read())


class Server(Process):
    """The service on a database file.

    Its port is one that is free when it is started again, as far as this can be had: a client that looks for it
    while it is dead may be given this very number for its own end. So it is started until it has the port, as by
    whatever supervises a service.
    """

    def __init__(self, database, *flags, port=0, env=None, python=sys.executable, fork=True):
        self.database, self.flags = database, flags
        until = time.monotonic() + PATIENCE
        while True:
            self.port = port or free_port()
            super().__init__(
                python, "-m", "crdt_sessions_server", "serve",
                "--database", database, "--port", self.port, "--log-level", "warning", *flags,
                env=env, fork=fork,
            )  # fmt: skip
            try:
                self.url = self.wait_for(r"on (https?://\S+)").group(1)
                break
            except AssertionError:
                self.close()
                if not any("Address already in use" in line for line in self.lines) or time.monotonic() > until:
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
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, **options)


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


@contextlib.contextmanager
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
    """Return a port for a process that is about to start, or to start again later.

    It lies below those that systems give to whoever asks for any (Linux from 32,768 on, sandboxes of it from
    16,000): nobody else comes across it in between.
    """
    while True:
        port = 10_000 + secrets.randbelow(6_000)  # no seed of a test reaches this
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def all_gone(pids):
    """Wait until none of these processes runs; what a part has started ends just after that part, by itself."""
    for _ in attempts():
        if not any(map(_runs, pids)):
            return True
        time.sleep(0.02)
    return False


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # dead, and not yet reaped
    except (FileNotFoundError, ProcessLookupError):
        return False

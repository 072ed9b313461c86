"""Starts Python processes that need not import what this one has imported: two seconds for a service, each time.

They are processes like any other: of their own memory, environment, arguments and standard streams, ended as the
interpreter ends, and to be killed. Run by :class:`Forked`, with the socket on which it asks as its argument.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

_MAX_REQUEST = 1 << 20


class Forked:
    """A Python process, with what tests need of :class:`subprocess.Popen`.

    Args:
        arguments: ``-m`` and a module, or a script; then what is in ``sys.argv`` behind it.
        env: its whole environment.
        cwd: whose code it has; each such folder has a server of its own.
        folder: where it works, if not there.
        stdin: whether it can be written to.
        stderr: the file that its errors go to, if not where its output goes.
    """

    _servers: dict[Path, tuple[socket.socket, subprocess.Popen[bytes]]] = {}  # noqa: RUF012 - one for all

    def __init__(
        self,
        arguments: list[str],
        *,
        env: dict[str, str],
        cwd: Path,
        folder: Path | None = None,
        stdin: bool = False,
        stderr: int | None = None,
    ) -> None:
        server = self._server(cwd)
        self._control, theirs = socket.socketpair()
        out, their_out = os.pipe()
        if stdin:
            their_in, writable = os.pipe()
            self.stdin = open(writable, "w", encoding="utf-8")  # noqa: SIM115
        else:
            their_in, self.stdin = os.open(os.devnull, os.O_RDONLY), None
        given = [theirs.fileno(), their_in, their_out, their_out if stderr is None else stderr]
        request = json.dumps({"arguments": arguments, "env": env, "folder": str(folder or cwd)}).encode()
        socket.send_fds(server, [request], given)
        theirs.close()
        os.close(their_in)
        os.close(their_out)
        self.stdout = open(out, encoding="utf-8")  # noqa: SIM115
        self._said = self._control.makefile()
        self.pid = int(self._said.readline())
        self.returncode: int | None = None

    @classmethod
    def _server(cls, cwd: Path) -> socket.socket:
        if cwd not in cls._servers:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            number = theirs.fileno()
            child = subprocess.Popen([sys.executable, __file__, str(number)], pass_fds=[number], cwd=cwd)
            theirs.close()
            if not ours.recv(1):
                raise RuntimeError("the service cannot be imported; see above")
            cls._servers[cwd] = ours, child
            atexit.register(_end, ours, child)
        return cls._servers[cwd][0]

    def poll(self) -> int | None:
        """See :meth:`subprocess.Popen.poll`."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """See :meth:`subprocess.Popen.wait`."""
        if self.returncode is None:
            if not select.select([self._control], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._said.readline())
            self._said.close()
            self._control.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """See :meth:`subprocess.Popen.send_signal`."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """See :meth:`subprocess.Popen.terminate`."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """See :meth:`subprocess.Popen.kill`."""
        self.send_signal(signal.SIGKILL)


def _end(asking: socket.socket, child: subprocess.Popen[bytes]) -> None:
    asking.close()
    child.wait(10)


def _serve(requests: socket.socket) -> None:
    """Fork until nobody can ask any more; return only in the processes that were asked for."""
    service, agents = (
        ("crdt_sessions_server.cli", "crdt_sessions_server.process", "crdt_sessions_server.workers", "uvloop"),
        ("crdt_sessions.client", "openai"),
    )
    for module in (*service, *agents):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # whose collector looks at what was imported writes into each page of it, and gets a copy of its own
    requests.send(b"!")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch
    while True:
        request, given, _, _ = socket.recv_fds(requests, _MAX_REQUEST, 4)
        if not request:
            os._exit(0)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            child = os.fork()
            if child == 0:
                _become(json.loads(request), *given)
                return
            _watch(child, *given)
        for each in given:
            os.close(each)


def _watch(child: int, control: int, *streams: int) -> None:
    """Tell which process it is, and how it ended."""
    for each in streams:
        os.close(each)
    os.write(control, b"%d\n" % child)
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    os.write(control, b"%d\n" % status)  # while its number is not given to another one
    os.waitpid(child, 0)
    os._exit(0)


def _become(request: dict, control: int, *streams: int) -> None:
    os.close(control)
    for number, given in enumerate(streams):
        os.dup2(given, number)
        os.close(given)
    os.environ.clear()
    os.environ.update(request["env"])
    if place := os.environ.get("PLACE"):
        from tests.networks import enter

        enter(place)
    os.chdir(request["folder"])
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for name, number in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, open(number, "w", encoding="utf-8", buffering=1, closefd=False))  # noqa: SIM115
    sys.argv = request["arguments"]


if __name__ == "__main__":
    sys.path[0] = os.getcwd()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")

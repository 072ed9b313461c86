"""``crdt-sessions serve --workers N``: several nodes on one port, looked after by a process that does nothing else.

Each worker is the same command on a socket of its own, and the system spreads connections over them
(``SO_REUSEPORT``; ``docs/decisions/0066-a-socket-for-each-worker.md``). One that ends is started anew. Between them
are sockets in a folder that only this user can enter.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from crdt_sessions_server.cluster.addresses import Address
from crdt_sessions_server.process import bind
from crdt_sessions_server.settings import Settings

ANNOUNCED = "crdt-sessions serves "
"""What a process that serves prints first, once it accepts connections."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_HEALTHY_S = 30.0
"""A worker that ran for so long begins with a short pause again."""
_STOP_S = 10.0
"""How much longer than they were told to the workers may take to stop."""
_PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


class DidNotStart(Exception):
    """A worker ended before it served; this says how, and what it printed says why."""


class Worker:
    """A place among the workers, and the process that has it.

    Args:
        number: of the place, from 1 on.
        command: starts a process.
        say: called with what people should know.
    """

    def __init__(self, number: int, command: Sequence[str], say: Say) -> None:
        self.number = number
        self._command = command
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def start(self) -> None:
        """Start a process, and return when it serves.

        Raises:
            DidNotStart: it has ended instead.
            OSError: there can be none now.
        """
        self._ready.clear()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                process_group=0,  # Ctrl-C is for the one that looks after it
                preexec_fn=_ends_with(os.getpid()),
            )  # fmt: skip
        except RuntimeError as error:  # what Python says where the system has no thread to wait for the process
            raise BlockingIOError(errno.EAGAIN, str(error)) from error
        self._reading = asyncio.create_task(self._read(self._process))
        ready, ended = (asyncio.create_task(each) for each in (self._ready.wait(), self._process.wait()))
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            raise DidNotStart(_ended(ended.result()))
        ended.cancel()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if line.startswith(ANNOUNCED.encode()):
                self._ready.set()

    async def keep(self) -> None:
        """Start a process anew whenever one ends, until this is cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            assert self._process is not None
            begun = time.monotonic()
            why = _ended(await self._process.wait())
            pause_s = _FIRST_PAUSE_S if time.monotonic() - begun > _HEALTHY_S else pause_s
            while True:
                self._say(f"worker {self.number} {why}; it is started anew in {pause_s:g} s")
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                try:
                    await self.start()
                except DidNotStart as error:
                    why = str(error)
                except OSError as error:
                    why = f"cannot be started ({error.strerror})"
                else:
                    self._say(f"worker {self.number} is back, as process {self.pid}")
                    break

    async def renew(self) -> None:
        """Stop the process, and return when another one serves."""
        await self.stop(None)
        await self.start()

    async def stop(self, patience_s: float | None) -> None:
        """Have the process end in order, or kill it after a while, and return when it has ended."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), patience_s)
            except TimeoutError:
                self._say(f"worker {self.number} did not stop in time, and is killed")
                self._process.kill()
                await self._process.wait()
        if self._reading is not None:
            await self._reading

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid if self._process is not None else 0


class Workers:
    """All workers of one command, until SIGINT or SIGTERM. SIGHUP has each of them end and start anew, in turn.

    Args:
        settings: what the service was told.
        arguments: the command line behind ``serve``, which the workers get, too.
        say: called with what people should know.
    """

    def __init__(self, settings: Settings, arguments: Sequence[str], say: Say) -> None:
        self._settings = settings
        self._arguments = arguments
        self._say = say
        self._renewing: asyncio.Task[None] | None = None
        self._workers: list[Worker] = []
        self._keeping: list[asyncio.Task[None]] = []

    async def run(self, announce: Callable[[str], None]) -> None:
        """Serve.

        Args:
            announce: called once with the URL, when all workers accept connections.

        Raises:
            DidNotStart: one of them could not.
            OSError: the address cannot be listened on.
        """
        settings, stopping = self._settings, asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._renew)
        folder = Path(tempfile.mkdtemp(prefix="crdt-sessions-"))
        try:
            with bind(settings.host, settings.port, shared=True) as reserved:  # it never listens, so it gets nobody
                host, port = reserved.getsockname()[:2]
                self._workers = [
                    Worker(number, self._command(number, port, folder), self._say)
                    for number in range(1, settings.workers + 1)
                ]
                try:
                    await self._start()
                    scheme = "https" if settings.tls_certificate is not None else "http"
                    announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
                    await stopping.wait()
                finally:
                    await self._stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _start(self) -> None:
        first, *others = self._workers
        await first.start()  # alone, so that what is wrong with the settings is said once
        await asyncio.gather(*(each.start() for each in others))
        self._keeping = [asyncio.create_task(each.keep()) for each in self._workers]

    async def _stop(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        for task in self._keeping:  # before the workers, or one that has died would be started anew meanwhile
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        patience_s = self._settings.shutdown_s + _STOP_S
        await asyncio.gather(*(each.stop(patience_s) for each in self._workers))

    def _renew(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew_all())

    async def _renew_all(self) -> None:
        for at, each in enumerate(self._workers):
            self._keeping[at].cancel()
            await asyncio.wait({self._keeping[at]})
            try:
                await each.renew()
                self._say(f"worker {each.number} was renewed, as process {each.pid}")
            except (DidNotStart, OSError) as error:
                self._say(f"worker {each.number} does not start anew ({error}); the others are left as they are")
                return
            finally:
                self._keeping[at] = asyncio.create_task(each.keep())

    def _command(self, number: int, port: int, folder: Path) -> list[str]:
        return [
            sys.executable, "-m", "crdt_sessions_server", "serve", *self._arguments,
            "--workers", "1", "--reuse-port", "--port", str(port), *self._between(number, folder),
        ]  # fmt: skip

    def _between(self, number: int, folder: Path) -> list[str]:
        """Return the flags that say where other nodes reach a worker."""
        settings = self._settings
        if settings.cluster_listen is None:
            secret = folder / "secret"
            if not secret.exists():
                secret.write_bytes(secrets.token_hex(32).encode())
                secret.chmod(0o600)
            return ["--cluster-listen", f"unix:{folder}/{number}", "--cluster-secret-file", str(secret)]
        flags = ["--cluster-listen", _next(settings.cluster_listen, number)]
        if settings.cluster_address is not None:
            flags += ["--cluster-address", _next(settings.cluster_address, number)]
        return flags


def _next(text: str, number: int) -> str:
    """Return the address of a worker: that of the first one, with a port for each."""
    address = Address.parse(text)
    if address.path:
        return f"{address}.{number}"
    return str(Address(address.host, address.port + number - 1 if address.port else 0))


def _ends_with(parent: int) -> Callable[[], None] | None:
    """Return what a process does before it becomes another one, so that it gets SIGTERM when *parent* has died."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            os.kill(os.getpid(), signal.SIGTERM)

    return ask


def _ended(status: int) -> str:
    return f"was killed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"

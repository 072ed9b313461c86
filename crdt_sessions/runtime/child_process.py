"""One process of the sandbox, from this side: it is started when it is needed, asked, and buried when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from crdt_sessions.errors import StorageError
from crdt_sessions.runtime.sandbox_process import DIED, GIVE_UP, WAKE, patience_for

_log = logging.getLogger("crdt_sessions.sandbox")
_START_S, _FUNERAL_S = 60.0, 1.0
_STARVED = 10
"""How many times its patience a request may take by the clock. On a busy machine the clock also counts the work of
others, and a peer whose update is judged harmful is closed for good."""


class ChildDied(Exception):
    """The process did not survive the request, or did not answer in time."""


class ChildProcess:
    """One process, started when it is first needed and again after each death. It takes one request at a time."""

    def __init__(self, name: str, memory_bytes: int, patience_s: float, program: str, *, niceness: int = 0) -> None:
        self._name = name
        self._niceness = niceness
        self._program = program
        self._memory = memory_bytes
        self._patience = patience_s
        self._child: asyncio.subprocess.Process | None = None
        self._loaded = False
        self._turn = asyncio.Lock()
        self.mirrors: dict[str, int] = {}
        """Bytes of each mirror; the one used last is at the end."""
        self.deaths = 0

    async def ask(self, prepare: Callable[[], Sequence[bytes]]) -> tuple[int, bytes]:
        """Return the answer to the last of the requests that *prepare* returns.

        *prepare* is called when it is their turn: an earlier request may have ended the process and all mirrors.

        Raises:
            ChildDied: the process did not answer.
        """
        async with self._turn:
            child = await self._ready()
            assert child.stdin is not None
            assert child.stdout is not None
            requests = prepare()
            answer = bytes([DIED])
            try:
                async with asyncio.timeout(_STARVED * patience_for(self._patience, sum(map(len, requests)))):
                    for each in requests:
                        child.stdin.write(each)
                        await child.stdin.drain()
                        answer = await _read(child.stdout)
                        if answer[0] == DIED:
                            break
            except TimeoutError:
                answer = await self._give_up(child)
            except (OSError, asyncio.IncompleteReadError):
                await self._bury()
            except asyncio.CancelledError:
                await self._bury()  # its answer would be read as the answer to the next request
                raise
            if answer[0] == DIED:
                self.mirrors.clear()
                self.deaths += 1
                _log.warning("the %s process of the sandbox did not survive a request", self._name)
                raise ChildDied
            return answer[0], answer[1:]

    async def _give_up(self, child: asyncio.subprocess.Process) -> bytes:
        """Have a process killed that does not answer; return its last words."""
        assert child.stdout is not None
        try:
            child.send_signal(GIVE_UP)
            async with asyncio.timeout(_FUNERAL_S):
                return await _read(child.stdout)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            await self._bury()
            return bytes([DIED])

    async def _started(self) -> asyncio.subprocess.Process:
        if self._child is None or self._child.returncode is not None:
            self.mirrors.clear()
            self._loaded = False
            self._child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", self._program, str(self._memory), str(self._patience), str(self._niceness),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
        return self._child

    async def _ready(self) -> asyncio.subprocess.Process:
        """Return the process once it has loaded what it needs. No request is charged with the time that takes."""
        child = await self._started()
        if not self._loaded:
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                async with asyncio.timeout(_START_S):
                    child.stdin.write(WAKE)
                    await child.stdin.drain()
                    await _read(child.stdout)
            except (OSError, asyncio.IncompleteReadError) as error:
                await self._bury()
                raise StorageError("the sandbox process does not start; see the system's log") from error
            self._loaded = True
        return child

    async def start(self) -> None:
        """Start the process now. It loads what it needs when it is first asked, or at leisure."""
        async with self._turn:
            await self._started()

    async def stop(self) -> None:
        """End the process, once it has answered the request under way."""
        async with self._turn:
            await self._bury()

    async def _bury(self) -> None:
        child, self._child = self._child, None
        self.mirrors.clear()
        if child is None:
            return
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()  # it may not have a process group yet
                os.killpg(child.pid, signal.SIGKILL)
        if child.stdin is not None:
            child.stdin.close()
        await child.wait()


async def _read(stream: asyncio.StreamReader) -> bytes:
    return await stream.readexactly(int.from_bytes(await stream.readexactly(4), "big"))

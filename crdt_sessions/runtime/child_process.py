"""One process of the sandbox, from this side: it is started when it is needed, asked, and buried when it dies."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence

from crdt_sessions.errors import StorageError
from crdt_sessions.runtime.child_pipe import ChildPipe
from crdt_sessions.runtime.sandbox_process import DIED, patience_for

_log = logging.getLogger("crdt_sessions.sandbox")
_START_S = 60.0
_STARVED = 10
"""How many times its patience a request may take by the clock. On a busy machine the clock also counts the work of
others, and a peer whose update is judged harmful is closed for good."""


class ChildDied(Exception):
    """The process did not survive the request, or did not answer in time."""


class ChildProcess:
    """One process, started when it is first needed and again after each death.

    Args:
        name: for the log.
        memory_bytes: its address space.
        patience_s: the processor seconds that a small request may take.
        program: the code that it runs.
        niceness: how nice it is.
    """

    def __init__(self, name: str, memory_bytes: int, patience_s: float, program: str, *, niceness: int = 0) -> None:
        self._name = name
        self._command = (sys.executable, "-c", program, str(memory_bytes), str(patience_s), str(niceness))
        self._patience = patience_s
        self._pipe: ChildPipe | None = None
        self._turn = asyncio.Lock()
        self.mirrors: dict[str, int] = {}
        """Bytes of each mirror; the one used last is at the end."""
        self.deaths = 0

    async def ask(self, prepare: Callable[[], Sequence[bytes]]) -> tuple[int, bytes]:
        """Return the answer to the last of the requests that *prepare* returns.

        *prepare* is called when they are written, and again if an earlier request ends the process and all mirrors.

        Raises:
            ChildDied: the process did not answer.
            StorageError: it does not start.
        """
        answer: bytes | None = None
        while answer is None:
            async with self._turn:
                pipe = await self._ready()
                if not await pipe.until_roomy():
                    continue
                requests = prepare()
                patience = _STARVED * patience_for(self._patience, sum(map(len, requests)))
                asked = pipe.ask(requests, patience)
            try:
                answer = await asked.answer
            except asyncio.CancelledError:
                pipe.abandon(asked)
                raise
        if answer[0] == DIED:
            self.deaths += 1
            _log.warning("the %s process of the sandbox did not survive a request", self._name)
            raise ChildDied
        return answer[0], answer[1:]

    async def _started(self) -> ChildPipe:
        if self._pipe is None or self._pipe.ended:
            await self._bury()
            _, self._pipe = await asyncio.get_running_loop().subprocess_exec(
                lambda: ChildPipe(self.mirrors), *self._command, stderr=None
            )
        return self._pipe

    async def _ready(self) -> ChildPipe:
        """Return the process once it has loaded what it needs. No request is charged with the time that takes."""
        pipe = await self._started()
        if not pipe.loaded:
            pipe.wake()
            if not await pipe.until_loaded(_START_S):
                await self._bury()
                raise StorageError("the sandbox process does not start; see the system's log")
        return pipe

    async def start(self) -> None:
        """Start the process now. It loads what it needs when it is first asked, or at leisure."""
        async with self._turn:
            await self._started()

    async def stop(self) -> None:
        """End the process, once it has answered the requests under way."""
        async with self._turn:
            if self._pipe is not None:
                await self._pipe.until_idle()
            await self._bury()

    async def _bury(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.end()
            await pipe.until_exited()

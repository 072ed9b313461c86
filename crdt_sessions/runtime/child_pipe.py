"""The pipe to one process of the sandbox, for as long as the process lives: requests in, answers out, in order.

Many requests may stand in the pipe one behind another, so that the process need not wait for a turn of a busy loop
between two of them. If it dies of one, those behind it are lost: they counted on mirrors that died with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Sequence
from typing import cast

from crdt_sessions.runtime.sandbox_process import DIED, LENGTH_BYTES, WAKE
from crdt_sessions.signals import Signal

_MOST_UNANSWERED = 4 * 1024 * 1024
"""Bytes of requests that may wait for the process."""
_REQUEST_BYTES = 256
"""Memory of a request in addition to its bytes."""
_STDIN = 0


class Asked:
    """Requests that belong together and were written. Only the answer to the last one is of interest.

    Args:
        requests: how many they are.
        size: their bytes, and what they take besides.
        patience_s: how long they may take by the clock, once it is their turn.
    """

    __slots__ = ("answer", "died", "left", "lost", "patience_s", "size")

    def __init__(self, requests: int, size: int, patience_s: float) -> None:
        self.left = requests
        self.size = size
        self.patience_s = patience_s
        self.lost = self.died = False
        self.answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        """None if an earlier request ended the process: they must be made and written again."""

    def settle(self, answer: bytes | None) -> None:
        """Tell whoever asked, unless they have left."""
        if not self.answer.done():
            self.answer.set_result(answer)


class ChildPipe(asyncio.SubprocessProtocol):
    """What is asked of one process and what it answers.

    Args:
        mirrors: what is known of the mirrors that the process has; emptied when it, or a worker of it, dies.
    """

    def __init__(self, mirrors: dict[str, int]) -> None:
        self._mirrors = mirrors
        self._transport: asyncio.SubprocessTransport | None = None
        self._received = bytearray()
        self._unanswered: deque[Asked] = deque()
        self._bytes = 0
        self._changed = Signal()
        self._patience: asyncio.TimerHandle | None = None
        self.loaded = False
        """Whether the process has loaded what it needs."""
        self.ended = False
        """Whether it takes no more requests."""
        self._exited = False

    # -- asking ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the process load what it needs."""
        self._stdin().write(WAKE)

    async def until_loaded(self, patience_s: float) -> bool:
        """Return once the process has loaded what it needs; False if it does not in so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._changed.wait_for(lambda: self.loaded or self.ended)
        return self.loaded and not self.ended

    async def until_roomy(self) -> bool:
        """Return once requests may be written; False if the process has ended."""
        await self._changed.wait_for(lambda: self._bytes < _MOST_UNANSWERED or self.ended)
        return not self.ended

    async def until_idle(self) -> None:
        """Return once everything is answered."""
        await self._changed.wait_for(lambda: not self._unanswered)

    def ask(self, requests: Sequence[bytes], patience_s: float) -> Asked:
        """Write requests; return what will have the answer to the last one.

        The process is killed if they take longer than *patience_s* seconds by the clock, once it is their turn.
        """
        asked = Asked(len(requests), sum(map(len, requests)) + _REQUEST_BYTES, patience_s)
        self._bytes += asked.size
        self._unanswered.append(asked)
        self._stdin().write(b"".join(requests))
        if len(self._unanswered) == 1:
            self._begin_turn()
        return asked

    def abandon(self, asked: Asked) -> None:
        """Note that nobody waits for an answer any more; if it is being worked on, the process is killed."""
        if self._unanswered and self._unanswered[0] is asked:
            self.end()

    def end(self) -> None:
        """Kill the process. Whose turn it is hears that it died; the others must ask another one."""
        if self.ended:
            return
        self.ended = True
        self._end_turn()
        self._lose()
        while self._unanswered:
            asked = self._unanswered.popleft()
            asked.settle(None if asked.lost else bytes([DIED]))
        assert self._transport is not None
        if not self._exited:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()  # it may not have a process group yet
                os.killpg(self._transport.get_pid(), signal.SIGKILL)
        self._transport.close()
        self._changed.notify_all()

    async def until_exited(self) -> None:
        """Return once the process is gone."""
        await self._changed.wait_for(lambda: self._exited)

    def _stdin(self) -> asyncio.WriteTransport:
        assert self._transport is not None
        return cast(asyncio.WriteTransport, self._transport.get_pipe_transport(_STDIN))

    # -- answers ---------------------------------------------------------------------------------------------------

    def _take(self, answer: bytes) -> None:
        if not self.loaded:  # the first thing that a process says
            self.loaded = True
        elif self._unanswered:
            self._take_answer(self._unanswered[0], answer)
        self._changed.notify_all()

    def _take_answer(self, asked: Asked, answer: bytes) -> None:
        asked.left -= 1
        if answer[0] == DIED:
            asked.died = True
            self._lose()
        if asked.left:
            return
        self._end_turn()
        self._unanswered.popleft()
        self._bytes -= asked.size
        if asked.died:
            asked.settle(bytes([DIED]))
        else:
            asked.settle(None if asked.lost else answer)
        if self._unanswered:
            self._begin_turn()

    def _lose(self) -> None:
        """Note that the mirrors are gone. All requests but those whose turn it is counted on them."""
        for each in list(self._unanswered)[1:]:
            each.lost = True
        self._mirrors.clear()

    def _begin_turn(self) -> None:
        self._patience = asyncio.get_running_loop().call_later(self._unanswered[0].patience_s, self.end)

    def _end_turn(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    # -- called by the loop ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.BaseProtocol`."""
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """See :class:`asyncio.SubprocessProtocol`."""
        received = self._received
        received += data
        begin = 0
        while len(received) >= (body := begin + LENGTH_BYTES):
            end = body + int.from_bytes(received[begin:body], "big")
            if len(received) < end:
                break
            self._take(bytes(received[body:end]))
            begin = end
        del received[:begin]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """See :class:`asyncio.SubprocessProtocol`."""
        self.end()

    def process_exited(self) -> None:
        """See :class:`asyncio.SubprocessProtocol`."""
        self._exited = True
        self.end()
        self._changed.notify_all()

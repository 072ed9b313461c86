"""What is done with one session after the other, each by the node that has it: errands."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar, cast

from quart import Quart, current_app

from crdt_sessions.ids import SessionId

_KEY = "errands"
AT_A_TIME = 8
"""Sessions that one request has under way at once."""
Item = TypeVar("Item")
Result = TypeVar("Result")

Errand = Callable[[SessionId, Any], Awaitable[dict[str, Any]]]
"""Takes a session, and what was asked, as JSON; returns what became of it, as JSON."""


class Messenger(Protocol):
    """The other nodes, as those that do errands."""

    async def carry(self, name: str, session: SessionId, asked: Any) -> dict[str, Any] | None:
        """Have the node that has a session do an errand; return what it says, None if that is this one."""
        ...


class Errands:
    """Errands by name.

    Args:
        known: what is done, by name.
        messenger: the other nodes, if there are any.
    """

    def __init__(self, known: Mapping[str, Errand], messenger: Messenger | None) -> None:
        self._known = known
        self._messenger = messenger

    async def run(self, name: str, session: SessionId, asked: Any) -> dict[str, Any]:
        """Have an errand done by the node that has a session; return what it says.

        Raises:
            NodeUnreachable, HeldElsewhere, NodeRefused: that node cannot do it at the moment.
            CrdtSessionsError: it cannot be done.
        """
        if self._messenger is not None and (said := await self._messenger.carry(name, session, asked)) is not None:
            return said
        return await self.here(name, session, asked)

    async def here(self, name: str, session: SessionId, asked: Any) -> dict[str, Any]:
        """Do an errand here.

        Raises:
            HeldElsewhere: another node has the session.
            CrdtSessionsError: it cannot be done.
        """
        return await self._known[name](session, asked)


def install(app: Quart, errands: Errands) -> None:
    """Have the routes of *app* use *errands*."""
    app.extensions[_KEY] = errands


def current_errands() -> Errands:
    """Return the errands of the service."""
    return cast("Errands", current_app.extensions[_KEY])


async def in_turn(
    items: AsyncIterator[Item], do: Callable[[Item], Awaitable[Result]]
) -> AsyncGenerator[Result, None]:
    """Yield what *do* returns of each item, in their order, with :data:`AT_A_TIME` of them under way."""
    waiting: deque[asyncio.Future[Result]] = deque()
    try:
        async for item in items:
            waiting.append(asyncio.ensure_future(do(item)))
            if len(waiting) >= AT_A_TIME:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

"""Connections and streams that are open: what their principals may do is looked at for as long as they last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from crdt_sessions.clock import Clock
from crdt_sessions.errors import AccessDenied, CrdtSessionsError, NotAuthenticated, Overloaded, TokenExpired
from crdt_sessions.ids import Millis
from crdt_sessions.runtime import Access
from crdt_sessions_server.auth.grants import Change, Grants
from crdt_sessions_server.auth.principal import Principal

Result = TypeVar("Result")

_log = logging.getLogger("crdt_sessions.access")
_EVERY_S = 0.25
_AT_ONCE = 200
_PATIENCE_S = 2.0
"""For a look at one of them; meanwhile others are not looked at, but for those that are looked at with it."""
_DOUBT_MS = 30_000
"""Who cannot be looked at for so long is let go: they may come back, and are looked at then."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody who was let in, and how."""

    token: str | None
    session: str | None
    """The session's name, if it was one."""
    principal: Principal
    state: int
    """Of the grants, before they were asked."""


@dataclass(eq=False, slots=True)
class _Watched:
    admitted: Admitted
    access: Access
    doubted_since: Millis | None = None
    """Since when it cannot be looked at."""


class LiveAccess:
    """Ends and changes accesses when tokens expire, are revoked, or roles change.

    Args:
        grants: says what holds now.
        clock: the only source of time.
        doubt: told of whom it is not certain any more what they may do: tenant and principal, None for all there are.
    """

    def __init__(self, grants: Grants, clock: Clock, doubt: Callable[[str | None, str | None], None]) -> None:
        self._doubt = doubt
        self._grants = grants
        self._clock = clock
        self._watched: dict[Access, _Watched] = {}
        self._changes: list[Change] = []
        self._changed = asyncio.Event()
        grants.on_change = self._note

    @contextmanager
    def watching(self, admitted: Admitted) -> Iterator[Access]:
        """Return an access that is looked after for as long as the context lasts."""
        access = self.watch(admitted)
        try:
            yield access
        finally:
            self.watch_no_more(access)

    def watch(self, admitted: Admitted) -> Access:
        """Return an access that is looked after from now on."""
        access = admitted.principal.access
        if not admitted.principal.anonymous:
            self._watched[access] = _Watched(admitted, access)
            if admitted.state != self._grants.state:  # something changed since it was admitted
                self._note(Change(admitted.principal.tenant, admitted.principal.id))
        return access

    def watch_no_more(self, access: Access) -> None:
        """Look after an access no more."""
        self._watched.pop(access, None)

    def renew(self, access: Access, admitted: Admitted) -> None:
        """Look after an access by another token of the same principal from now on.

        Raises:
            NotAuthenticated: it is somebody else's.
        """
        watched = self._watched.get(access)
        if watched is None:  # nothing is known of its principal, or it has ended
            return
        _check_same(watched.admitted, admitted.principal)
        watched.admitted = admitted
        access.change(admitted.principal.rights)
        if admitted.state != self._grants.state:
            self._note(Change(admitted.principal.tenant, admitted.principal.id))

    async def allowed(self, admitted: Admitted, awaitable: Awaitable[Result]) -> Result:
        """Return what *awaitable* returns, as long as the access lasts; it is cancelled otherwise.

        Raises:
            NotAuthenticated, AccessDenied: it has ended.
        """
        with self.watching(admitted) as access:
            return await _unless_ended(access, awaitable)

    async def following(self, admitted: Admitted, source: AsyncIterator[Result]) -> AsyncGenerator[Result, None]:
        """Yield what *source* yields, as long as the access lasts.

        Raises:
            NotAuthenticated, AccessDenied: it has ended.
        """
        if admitted.principal.anonymous:
            async for item in source:
                yield item
            return
        with self.watching(admitted) as access:
            while True:
                try:
                    item = await _unless_ended(access, anext(source))
                except StopAsyncIteration:
                    return
                yield item

    async def run(self) -> None:
        """Look after accesses until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_EVERY_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            await self._look()

    def _note(self, change: Change) -> None:
        self._changes.append(change)
        self._changed.set()

    async def _look(self) -> None:
        everybody = self._grants.refresh()
        changes, self._changes = self._changes, []
        concerned: list[_Watched] = []
        for change in [Change("")] if everybody else changes:
            self._doubt(None if everybody else change.tenant, change.principal)
        now = self._clock.now()
        for watched in list(self._watched.values()):
            principal, session = watched.admitted.principal, watched.admitted.session
            if principal.expires_at is not None and now >= principal.expires_at:
                watched.access.end(TokenExpired())
            elif everybody or any(change.concerns(principal, session) for change in changes):
                concerned.append(watched)
        defects: list[BaseException] = []
        for at in range(0, len(concerned), _AT_ONCE):
            defects += await self._look_at(concerned[at : at + _AT_ONCE])
        if defects:
            raise RuntimeError("what open connections may do could not be looked up") from defects[0]

    async def _look_at(self, some: list[_Watched]) -> list[BaseException]:
        """Look at *some* at once, so that none waits long for another's authorizer; return the defects of those.

        They are looked at again, and let go when that goes on.
        """
        found = await asyncio.gather(*map(self._authorize_anew, some), return_exceptions=True)
        now = self._clock.now()
        defects: list[BaseException] = []
        for watched, defect in zip(some, found, strict=True):
            if defect is None:
                watched.doubted_since = None
                continue
            defects.append(defect)
            self._changes.append(Change(watched.admitted.principal.tenant, watched.admitted.principal.id))
            watched.doubted_since = watched.doubted_since or now
            if now - watched.doubted_since >= _DOUBT_MS:
                watched.access.end(Overloaded(what="tokens cannot be looked up"))
        return defects

    async def _authorize_anew(self, watched: _Watched) -> None:
        admitted = watched.admitted
        try:
            async with asyncio.timeout(_PATIENCE_S):
                principal = await self._grants.authorize(admitted.token, admitted.session)
            _check_same(admitted, principal)
        except (NotAuthenticated, AccessDenied) as error:
            if watched.admitted is admitted:  # else it was renewed meanwhile
                watched.access.end(error)
        except CrdtSessionsError as error:  # the store cannot be asked: it is tried again
            _log.error("rights cannot be looked up: %s", error)
            self._changes.append(Change(admitted.principal.tenant, admitted.principal.id))
        else:
            if watched.admitted is admitted:
                watched.admitted = replace(admitted, principal=principal)
                watched.access.change(principal.rights)


def _check_same(admitted: Admitted, principal: Principal) -> None:
    if (principal.tenant, principal.id) != (admitted.principal.tenant, admitted.principal.id):
        raise NotAuthenticated(why="the token stands for somebody else now")


async def _unless_ended(access: Access, awaitable: Awaitable[Result]) -> Result:
    """Return what *awaitable* returns; it is cancelled if the access ends meanwhile, whose error is raised."""
    if access.ended is not None:
        raise access.ended
    with _Lasting(access):
        return await awaitable


class _Lasting:
    """Cancels what its task does when an access ends, as :func:`asyncio.timeout` does after a time.

    A task of its own would have each event of each stream wait for two more turns of the loop.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._cancelled = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._access.watch(_ignored, self._cancel)

    def _cancel(self, _: CrdtSessionsError) -> None:
        self._cancelled = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._access.watch(_ignored, _ignored)
        others = self._cancelled and self._task.uncancel() > self._cancelling
        if self._access.ended is None or others:
            return
        if kind is None or issubclass(kind, Exception | asyncio.CancelledError):
            raise self._access.ended from error


def _ignored(_: object) -> None:
    """Nobody is told any more."""

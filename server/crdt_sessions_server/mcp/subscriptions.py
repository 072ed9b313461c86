"""Subscriptions to resources: ``subscriptions/listen``, and before it ``resources/subscribe``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from mcp.server import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY, ResourceUpdated, event_to_notification
from mcp.types import (
    INVALID_PARAMS,
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from crdt_sessions.client.obstacles import is_final
from crdt_sessions.errors import BadParameter, CrdtSessionsError
from crdt_sessions_server.mcp.api import OBSTACLES, Api
from crdt_sessions_server.mcp.resources import Place, place_of

_log = logging.getLogger("crdt_sessions.mcp")
_MOST = 100
"""Resources that one client is told of."""
_PACE_S = 0.25
"""Least time between two notifications of one resource: text comes a word at a time."""
_AGAIN_S = 2.0


async def changes(api: Api, uri: str) -> AsyncIterator[bool]:
    """Yield False once the resource is followed, and True after every change of it, until it is gone.

    Raises:
        BadParameter: it is no URI of a resource here.
        RequestRefused: there is none, or it is none of the caller's business.
    """
    place = place_of(uri)
    followed = False
    while True:
        try:
            async with aclosing(_pages(api, place)) as pages:
                async for changed in pages:
                    if not followed:
                        followed = True
                        yield False
                    elif changed:
                        yield True
                        await asyncio.sleep(_PACE_S)
        except OBSTACLES as error:
            if not followed:
                raise
            if is_final(error):
                yield True  # who reads it again is told why
                return
            await asyncio.sleep(_AGAIN_S)


async def _pages(api: Api, place: Place) -> AsyncGenerator[bool, None]:
    """Yield once, and then whenever something has happened there, or nothing for a while; say which."""
    if place.kinds:
        async with aclosing(api.events(place.session, place.kinds)) as pages:
            async for page in pages:
                yield bool(page)
    else:
        async with aclosing(api.versions(place.path)) as versions:
            async for _ in versions:
                yield True


class Followed:
    """The resources that one client is told of.

    Args:
        tell: tells it of a change.
    """

    def __init__(self, tell: Callable[[str], Awaitable[None]]) -> None:
        self._tell = tell
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def follow(self, api: Api, uri: str) -> None:
        """Follow a resource from now on.

        Raises:
            BadParameter, RequestRefused: see :func:`changes`.
        """
        if uri in self._tasks:
            return
        if len(self._tasks) >= _MOST:
            raise MCPError(INVALID_PARAMS, f"one client is told of {_MOST} resources at most")
        source = changes(api, uri)
        await anext(source)
        self._tasks[uri] = asyncio.create_task(self._follow(uri, source), name=f"follows {uri}")

    def leave(self, uri: str) -> None:
        """Follow a resource no more."""
        task = self._tasks.pop(uri, None)
        if task is not None:
            task.cancel()

    async def over(self) -> None:
        """Return once nothing is followed any more."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def close(self) -> None:
        """Follow nothing any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def _follow(self, uri: str, source: AsyncIterator[bool]) -> None:
        try:
            async for _ in source:
                await self._tell(uri)
        except CrdtSessionsError as error:
            _log.info("%s is followed no more: %s", uri, error)


class Subscriptions:
    """Answers the requests of both forms of the protocol.

    Args:
        api_of: in whose name a request is made.
    """

    def __init__(self, api_of: Callable[[ServerRequestContext[Any, Any]], Api]) -> None:
        self._api_of = api_of

    async def listen(
        self, context: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Tell of changes for as long as the client listens, or there is something to follow.

        Resources that it cannot have are left out of the acknowledgement.
        """
        number = context.request_id
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: number}
        acknowledged = asyncio.Event()

        async def tell(uri: str) -> None:
            await acknowledged.wait()  # nothing comes before it
            await context.session.send_notification(
                event_to_notification(ResourceUpdated(uri), meta), related_request_id=number
            )

        followed, found = Followed(tell), []
        try:
            for uri in params.notifications.resource_subscriptions or ():
                try:
                    await followed.follow(self._api_of(context), uri)
                except (BadParameter, *OBSTACLES) as error:
                    _log.info("%s is not followed: %s", uri, error)
                else:
                    found.append(uri)
            honored = SubscriptionFilter(resource_subscriptions=found or None)
            told = SubscriptionsAcknowledgedNotificationParams(notifications=honored, _meta=meta)
            await context.session.send_notification(
                SubscriptionsAcknowledgedNotification(params=told), related_request_id=number
            )
            acknowledged.set()
            await followed.over()
        finally:
            await followed.close()
        return SubscriptionsListenResult(_meta=meta)

    async def subscribe(self, context: ServerRequestContext[Any, Any], params: SubscribeRequestParams) -> EmptyResult:
        """Tell of changes of a resource for as long as the client's session lasts."""
        await self._of_session(context).follow(self._api_of(context), params.uri)
        return EmptyResult()

    async def unsubscribe(
        self, context: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams
    ) -> EmptyResult:
        """Tell no more of it."""
        self._of_session(context).leave(params.uri)
        return EmptyResult()

    def _of_session(self, context: ServerRequestContext[Any, Any]) -> Followed:
        # The library documents a connection's state and exit stack for this, and has no other way to them yet.
        connection = context.session._connection
        found = connection.state.get("followed")
        if not isinstance(found, Followed):
            found = Followed(context.session.send_resource_updated)
            connection.state["followed"] = found
            connection.exit_stack.push_async_callback(found.close)
        return found

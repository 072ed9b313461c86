"""Subscriptions to resources: ``subscriptions/listen``, and before it ``resources/subscribe``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Literal, cast

from mcp.server import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import (
    SUBSCRIPTION_ID_META_KEY,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    event_to_notification,
)
from mcp.types import (
    INVALID_PARAMS,
    EmptyResult,
    Notification,
    ServerNotification,
    SubscribeRequestParams,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from crdt_sessions.client.obstacles import is_final
from crdt_sessions.errors import BadParameter, CrdtSessionsError
from crdt_sessions_server.mcp.api import LOOK_S, OBSTACLES, Api, Json
from crdt_sessions_server.mcp.resources import Place, place_of

_log = logging.getLogger("crdt_sessions.mcp")
_MOST = 100
"""Resources that one client is told of."""
_PACE_S = 0.25
"""Least time between two notifications of one resource: text comes a word at a time."""
_AGAIN_S = 2.0
_SELDOM_S = 10.0
"""How often one looks whether the list of sessions has changed for clients that did not ask to be told."""
TASKS = "taskIds"
"""What the extension for tasks adds to what can be listened to."""


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


async def list_changes(api: Api, every_s: float = LOOK_S) -> AsyncIterator[bool]:
    """Yield False once the list of sessions is followed, and True whenever it has others, or other titles."""
    titles: dict[str, str | None] = {}
    followed = missed = False
    while True:
        try:
            async with aclosing(api.changed_sessions(every_s)) as pages:
                async for page in pages:
                    told = {each["id"]: each.get("title") for each in page if not each["deleted"]}
                    gone = {each["id"] for each in page if each["deleted"]} & titles.keys()
                    differs = bool(gone) or not told.items() <= titles.items()
                    titles = {id: title for id, title in (titles | told).items() if id not in gone}
                    yield followed and (differs or missed)
                    followed, missed = True, False
        except OBSTACLES as error:
            if not followed or is_final(error):
                raise
            missed = True
            await asyncio.sleep(_AGAIN_S)


@dataclass(frozen=True, eq=False)
class _Following:
    """What follows something, and what is set once it does."""

    task: asyncio.Task[None]
    begun: asyncio.Event


class Followed:
    """What one client is told of.

    Args:
        tell: tells it of a change, as what tells of changes says it.
    """

    def __init__(self, tell: Callable[[Any], Awaitable[None]]) -> None:
        self._tell = tell
        self._following: dict[str, _Following] = {}

    async def follow(self, name: str, changes: AsyncIterator[Any]) -> None:
        """Follow something from now on.

        Args:
            name: what it is.
            changes: yields something once it is followed, and then what is to be told.

        Raises:
            BadParameter, RequestRefused: as *changes* does at first.
        """
        following = self._following.get(name)
        if following is None:
            if len(self._following) >= _MOST:
                raise MCPError(INVALID_PARAMS, f"one client is told of {_MOST} resources at most")
            following = self._begin(name, changes)
        begun = asyncio.create_task(following.begun.wait())
        try:
            await asyncio.wait({begun, following.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            begun.cancel()
        if not following.begun.is_set() and not following.task.cancelled():
            following.task.result()

    def _begin(self, name: str, changes: AsyncIterator[Any]) -> _Following:
        """Take a place until the changes end. It is taken before anybody waits, so that it is taken once."""
        begun = asyncio.Event()
        task = asyncio.create_task(self._follow(name, changes, begun), name=f"follows {name}")
        following = self._following[name] = _Following(task, begun)

        def drop(_: asyncio.Task[None]) -> None:
            if self._following.get(name) is following:
                del self._following[name]

        task.add_done_callback(drop)
        return following

    def leave(self, uri: str) -> None:
        """Follow a resource no more."""
        following = self._following.pop(uri, None)
        if following is not None:
            following.task.cancel()

    async def over(self) -> None:
        """Return once nothing is followed any more."""
        if self._following:
            await asyncio.wait([each.task for each in self._following.values()])

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = [each.task for each in self._following.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, name: str, changes: AsyncIterator[Any], begun: asyncio.Event) -> None:
        await anext(changes)
        begun.set()
        try:
            async for change in changes:
                if change:
                    await self._tell(change)
        except CrdtSessionsError as error:
            _log.info("%s is followed no more: %s", name, error)


class TaskNotification(Notification[dict[str, Any], Literal["notifications/tasks"]]):
    """A task as it is now."""

    method: Literal["notifications/tasks"] = "notifications/tasks"


async def _each(changes: AsyncIterator[bool], said: Any) -> AsyncIterator[Any]:
    """Yield *said* for each change, and nothing that counts before."""
    async for changed in changes:
        yield said if changed else None


async def _never() -> AsyncIterator[None]:
    """Yield once: what is followed never changes."""
    yield None
    await asyncio.Event().wait()


class Subscriptions:
    """Answers the requests of both forms of the protocol.

    Args:
        api_of: in whose name a request is made.
        task_changes: yields once a task is followed, and then how it is, whenever that changes.
    """

    def __init__(
        self,
        api_of: Callable[[ServerRequestContext[Any, Any]], Api],
        task_changes: Callable[[Api, str], AsyncIterator[Json]],
    ) -> None:
        self._api_of = api_of
        self._task_changes = task_changes

    async def listen(
        self, context: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Tell of changes for as long as the client listens, or there is something to follow.

        Resources that it cannot have are left out of the acknowledgement.
        """
        number = context.request_id
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: number}
        acknowledged = asyncio.Event()

        async def tell(said: ServerEvent | Json) -> None:
            await acknowledged.wait()  # nothing comes before it
            if isinstance(said, dict):
                notification = cast(ServerNotification, TaskNotification(params={**said, "_meta": meta}))
            else:
                notification = event_to_notification(said, meta)
            await context.session.send_notification(notification, related_request_id=number)

        followed = Followed(tell)
        try:
            honored = await self._honored(followed, self._api_of(context), params.notifications)
            told = SubscriptionsAcknowledgedNotificationParams(notifications=honored, _meta=meta)
            await context.session.send_notification(
                SubscriptionsAcknowledgedNotification(params=told), related_request_id=number
            )
            acknowledged.set()
            await followed.over()
        finally:
            await followed.close()
        return SubscriptionsListenResult(_meta=meta)

    async def _honored(self, followed: Followed, api: Api, wanted: SubscriptionFilter) -> SubscriptionFilter:
        """Follow what is wanted; return what of it there is."""
        uris = [
            uri
            for uri in wanted.resource_subscriptions or ()
            if await _can_follow(followed, uri, _each(changes(api, uri), ResourceUpdated(uri)))
        ]
        tasks = [
            task
            for task in (wanted.model_extra or {}).get(TASKS) or ()
            if isinstance(task, str) and await _can_follow(followed, f"task {task}", self._task_changes(api, task))
        ]
        lists = {
            "resources_list_changed": wanted.resources_list_changed
            and await _can_follow(followed, "resources", _each(list_changes(api), ResourcesListChanged())),
            "tools_list_changed": wanted.tools_list_changed and await _can_follow(followed, "tools", _never()),
        }
        found = {name: True for name, honored in lists.items() if honored}
        more = {TASKS: tasks} if tasks else {}
        return SubscriptionFilter.model_validate({"resource_subscriptions": uris or None, **found, **more})

    async def subscribe(self, context: ServerRequestContext[Any, Any], params: SubscribeRequestParams) -> EmptyResult:
        """Tell of changes of a resource for as long as the client's session lasts."""
        source = _each(changes(self._api_of(context), params.uri), params.uri)
        await self._of_session(context).follow(params.uri, source)
        return EmptyResult()

    async def unsubscribe(
        self, context: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams
    ) -> EmptyResult:
        """Tell no more of it."""
        self._of_session(context).leave(params.uri)
        return EmptyResult()

    async def listed(self, context: ServerRequestContext[Any, Any]) -> None:
        """Tell of changes of the list of sessions from now on, as long as the client's session lasts.

        Until 2025-11-25 a client does not ask for that. Who has listed sessions is told.
        """
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return
        source = _each(list_changes(self._api_of(context), _SELDOM_S), ResourcesListChanged())
        with suppress(MCPError):  # it follows as many resources as it may
            await _can_follow(self._of_session(context), "resources", source)

    def _of_session(self, context: ServerRequestContext[Any, Any]) -> Followed:
        # The library documents a connection's state and exit stack for this, and has no other way to them yet.
        connection = context.session._connection
        found = connection.state.get("followed")
        if not isinstance(found, Followed):
            session = context.session

            async def tell(said: str | ResourcesListChanged) -> None:
                if isinstance(said, str):
                    await session.send_resource_updated(said)
                else:
                    await session.send_resource_list_changed()

            found = Followed(tell)
            connection.state["followed"] = found
            connection.exit_stack.push_async_callback(found.close)
        return found


async def _can_follow(followed: Followed, name: str, changes: AsyncIterator[Any]) -> bool:
    try:
        await followed.follow(name, changes)
    except (BadParameter, *OBSTACLES) as error:
        _log.info("%s is not followed: %s", name, error)
        return False
    return True

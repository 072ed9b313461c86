"""What tools and resources need of the REST interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from crdt_sessions.client.service import ServiceClient
from crdt_sessions.errors import NoService, NotFound, RequestRefused, ServiceUnreachable
from crdt_sessions.model import Message, Run

Json = dict[str, Any]

OBSTACLES = (RequestRefused, NoService, ServiceUnreachable)
"""What requests raise."""
_PAGE = 1000
_POLL_S = 20.0
"""How long a request waits for something to happen. Nobody in between gives up on one that is as quiet as that."""

LOOK_S = 1.0
"""How long a change may stay unseen of what no events tell of."""


class Api:
    """The service's REST interface, in the name of one caller.

    Args:
        client: how it is reached.

    Every method raises what :meth:`ServiceClient.request` does.
    """

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def get(self, path: str, **query: Any) -> Any:
        """Return the JSON at a path; what is None is left out of the query."""
        asked = {name: value for name, value in query.items() if value is not None}
        return (await self._client.request("GET", path, params=asked, timeout=_POLL_S + 30)).json()

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON that answers a request; what is None is left out of the body."""
        given = {name: value for name, value in body.items() if value is not None}
        return (await self._client.request("POST", path, json=given)).json()

    async def run(self, session: str, run: str) -> Run:
        """Return a run as it is."""
        return Run.model_validate(await self.get(path_of(session, "runs", run)))

    async def messages(self, session: str, *, after: int = 0) -> AsyncIterator[Json]:
        """Yield the messages of a session that come after a place in the order."""
        place: int | None = after
        while place is not None:
            page = await self.get(path_of(session, "messages"), after=place, limit=_PAGE)
            for each in page["messages"]:
                yield each
            place = page.get("nextCursor")

    async def message(self, session: str, id: str) -> Message:
        """Return a message.

        Raises:
            NotFound: there is none.
        """
        async for each in self.messages(session):
            if each["id"] == id:
                return Message.model_validate(each)
        raise NotFound(what="message", id=id)

    async def events(self, session: str, kinds: str | None = None) -> AsyncGenerator[list[Json], None]:
        """Yield what there is, and then what happens; an empty list after a while in which nothing did."""
        cursor, wait = None, 0.0
        while True:
            page = await self.get(path_of(session, "events"), cursor=cursor, kinds=kinds, waitS=wait)
            cursor, wait = page["cursor"], _POLL_S
            yield page["events"]

    async def changed_sessions(self, every_s: float = LOOK_S) -> AsyncGenerator[list[Json], None]:
        """Yield the sessions there are, and then those that changed since, as far as one looks."""
        cursor, known = None, list[Json]()
        while True:
            page = await self.post("/v1/sync", {"cursor": cursor, "limit": _PAGE})
            cursor, known = page["cursor"], [*known, *page["changed"]]
            if not page["more"]:
                yield known
                known = []
                await asyncio.sleep(every_s)

    async def versions(self, path: str) -> AsyncGenerator[None, None]:
        """Yield once there is something at a path, and for every other version of it, as far as one looks."""
        seen, known = "", None
        while True:
            headers = {"If-None-Match": seen} if seen else {}
            answer = await self._client.request("GET", path, headers=headers, also={304})
            if answer.status_code != 304 and answer.content != known:
                seen, known = answer.headers.get("ETag", ""), answer.content
                yield
            await asyncio.sleep(LOOK_S)


def path_of(session: str, *more: str) -> str:
    """Return the path of a session, or of something in it."""
    return "/".join(("/v1/sessions", *(quote(each, safe="") for each in (session, *more))))

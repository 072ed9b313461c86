"""Searches the titles and messages of all sessions of whoever asks, a piece at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator

from crdt_sessions.model import Message
from crdt_sessions_server.http.paging import cursor_at, place_of
from crdt_sessions_server.mcp.api import Api, Json

PIECE = 20
"""How many sessions one call of the tool looks at."""
_EXCERPT = 160
"""Characters of a message that are shown."""


async def search(api: Api, text: str, *, session: str | None, cursor: str | None, limit: int) -> Json:
    """Return up to *limit* places where a text stands, and where to go on.

    Sessions that changed last are looked at first, :data:`PIECE` of them at the most; one that changes while somebody
    goes on from call to call moves to the front, where they have been.

    Raises:
        BadParameter: *cursor* is none that a search has returned.
        RequestRefused: there is no such session, or it is none of the caller's business.
    """
    before, name, after = place_of(cursor, str, str, int) if cursor is not None else ("", "", 0)
    wanted, found = text.casefold(), list[Json]()
    if session is not None:
        place = await _look(api, session, wanted, after, found, limit)
        return _page(found, None if place is None else cursor_at("", session, place))
    for _ in range(PIECE):
        listed = await api.get("/v1/sessions", order="recent", limit=1, cursor=before or None)
        for each in listed["sessions"]:
            place = await _look_at(api, each, wanted, after if each["id"] == name else None, found, limit)
            if place is not None:
                return _page(found, cursor_at(before, each["id"], place))
        if (before := listed.get("nextCursor") or "") == "":
            return _page(found, None)
    return _page(found, cursor_at(before, "", 0))


def _page(found: list[Json], cursor: str | None) -> Json:
    return {"found": found} | ({"nextCursor": cursor} if cursor is not None else {})


async def _look_at(
    api: Api, session: Json, wanted: str, after: int | None, found: list[Json], limit: int
) -> int | None:
    """Look at a listed session, its title included; see :func:`_look`."""
    name, title = session["id"], session.get("title") or session["id"]
    if after is None and wanted in f"{title} {name}".casefold():
        found.append({"session": name, "text": title})
    return await _look(api, name, wanted, after or 0, found, limit)


async def _look(api: Api, session: str, wanted: str, after: int, found: list[Json], limit: int) -> int | None:
    """Add what is found in the messages after a place; return after which one to go on, if there is no room left."""
    seen = after
    async for message, text in _texts(api, session, after):
        if len(found) >= limit:
            return seen
        place = text.casefold().find(wanted)
        if place >= 0:
            begin = max(0, place - _EXCERPT // 4)
            shown = text[begin : begin + _EXCERPT]
            found.append({"session": session, "message": message["id"], "seq": message.get("seq"), "text": shown})
        seen = message.get("seq") or seen
    return None


async def _texts(api: Api, session: str, after: int) -> AsyncIterator[tuple[Json, str]]:
    async for message in api.messages(session, after=after):
        yield message, Message.model_validate(message).text

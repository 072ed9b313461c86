"""Sessions, and what is in them, as resources: ``session://<name>[/<what>]``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from mcp.types import (
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from crdt_sessions.errors import BadParameter
from crdt_sessions_server.mcp.api import Api, Json, path_of

_SCHEME = "session"
_JSON = "application/json"
_PAGE = 100
_KINDS = {
    "": ("the session", "session,message,run,state"),
    "messages": ("its messages in their order, a page of them", "message"),
    "runs": ("what agents do in it, and have done", "run"),
    "state": ("the application's shared state", "state"),
    "presence": ("who is in it now", "presence"),
}
"""What there is in a session: what it is, and the kinds of events that change it."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a URI names.

    Args:
        session: the session's name.
        what: of the keys of :data:`_KINDS`.
        id: the one thing there that is meant; empty for all.
        query: such as ``after``.
    """

    session: str
    what: str = ""
    id: str = ""
    query: tuple[tuple[str, str], ...] = ()

    @property
    def kinds(self) -> str:
        """The kinds of events that change it."""
        return _KINDS[self.what][1]


def uri_of(session: str) -> str:
    """Return the URI of a session."""
    return f"{_SCHEME}://{quote(session, safe='')}"


def place_of(uri: str) -> Place:
    """Return what a URI names.

    Raises:
        BadParameter: it is no URI of a resource here.
    """
    refused = BadParameter(name="uri", text=uri)
    try:
        parts = urlsplit(uri)
        query = tuple(parse_qsl(parts.query, strict_parsing=True)) if parts.query else ()
    except ValueError:
        raise refused from None
    what, *ids = parts.path.removeprefix("/").split("/")
    listed = {"messages": {"after"}}.get(what, set())
    named = what in ("runs",) and len(ids) == 1 and ids[0]
    if (
        parts.scheme != _SCHEME
        or not parts.netloc
        or what not in _KINDS
        or (ids and not named)
        or not {name for name, _ in query} <= listed
    ):
        raise refused
    return Place(unquote(parts.netloc), what, unquote(ids[0]) if ids else "", query)


async def listed(api: Api, cursor: str | None) -> ListResourcesResult:
    """Return a page of the sessions, those that changed last first."""
    page = await api.get("/v1/sessions", order="recent", cursor=cursor, limit=_PAGE)
    return ListResourcesResult(
        resources=[
            Resource(uri=uri_of(each["id"]), name=each["id"], title=each.get("title"), mime_type=_JSON)
            for each in page["sessions"]
        ],
        next_cursor=page.get("nextCursor"),
    )


def templates() -> ListResourceTemplatesResult:
    """Return what else there is in a session."""
    pages = [
        (
            f"{_SCHEME}://{{session}}" + (f"/{what}" if what else "") + ("{?after}" if what == "messages" else ""),
            about,
        )
        for what, (about, _) in _KINDS.items()
    ]
    pages.append((f"{_SCHEME}://{{session}}/runs/{{run}}", "one run"))
    return ListResourceTemplatesResult(
        resource_templates=[
            ResourceTemplate(
                uri_template=template,
                name=template.partition("{session}")[2].strip("/").partition("{?")[0] or "session",
                description=about[0].upper() + about[1:] + ".",
                mime_type=_JSON,
            )
            for template, about in pages
        ]
    )


async def read(api: Api, uri: str) -> ReadResourceResult:
    """Return what a URI names, as it is now.

    Raises:
        BadParameter: it is no URI of a resource here.
    """
    place = place_of(uri)
    steps = [each for each in (place.what, place.id) if each]
    found: Json = await api.get(path_of(place.session, *steps), **dict(place.query))
    text = json.dumps(found, ensure_ascii=False)
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=_JSON, text=text)])

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
    "artifacts": ("the texts that are edited in it, without their content", ""),
}
"""What there is in a session: what it is, and the kinds of events that change it, if events tell of it."""
_ONES = {"runs": ("run", "one run", _JSON), "artifacts": ("artifact", "the content of one artifact", None)}
"""Where each thing is a resource of its own: its name, what it is, and its media type if that is always the same."""


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
        """The kinds of events that change it; empty if no events tell of that."""
        return _KINDS[self.what][1]

    @property
    def path(self) -> str:
        """The path of the REST interface at which it is."""
        return path_of(self.session, *(each for each in (self.what, self.id) if each))


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
    named = what in _ONES and len(ids) == 1 and ids[0]
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
    session = f"{_SCHEME}://{{session}}"
    found = [
        (
            what or "session",
            session + (f"/{what}" if what else "") + ("{?after}" if what == "messages" else ""),
            about,
            _JSON,
        )
        for what, (about, _) in _KINDS.items()
    ]
    ones: list[tuple[str, str, str, str | None]] = [
        (name, f"{session}/{what}/{{{name}}}", about, media_type) for what, (name, about, media_type) in _ONES.items()
    ]
    return ListResourceTemplatesResult(
        resource_templates=[
            ResourceTemplate(
                uri_template=template,
                name=name,
                description=f"{about[0].upper()}{about[1:]}.",
                mime_type=media_type,
            )
            for name, template, about, media_type in found + ones
        ]
    )


async def read(api: Api, uri: str) -> ReadResourceResult:
    """Return what a URI names, as it is now.

    Raises:
        BadParameter: it is no URI of a resource here.
    """
    place = place_of(uri)
    found: Json = await api.get(place.path, **dict(place.query))
    if place.what == "artifacts" and place.id:
        text, media_type = found["content"], found["mediaType"]
    else:
        text, media_type = json.dumps(found, ensure_ascii=False), _JSON
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=media_type, text=text)])

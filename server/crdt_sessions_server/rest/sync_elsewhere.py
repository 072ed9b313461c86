"""Sessions of a request to sync that another node has: it is sent a request of its own, with the same token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from crdt_sessions.errors import CrdtSessionsError, NodeUnreachable
from crdt_sessions.ids import SessionId
from crdt_sessions_server.asgi import Scope
from crdt_sessions_server.http.problem_documents import told
from crdt_sessions_server.http.problems import type_of
from crdt_sessions_server.http.request_forwarding import RequestForwarder
from crdt_sessions_server.http.schemas import JSON

LEAST_ROOM = 1024
"""A request asks for so many bytes of differences at the least."""
_OF_THE_BODY = {b"content-length", b"content-encoding", b"content-type", b"accept-encoding", b"transfer-encoding"}
_BROUGHT = ("update", "presence")


class Away:
    """What one other node has of a request.

    Args:
        elsewhere: the other nodes.
        session: one of those that it has.
        scope: the request.
        about: what of the request holds for all of its sessions, as JSON.
        copies: what it brings for each of those sessions, as JSON.
    """

    def __init__(
        self,
        elsewhere: RequestForwarder,
        session: SessionId,
        scope: Scope,
        about: Mapping[str, Any],
        copies: Sequence[dict[str, Any]],
    ) -> None:
        self._elsewhere = elsewhere
        self._session = session
        self._about = about
        self._copies = copies
        self._scope = {**scope, "headers": [each for each in scope["headers"] if each[0] not in _OF_THE_BODY]}
        self._told: dict[int, dict[str, Any]] = {}

    async def bring(self) -> bool:
        """Have the node take what was brought; return False if this node has the sessions now."""
        places = [at for at, each in enumerate(self._copies) if not each.keys().isdisjoint(_BROUGHT)]
        if places:
            said = await self._ask([_without(self._copies[at], "stateVector") for at in places], LEAST_ROOM)
            if said is None:
                return False
            self._told = dict(zip(places, said, strict=True))
        return True

    async def get(self, room: int) -> list[dict[str, Any]] | None:
        """Return what became of each session; None if this node has them now.

        Args:
            room: the differences have about so many bytes at the most, or :data:`LEAST_ROOM`.
        """
        asked = [_without(each, *_BROUGHT) for each in self._copies]
        said = await self._ask(asked, max(room, LEAST_ROOM))
        if said is None:
            return None
        for at, before in self._told.items():
            said[at] |= {key: before[key] for key in ("present", "problem") if key in before}
        return said

    async def _ask(self, copies: list[dict[str, Any]], room: int) -> list[dict[str, Any]] | None:
        body = json.dumps({**self._about, "sessions": copies, "maxBytes": room, "limit": 1}).encode()
        headers = [
            *self._scope["headers"],
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        try:
            answer = await self._elsewhere.answer(self._session, {**self._scope, "headers": headers}, _once(body))
            if answer is None:
                return None
            said = json.loads(await answer.get_data(as_text=False))
        except (CrdtSessionsError, ConnectionResetError, ValueError) as error:
            return [{"id": each["id"], "problem": _problem(error)} for each in copies]
        if answer.status_code != 200:
            return [{"id": each["id"], "problem": said} for each in copies]
        return list(said["sessions"])


def _problem(error: Exception) -> dict[str, Any]:
    if not isinstance(error, CrdtSessionsError):
        error = NodeUnreachable(node=0, why=str(error))
    return {"status": type_of(error).status, **told(error)}


def _without(copy: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in copy.items() if key not in keys}


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body

"""The history of a session, over HTTP: list, read, compare, keep, bring back, fork."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

from crdt_sessions.client.service import ServiceClient
from crdt_sessions.client.token import Token
from crdt_sessions.model import SessionExport

Found = TypeVar("Found")

_NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class KeptVersion:
    """A version of a session that is kept."""

    seq: int
    """Its number: the last update that is in it."""
    at: int
    """When that update was stored, in milliseconds since the Unix epoch."""
    size: int
    """Bytes on the service's disk."""
    name: str | None = None
    """A version with a name is kept until the session is deleted."""


class Past:
    """What was, in one session. Use it as a context manager.

    ::

        async with Past("http://127.0.0.1:8000", "trip-to-oslo") as past:
            draft = await past.keep("first draft")
            ...
            await past.restore(draft.seq)

    Args:
        url: the service.
        session: which session.
        token: if the service asks for one.

    Every method raises :class:`crdt_sessions.errors.RequestRefused` with the service's problem document, such as 404
    for a version that is not kept any more.
    """

    def __init__(self, url: str, session: str, *, token: Token | None = None) -> None:
        self._service = ServiceClient(url, token)
        self._session = f"/v1/sessions/{quote(session, safe='')}"

    async def __aenter__(self) -> Past:
        await self._service.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._service.__aexit__(kind, error, trace)

    async def versions(self) -> list[KeptVersion]:
        """Return the versions that are kept, oldest first."""
        return await self._ask(
            "GET", "/versions", lambda found: [KeptVersion(**version) for version in found["versions"]]
        )

    async def recent(self) -> list[tuple[int, int]]:
        """Return the states since the newest version, as (number, time); they can be read until the next folding."""
        return await self._ask(
            "GET", "/versions", lambda found: [(point["seq"], point["at"]) for point in found["recent"]]
        )

    async def read(self, seq: int) -> SessionExport:
        """Return the session as it was."""
        return await self._ask("GET", f"/versions/{seq}", SessionExport.model_validate)

    async def difference(self, before: int, after: int | None = None) -> list[dict[str, Any]]:
        """Return what changed between the versions *before* and *after*, or up to now, as a JSON Patch (RFC 6902).

        Messages, runs and artifacts are members by id: ``/messages/<id>/parts/0/text``.
        """
        return await self._ask(
            "GET", f"/versions/{before}/diff", _patch, params={} if after is None else {"to": after}
        )

    async def keep(self, name: str | None = None) -> KeptVersion:
        """Make the present state a version, and return it; with a name it is kept until the session is deleted."""
        return await self._ask("POST", "/versions", _kept, json={"name": name} if name else {})

    async def rename(self, seq: int, name: str | None) -> KeptVersion:
        """Give the version *seq* another name, or none: then it goes when others push it out. Return it."""
        return await self._ask("PATCH", f"/versions/{seq}", _kept, json={"name": name})

    async def restore(self, seq: int) -> KeptVersion:
        """Make the session look as it did; return the version that was made of it just before.

        It is one more change, which is merged with what others write. Runs and receipts stay as they are.
        """
        return await self._ask("POST", f"/versions/{seq}/restore", _kept)

    async def fork(self, target: str, *, seq: int | None = None, title: str | None = None) -> None:
        """Make a new session *target* that begins as this one was with update *seq*, or as it is.

        *title* is its title; that of this one if None.
        """
        wanted = {"id": target, "version": seq, "title": title}
        said = {key: value for key, value in wanted.items() if value is not None}
        await self._ask("POST", "/fork", _id, json=said)

    async def archive(self) -> bytes:
        """Return the session with all its versions, to be kept or taken over by another service."""
        answer = await self._service.request(
            "GET", f"{self._session}/export", kind=_NDJSON, params={"format": "archive"}
        )
        return answer.content

    async def take_over(self, archived: bytes) -> None:
        """Make the session of what :meth:`archive` returned, *archived*; it must not exist yet."""
        await self._ask("POST", "/import", _id, content=archived, headers={"Content-Type": _NDJSON})

    async def _ask(self, method: str, path: str, read: Callable[[Any], Found], **options: Any) -> Found:
        return await self._service.ask(method, self._session + path, read, **options)


def _kept(answer: dict[str, Any]) -> KeptVersion:
    return KeptVersion(**answer)


def _id(answer: dict[str, Any]) -> str:
    return str(answer["id"])


def _patch(answer: Any) -> list[dict[str, Any]]:
    if not isinstance(answer, list):
        raise TypeError("a JSON Patch is a list")
    return answer

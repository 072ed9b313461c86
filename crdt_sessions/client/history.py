"""The history of a session, over HTTP: list, read, compare, keep, bring back, fork."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote

from crdt_sessions.client.service import ServiceClient
from crdt_sessions.client.token import Token
from crdt_sessions.model import SessionExport


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
        return [KeptVersion(**version) for version in (await self._ask("GET", "/versions"))["versions"]]

    async def recent(self) -> list[tuple[int, int]]:
        """Return the states since the newest version, as (number, time); they can be read until the next folding."""
        return [(point["seq"], point["at"]) for point in (await self._ask("GET", "/versions"))["recent"]]

    async def read(self, seq: int) -> SessionExport:
        """Return the session as it was."""
        return SessionExport.model_validate(await self._ask("GET", f"/versions/{seq}"))

    async def difference(self, before: int, after: int | None = None) -> list[dict[str, Any]]:
        """Return what changed between the versions *before* and *after*, or up to now, as a JSON Patch (RFC 6902).

        Messages, runs and artifacts are members by id: ``/messages/<id>/parts/0/text``.
        """
        patch: list[dict[str, Any]] = await self._ask(
            "GET", f"/versions/{before}/diff", params={} if after is None else {"to": after}
        )
        return patch

    async def keep(self, name: str | None = None) -> KeptVersion:
        """Make the present state a version, and return it; with a name it is kept until the session is deleted."""
        return KeptVersion(**await self._ask("POST", "/versions", json={"name": name} if name else {}))

    async def rename(self, seq: int, name: str | None) -> KeptVersion:
        """Give the version *seq* another name, or none: then it goes when others push it out. Return it."""
        return KeptVersion(**await self._ask("PATCH", f"/versions/{seq}", json={"name": name}))

    async def restore(self, seq: int) -> KeptVersion:
        """Make the session look as it did; return the version that was made of it just before.

        It is one more change, which is merged with what others write. Runs and receipts stay as they are.
        """
        return KeptVersion(**await self._ask("POST", f"/versions/{seq}/restore"))

    async def fork(self, target: str, *, seq: int | None = None, title: str | None = None) -> None:
        """Make a new session *target* that begins as this one was with update *seq*, or as it is.

        *title* is its title; that of this one if None.
        """
        wanted = {"id": target, "version": seq, "title": title}
        await self._ask("POST", "/fork", json={key: value for key, value in wanted.items() if value is not None})

    async def archive(self) -> bytes:
        """Return the session with all its versions, to be kept or taken over by another service."""
        answer = await self._service.request("GET", f"{self._session}/export", params={"format": "archive"})
        return answer.content

    async def take_over(self, archived: bytes) -> None:
        """Make the session of what :meth:`archive` returned, *archived*; it must not exist yet."""
        headers = {"Content-Type": "application/x-ndjson"}
        await self._service.request("POST", f"{self._session}/import", content=archived, headers=headers)

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        return (await self._service.request(method, self._session + path, **options)).json()

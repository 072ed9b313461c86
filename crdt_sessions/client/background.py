"""Sync by request, for devices that are online for seconds: many sessions at once, and what changed since.

A device keeps a copy of each session that it holds, changes it also offline, and calls :meth:`BackgroundSync.once`
when the system lets it: then what it wrote is durable, and it has what others wrote. Nothing is lost if the answer
is: the same is sent again the next time.
"""

from __future__ import annotations

import base64
import gzip
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from crdt_sessions.client.service import ServiceClient
from crdt_sessions.client.token import Token
from crdt_sessions.model import SessionDoc, SessionView
from crdt_sessions.wire import EMPTY_UPDATE

Result = TypeVar("Result")

_AT_ONCE = 100
"""Sessions in one request; see ``max_sync_sessions``."""
_NOTHING = b"\x00"


class LocalCopy:
    """A device's copy of a session.

    Args:
        name: the session's.
        client_id: a Yjs client id, fresh and random in every process; made up if None.
    """

    def __init__(self, name: str, client_id: int | None = None) -> None:
        self.name = name
        self.document = SessionDoc(client_id or secrets.randbelow(2**32 - 1) + 1)
        self.view = SessionView(self.document)
        self.lineage: str | None = None
        """Which creation of the session it is a copy of; None if it was not synced yet."""
        self.problem: dict[str, Any] | None = None
        """Why the service did not take what was brought the last time."""
        self.left_out: int | None = None
        """How many bytes are lacking that were too many for the last answer; None if it is whole."""
        self._server = _NOTHING
        self._edits = 0
        self._taken = 0
        self._whole = False

    @property
    def dirty(self) -> bool:
        """Whether it holds changes that may not be durable at the service."""
        return self._edits != self._taken

    def edit(self, change: Callable[[SessionView], Result]) -> Result:
        """Change the copy in one transaction; return what *change* returns."""
        self._edits += 1
        return self.document.edit(lambda _: change(self.view))[0]

    def request(self) -> tuple[dict[str, Any], int]:
        """Return what to send for it, and what :meth:`take` needs to know of it."""
        said: dict[str, Any] = {"id": self.name, "stateVector": _spelled(self.document.state_vector())}
        if self.lineage is not None:
            said["lineage"] = self.lineage
        if self.dirty:
            said["update"] = _spelled(self.document.encode(self._server))
        elif self._whole:
            said["ifChanged"] = True
        return said, self._edits

    def take(self, answer: dict[str, Any], edits: int) -> None:
        """Take the service's answer to a request that was made after so many *edits*."""
        self.problem = answer.get("problem")
        if answer.get("unchanged"):
            return
        self.lineage = answer.get("lineage", self.lineage)
        self.left_out = answer.get("size")
        self._whole = self.left_out is None and self.problem is None
        if "update" in answer:
            update = base64.b64decode(answer["update"])
            if update != EMPTY_UPDATE:
                self.document.apply(update)
                self.document.take_touched()
        if "stateVector" in answer:
            self._server = base64.b64decode(answer["stateVector"])
        if self.problem is None:
            self._taken = edits


@dataclass(slots=True)
class Synced:
    """What came of a sync."""

    changed: list[dict[str, Any]] = field(default_factory=list)
    """Sessions that changed since the last time, as the service told of them; also those that the device does not
    hold."""
    refused: list[LocalCopy] = field(default_factory=list)
    """Those of which something was not taken."""
    incomplete: list[LocalCopy] = field(default_factory=list)
    """Those that lack more than there was room for."""


class BackgroundSync:
    """The sessions that a device holds. Use it as a context manager.

    Args:
        url: the service.
        token: if the service asks for one.
        device: names the device among those of its principal.
        cursor: of the last sync, if the device has kept it with its copies.
        transport: carries the requests where that is not done over a network.

    Raises:
        BadUrl: *url* is not that of a service.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        device: str = "",
        cursor: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.cursor = cursor
        """What is known of what changed; to be kept with the copies."""
        self.copies: dict[str, LocalCopy] = {}
        """The sessions that the device holds, by name."""
        self._device = device
        self._service = ServiceClient(url, token, transport=transport)

    async def __aenter__(self) -> BackgroundSync:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._service.__aexit__(None, None, None)

    def hold(self, name: str, client_id: int | None = None) -> LocalCopy:
        """Return the device's copy of a session; it holds one from now on."""
        return self.copies.setdefault(name, LocalCopy(name, client_id))

    async def once(self, *, max_bytes: int = 1024 * 1024) -> Synced:
        """Bring what was written, and get what others wrote.

        Args:
            max_bytes: an answer may have so many bytes of differences.

        Raises:
            ServiceUnreachable, NoService: there was no answer; what was brought may be stored, and is sent again.
            RequestRefused: the service refused all of it.
        """
        synced = Synced()
        waiting = list(self.copies.values())
        more = True
        while more or waiting:
            now, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            more, again = await self._ask(now, max_bytes, synced)
            waiting = again + waiting
        synced.refused = [copy for copy in self.copies.values() if copy.problem is not None]
        synced.incomplete = [copy for copy in self.copies.values() if copy.left_out is not None]
        return synced

    async def _ask(self, copies: Sequence[LocalCopy], max_bytes: int, synced: Synced) -> tuple[bool, list[LocalCopy]]:
        """Make one request; return whether more has changed, and the copies to be asked about again."""
        requests = [copy.request() for copy in copies]
        said = {"sessions": [said for said, _ in requests], "maxBytes": max_bytes, "device": self._device}
        body = json.dumps(said | ({"cursor": self.cursor} if self.cursor is not None else {})).encode()
        found = await self._service.ask(
            "POST",
            "/v1/sync",
            _answer_to(copies),
            content=gzip.compress(body),
            headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
        )
        for copy, (_, edits), outcome in zip(copies, requests, found["sessions"], strict=True):
            copy.take(outcome, edits)
        self.cursor = found["cursor"]
        synced.changed += found["changed"]
        again = [copy for copy in copies if copy.left_out is not None and copy.left_out <= max_bytes]
        return found["more"], again


def _answer_to(copies: Sequence[LocalCopy]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what reads the service's answer about *copies*; nothing is taken of one that is not the service's."""

    def read(answer: dict[str, Any]) -> dict[str, Any]:
        said = {key: answer[key] for key in ("sessions", "cursor", "changed", "more")}
        if len(said["sessions"]) != len(copies):
            raise ValueError("it is about other sessions")
        return said

    return read


def _spelled(value: bytes) -> str:
    return base64.b64encode(value).decode()

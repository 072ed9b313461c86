"""REST: many sessions in one request, for devices that are online for seconds."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue
from quart import Blueprint, Response, request

from crdt_sessions.errors import BadParameter, BadSessionId, TooLarge
from crdt_sessions.ids import name_of, session_id
from crdt_sessions.model.strings import NAME_CHARACTERS
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import Changes
from crdt_sessions_server.asgi import http_token
from crdt_sessions_server.auth import Principal, current_admission, current_principal
from crdt_sessions_server.http.compression import compressed
from crdt_sessions_server.http.describing import Parameter, answers, reads, refuses, tag, takes
from crdt_sessions_server.http.errands import AT_A_TIME
from crdt_sessions_server.http.paging import MAX_PAGE, cursor_at, place_of
from crdt_sessions_server.http.problem_documents import told
from crdt_sessions_server.http.problems import type_of
from crdt_sessions_server.http.request_forwarding import current_forwarder
from crdt_sessions_server.http.schemas import JSON, Answer, Body
from crdt_sessions_server.http.validation import validate_request
from crdt_sessions_server.rest.exchange import Copy, Exchange, Outcome
from crdt_sessions_server.rest.presence import LONGEST_S
from crdt_sessions_server.rest.sessions import SessionInfo, session_info
from crdt_sessions_server.rest.sync_elsewhere import Away

_MOST_READS = 20
"""Pages of changes that are read until there is one that may be seen."""
_CURSOR_CHARACTERS = 1000


def _bytes_of(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("should be base64 (RFC 4648, section 4)") from None


Base64 = Annotated[
    bytes,
    BeforeValidator(_bytes_of),
    Field(json_schema_extra={"format": "byte", "contentEncoding": "base64"}),
]
"""Bytes, as base64 with padding."""


class SessionCopy(Body):
    """A copy of a session, on a device."""

    id: str = Field(description="The session's name.")
    lineage: str | None = Field(
        None, max_length=200, description="Of the session that the copy is of, as an earlier answer said."
    )
    state_vector: Base64 | None = Field(
        None, description="What the copy has (`Y.encodeStateVector`); without it no difference is returned."
    )
    update: Base64 | None = Field(
        None, description="What the service may lack, in Yjs encoding v1; all since its state vector, in one."
    )
    if_changed: bool = Field(
        False, description="Whether to leave the session alone if it has not changed since the cursor."
    )
    presence: dict[str, JsonValue] | None = Field(
        None, description="What others in it are shown of this device for `presenceS` seconds."
    )


class SyncRequest(Body):
    """What a device has, and what it brings."""

    cursor: str | None = Field(
        None, max_length=_CURSOR_CHARACTERS, description="Of the last answer; absent to be told of all sessions."
    )
    member: bool = Field(False, description="Only of sessions that give the caller a role of their own.")
    limit: int = Field(200, ge=1, le=MAX_PAGE, description="So many changed sessions are told of at the most.")
    sessions: Annotated[list[SessionCopy], Field(fail_fast=True)] = Field(default_factory=list)
    max_bytes: int = Field(
        1024 * 1024, ge=1024, description="So many bytes of differences are wanted at the most, before base64."
    )
    device: str = Field("", max_length=NAME_CHARACTERS, description="Tells devices of one principal apart.")
    presence_s: float = Field(30, ge=1, le=LONGEST_S, description="How long a presence lasts.")


class Changed(SessionInfo):
    """A session that has changed."""

    deleted: bool = False


class SyncProblem(Answer):
    """Why a session, or what was brought for it, was refused."""

    type: str
    title: str
    status: int
    detail: str


class SessionOutcome(Answer):
    """What became of one session of the request."""

    id: str
    lineage: str | None = Field(
        default=None, description="Names this creation of it; say it with the copy from now on."
    )
    unchanged: bool | None = Field(default=None, description="True if it was left alone, as was asked for.")
    update: str | None = Field(default=None, description="What the copy lacks, as base64; absent if nothing.")
    state_vector: str | None = Field(default=None, description="What the service has, as base64.")
    more: bool | None = Field(default=None, description="True if there was no room for what the copy lacks.")
    size: int | None = Field(default=None, description="How much that is; `maxBytes` must be so much at least.")
    present: list[dict[str, JsonValue]] | None = Field(
        default=None, description="Who is here, if one's presence was told."
    )
    problem: SyncProblem | None = Field(
        default=None, description="Why nothing of what was brought was taken; or not all, if it is `early-update`."
    )


class SyncAnswer(Answer):
    """What the device lacks."""

    cursor: str = Field(description="Send this the next time.")
    more: bool = Field(description="Whether there is more that changed: come again at once.")
    reset: bool = Field(description="Whether the cursor was none of here: all sessions are told of from the first.")
    changed: list[Changed] = Field(description="Sessions that changed since the cursor, the earliest first.")
    sessions: list[SessionOutcome] = Field(description="Those of the request, in its order.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the route for syncing many sessions."""
    sync = Blueprint("sync", __name__, url_prefix="/v1")

    @sync.post("/sync")
    @tag(["transfer"])
    @validate_request(SyncRequest)
    @takes({JSON: SyncRequest})
    @reads(Parameter("Content-Encoding", "`gzip`, if the body is compressed."))
    @answers(200, {JSON: SyncAnswer}, headers={"Content-Encoding": "`gzip`, if it was accepted."})
    @refuses(TooLarge, BadParameter)
    async def sync_sessions(data: SyncRequest) -> Response:
        """Sync many sessions at once, and hear which ones changed since the last time.

        What was brought is durable when the answer arrives, but for what has a `problem`; the other sessions go on.
        The same request may be sent again.
        """
        limits = registry.limits
        if len(data.sessions) > limits.max_sync_sessions:
            size = len(data.sessions)
            raise TooLarge(what="the request", size=size, limit=limits.max_sync_sessions, unit="sessions")
        admission, scope, principal = current_admission(), dict(request.scope), current_principal()
        admission.count_connect(scope, principal)
        with admission.streaming(principal):
            changes = await _changed(registry, principal, data)
            exchange = Exchange(
                registry, admission, scope, http_token(scope), device=data.device, presence_s=data.presence_s
            )
            untouched = _untouched(data, changes)
            outcomes = await _exchanged(
                exchange, principal, data, untouched, min(data.max_bytes, limits.max_sync_bytes)
            )
        answer = SyncAnswer(
            cursor=cursor_at(_scope_of(principal, data), changes.mark),
            more=changes.more,
            reset=data.cursor is not None and changes.reset,
            changed=[
                Changed(**session_info(each.record).model_dump(), deleted=each.deleted) for each in changes.sessions
            ],
            sessions=outcomes,
        )
        body = json.dumps(answer.model_dump(by_alias=True, exclude_none=True), ensure_ascii=False)
        return await compressed(Response(body, content_type=JSON), request)

    return sync


def _scope_of(principal: Principal, data: SyncRequest) -> str:
    """Return what a cursor is good for: whoever may see other sessions has to be told of them from the first."""
    member = principal.id if data.member else None
    facts = json.dumps([principal.tenant, sorted(principal.sessions), member])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


async def _changed(registry: SessionRegistry, principal: Principal, data: SyncRequest) -> Changes:
    """Return what changed since the cursor that the principal may see; from the first, if the cursor is none."""
    since = _mark_in(data.cursor, _scope_of(principal, data))
    member, reset, reads_left = principal.id if data.member else None, since is None, _MOST_READS
    while True:
        reads_left -= 1
        found = await registry.store.changed_sessions(principal.tenant, since=since, member=member, limit=data.limit)
        since, reset = found.mark, reset or found.reset
        seen = [each for each in found.sessions if principal.may_see(each.record.id)]
        if seen or not found.more or not reads_left:
            return Changes(seen, found.mark, found.more, reset)


def _mark_in(cursor: str | None, scope: str) -> str | None:
    if cursor is None:
        return None
    try:
        whose, mark = place_of(cursor, str, str)
    except BadParameter:
        return None
    return str(mark) if whose == scope else None


def _untouched(data: SyncRequest, changes: Changes) -> set[int]:
    """Return the places of the sessions that are to be left alone, since all that changed is known."""
    if changes.reset or changes.more:
        return set()
    names = {name_of(each.record.id) for each in changes.sessions}
    return {
        at
        for at, each in enumerate(data.sessions)
        if each.if_changed and each.update is None and each.presence is None and each.id not in names
    }


class _Share:
    """Those sessions of a request that one node has."""

    def __init__(
        self, exchange: Exchange, copies: Sequence[Copy], untouched: AbstractSet[int], away: Away | None
    ) -> None:
        self._exchange = exchange
        self._copies = copies
        self._untouched = untouched
        self._away = away
        self._outcomes: list[Outcome] = []

    async def bring(self) -> None:
        """Have the node take what was brought."""
        if self._away is not None and await self._away.bring():
            return
        self._away, gate = None, asyncio.Semaphore(AT_A_TIME)

        async def brought(copy: Copy) -> Outcome:
            async with gate:
                return await self._exchange.bring(copy)

        self._outcomes = await asyncio.gather(*(brought(copy) for copy in self._copies))

    async def get(self, room: int) -> tuple[list[SessionOutcome], int]:
        """Return what became of each session, and how much room is left."""
        if self._away is not None:
            said = await self._away.get(room)
            if said is not None:
                return _fitting([SessionOutcome.model_validate(each) for each in said], room)
            self._away = None
            await self.bring()
        answers = []
        for at, (copy, outcome) in enumerate(zip(self._copies, self._outcomes, strict=True)):
            if at in self._untouched and outcome.problem is None:
                answers.append(SessionOutcome(id=copy.name, unchanged=True))
                continue
            await self._exchange.get(copy, outcome, room)
            room -= len(outcome.difference or b"")
            answers.append(_outcome(copy.name, outcome))
        return answers, room


def _fitting(outcomes: list[SessionOutcome], room: int) -> tuple[list[SessionOutcome], int]:
    """Return what another node said without differences for which there is no room, and how much is left."""
    for each in outcomes:
        size = len(base64.b64decode(each.update or ""))
        if size > max(room, 0):
            each.update, each.more, each.size = None, True, size
        else:
            room -= size
    return outcomes, room


async def _exchanged(
    exchange: Exchange, principal: Principal, data: SyncRequest, untouched: set[int], room: int
) -> list[SessionOutcome]:
    copies = [Copy(each.id, each.lineage, each.state_vector, each.update, each.presence) for each in data.sessions]
    places = await _by_node(principal, [None if at in untouched else each.name for at, each in enumerate(copies)])
    elsewhere, scope, about = current_forwarder(), dict(request.scope), _about(data)
    shares = []
    for node, mine in places.items():
        away = None
        if node is not None and elsewhere is not None:
            asked = [_asked(data.sessions[at]) for at in mine]
            away = Away(elsewhere, session_id(copies[mine[0]].name, principal.tenant), scope, about, asked)
        left_alone = {number for number, at in enumerate(mine) if at in untouched}
        shares.append((_Share(exchange, [copies[at] for at in mine], left_alone, away), mine))
    await asyncio.gather(*(share.bring() for share, _ in shares))
    answers: dict[int, SessionOutcome] = {}
    for share, mine in shares:
        said, room = await share.get(room)
        answers |= zip(mine, said, strict=True)
    return [answers[at] for at in range(len(copies))]


async def _by_node(principal: Principal, names: Sequence[str | None]) -> dict[int | None, list[int]]:
    """Return the places of sessions by the node that has them: None for this one, and for what is no name."""
    elsewhere, scope, found = current_forwarder(), dict(request.scope), defaultdict[int | None, list[int]](list)
    for at, name in enumerate(names):
        node = None
        if elsewhere is not None and name is not None:
            with suppress(BadSessionId):  # whoever looks at it next says so
                node = await elsewhere.serving(session_id(name, principal.tenant), scope)
        found[node].append(at)
    return found


def _about(data: SyncRequest) -> dict[str, Any]:
    return {"device": data.device, "presenceS": data.presence_s}


def _asked(copy: SessionCopy) -> dict[str, Any]:
    """Return a copy as it stands in a request."""
    facts = {
        "lineage": copy.lineage,
        "stateVector": _spelled(copy.state_vector),
        "update": _spelled(copy.update),
        "presence": copy.presence,
    }
    return {"id": copy.id, **{key: value for key, value in facts.items() if value is not None}}


def _outcome(name: str, outcome: Outcome) -> SessionOutcome:
    error = outcome.problem
    return SessionOutcome(
        id=name,
        lineage=outcome.lineage,
        update=_spelled(outcome.difference),
        state_vector=_spelled(outcome.state_vector),
        more=True if outcome.left_out is not None else None,
        size=outcome.left_out,
        present=outcome.present,
        problem=SyncProblem(status=type_of(error).status, **told(error)) if error is not None else None,
    )


def _spelled(value: bytes | None) -> str | None:
    return base64.b64encode(value).decode() if value is not None else None

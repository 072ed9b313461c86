"""What one session of a request to sync brings, and what it gets: what a socket does in a while, done at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from crdt_sessions.errors import CrdtSessionsError, TooLarge, WrongLineage
from crdt_sessions.ids import Millis, SessionId, session_id
from crdt_sessions.runtime import Session, SessionRegistry, present
from crdt_sessions.sync import Actor
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import check_clients, decode_state_vector
from crdt_sessions_server.asgi import Scope
from crdt_sessions_server.auth import Admission, Permission, Principal
from crdt_sessions_server.rest.presence import shown

MAX_FRAMES = 10_000
"""Frames, updates or presences that one body may hold: each is read, and taken, in the event loop."""


def check_frames(count: int) -> None:
    """Return if a body may hold so many frames.

    Raises:
        TooLarge: it may not.
    """
    if count > MAX_FRAMES:
        raise TooLarge(what="the body", size=count, limit=MAX_FRAMES, unit="frames")


@dataclass(frozen=True, slots=True)
class Copy:
    """A client's copy of a session, and what it says with it."""

    name: str
    lineage: str | None = None
    """Of the session that the copy is of, if it knows."""
    state_vector: bytes | None = None
    """What the copy has; None if no difference is asked for."""
    update: bytes | None = None
    """What the server may lack."""
    presence: dict[str, Any] | None = None
    """What others are to be shown of whoever has it."""


@dataclass(slots=True)
class Outcome:
    """What became of it."""

    session: SessionId | None = None
    """None if the client was not let in."""
    lineage: str | None = None
    state_vector: bytes | None = None
    """What the server has; None if nothing of the session was read."""
    difference: bytes | None = None
    left_out: int | None = None
    """How large the difference is, if there was no room for it."""
    present: list[dict[str, Any]] | None = None
    problem: CrdtSessionsError | None = None
    """Why the update was not taken, or not all of it; or why nothing at all was done."""


class Exchange:
    """One request to sync.

    Args:
        registry: the sessions.
        admission: admits principals to sessions.
        scope: the request.
        token: as presented.
        device: names the device among those of its principal.
        presence_s: for how many seconds it is present.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        admission: Admission,
        scope: Scope,
        token: str | None,
        *,
        device: str,
        presence_s: float,
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._scope = scope
        self._token = token
        self._device = device
        self._presence = Millis(int(presence_s * 1000))

    async def bring(self, copy: Copy) -> Outcome:
        """Take what a copy brings. What of it is taken is durable when this returns."""
        outcome = Outcome()
        try:
            admitted = await self._admission.admit(self._scope, self._token, copy.name, Permission.READ)
            outcome.session = session_id(copy.name, admitted.principal.tenant)
            if copy.update is not None or copy.presence is not None:
                await self._bring(copy, outcome.session, admitted.principal, outcome)
        except CrdtSessionsError as error:
            outcome.problem = error
        return outcome

    async def _bring(self, copy: Copy, wanted: SessionId, principal: Principal, outcome: Outcome) -> None:
        update = copy.update if copy.update != EMPTY_UPDATE else None
        creates = principal.access.creates and copy.update is not None
        async with self._registry.join(wanted, create=creates, by=principal.id, lineage=copy.lineage) as session:
            actor = Actor(principal.access.principal, principal.rights)
            if copy.presence is not None:
                state = shown(principal, principal.id, copy.presence, self._device)
                session.presence.announce(actor, self._device, json.dumps(state), self._presence)
                outcome.present = present(session)
            if update is not None:
                await session.apply(update, actor)

    async def get(self, copy: Copy, outcome: Outcome, room: int) -> None:
        """Read what a copy lacks, of at most *room* bytes, and what the server has.

        Whoever may read gets that also where what they brought was refused.
        """
        if outcome.session is None:
            return
        try:
            async with self._registry.join(outcome.session, create=False, by="", lineage=copy.lineage) as session:
                await session.readable()
                if copy.state_vector is not None:
                    check_clients(copy.state_vector)
                _check_shares(session, copy)
                outcome.lineage = session.record.lineage
                outcome.state_vector = session.document.state_vector()
                if copy.state_vector is not None:
                    difference = session.document.encode(copy.state_vector)
                    if len(difference) > room:
                        outcome.left_out = len(difference)
                    elif difference != EMPTY_UPDATE:
                        outcome.difference = difference
        except CrdtSessionsError as error:
            outcome.problem = outcome.problem or error


def _check_shares(session: Session, copy: Copy) -> None:
    """Return unless a copy that does not say of what it is has nothing in common with the session.

    Raises:
        WireError: the state vector cannot be read.
        WrongLineage: it may be a copy of another session of that name, with which this one must not be mixed.
    """
    if copy.state_vector is None or copy.lineage is not None:
        return
    theirs, ours = decode_state_vector(copy.state_vector), decode_state_vector(session.document.state_vector())
    if theirs and ours and ours.keys().isdisjoint(theirs):
        raise WrongLineage(session=session.id, theirs="", ours=session.record.lineage)

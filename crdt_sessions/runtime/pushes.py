"""Whom to wake up: somebody for whom something happened, and none of whose devices is there.

A push is a delivery of the outbox, so it is stored in the transaction that stores what it tells of, is posted at
least once and has the same id each time. It says that something waits, and where; what, only to receivers that asked
for it.

Of one reason a principal is told once in each period for a session, at its end: its id is made of them. If they were
there meanwhile, nothing is posted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol

from crdt_sessions.ids import Millis, SessionId, name_of, tenant_of
from crdt_sessions.limits import Timing
from crdt_sessions.runtime.attendance import Attendance
from crdt_sessions.runtime.said import Said
from crdt_sessions.storage import Delivery
from crdt_sessions.sync import Records, RunRecord, SessionEngine

PUSH = "person.away"
"""The kind of such a delivery."""
_MOST_TEXT = 300
_ASKING: dict[str, Literal["ask", "call"]] = {"run.approval_requested": "ask", "run.call_waiting": "call"}
_DONE = {"run.completed", "run.failed", "run.interrupted"}


class Happening(NamedTuple):
    """Something that concerns a principal."""

    principal: str
    reason: Literal["message", "ask", "call", "answer"]
    at: Millis
    run: str | None = None
    message: str | None = None


class ThereElsewhere(Protocol):
    """Other processes that share the store."""

    async def there_since(self, tenant: str, principal: str, since: Millis) -> bool:
        """Tell whether somebody is there, or was after *since*, as far as others say."""
        ...


class Pushes:
    """Finds out who is to be told.

    Args:
        attendance: knows who is there.
        timing: how long somebody counts as there, and how long several things are one.
    """

    def __init__(self, attendance: Attendance, timing: Timing) -> None:
        self._attendance = attendance
        self._away_ms = int(timing.away_s * 1000)
        self._period_ms = max(1, int(timing.push_period_s * 1000))
        self.elsewhere: ThereElsewhere | None = None
        """Other processes, where somebody may be; None if there are none."""

    def happenings(
        self, session: SessionId, engine: SessionEngine, said: Said, records: Sequence[Records]
    ) -> list[Happening]:
        """Return what in *records* concerns principals who are not there."""
        found = [each for record in records for each in _concerning(engine, said, record)]
        here = engine.roster.principals() if found else set()
        tenant = tenant_of(session)
        return [
            each
            for each in found
            if each.principal not in here
            and not self._attendance.there_since(tenant, each.principal, Millis(each.at - self._away_ms))
        ]

    def delivery(
        self, session: SessionId, engine: SessionEngine, each: Happening, webhook: str, *, content: bool
    ) -> Delivery:
        """Return the delivery to a *webhook*, with words of what happened if it asks for *content*."""
        period = each.at // self._period_ms
        spelled = json.dumps([webhook, session, each.principal, each.reason, period])
        data = {"session": name_of(session), "principal": each.principal, "reason": each.reason, "at": each.at}
        data |= {key: value for key, value in (("run", each.run), ("message", each.message)) if value is not None}
        if content:
            data["content"] = _words(engine, each)
        body = json.dumps({"type": PUSH, "timestamp": timestamp(each.at), "data": data}, ensure_ascii=False)
        id = f"push_{hashlib.sha256(spelled.encode('utf-8', 'replace')).hexdigest()[:32]}"
        due = Millis((period + 1) * self._period_ms)
        return Delivery(id, webhook, session, PUSH, body, each.at, next_at=due)

    async def needless(self, delivery: Delivery) -> bool:
        """Tell whether a delivery is a push to somebody who has been there since, in this process or another one.

        Of others, it is not known before whether they were there when it happened.
        """
        if delivery.kind != PUSH:
            return False
        tenant, principal = tenant_of(delivery.session), json.loads(delivery.body)["data"]["principal"]
        if self.there_since(tenant, principal, delivery.created_at):
            return True
        since = Millis(delivery.created_at - self._away_ms)
        return self.elsewhere is not None and await self.elsewhere.there_since(tenant, principal, since)

    def there_since(self, tenant: str, principal: str, since: Millis) -> bool:
        """Tell whether somebody is there, or was after *since*, in this process."""
        return self._attendance.there_since(tenant, principal, since)


def timestamp(at: Millis) -> str:
    """Return a time as webhooks spell it."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat().replace("+00:00", "Z")


def _concerning(engine: SessionEngine, said: Said, records: Records) -> Iterator[Happening]:
    for posted in records.posted:
        for person in sorted(said.people() - {posted.author}):
            yield Happening(person, "message", posted.at, message=posted.message)
    for notice in records.notices:
        run = engine.runs.table.record(notice.data["run"])
        if run is None or run.parent is not None:
            continue
        if (reason := _ASKING.get(notice.kind)) is not None:
            whom = _asked(run) if reason == "ask" else _called(run)
            named = {person for some in whom if some is not None for person in some}
            for person in sorted(named | (said.people() if None in whom else set())):
                yield Happening(person, reason, notice.at, run=run.id, message=run.output)
        elif notice.kind in _DONE and run.request is not None and run.request.by is not None:
            yield Happening(run.request.by, "answer", notice.at, run=run.id, message=run.output)


def _asked(run: RunRecord) -> list[list[str] | None]:
    """Return who may decide about each question that is open; None for everybody."""
    return [each.request.approvers for each in run.undecided]


def _called(run: RunRecord) -> list[list[str] | None]:
    """Return whose devices may take each call that none has; None for everybody's."""
    return [each.call.takers for each in run.open_calls.values() if each.taken is None]


def _words(engine: SessionEngine, each: Happening) -> dict[str, Any]:
    message = engine.view.messages.value(each.message) if each.message is not None else None
    return {
        "title": engine.view.meta.title,
        "author": message.author.name if message is not None else None,
        "text": message.text[:_MOST_TEXT] if message is not None else "",
    }

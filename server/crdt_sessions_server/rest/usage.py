"""REST for what runs have used: the holder of one says it, and whoever may asks for the sums."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from pydantic import Field
from quart import Blueprint

from crdt_sessions.errors import AccessDenied, LeaseLost
from crdt_sessions.ids import SessionId
from crdt_sessions.model import Run
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import Amounts
from crdt_sessions_server.auth import Permission, asked_session, current_principal
from crdt_sessions_server.http.describing import reads, refuses, tag
from crdt_sessions_server.http.schemas import Answer, Query
from crdt_sessions_server.http.validation import validate_querystring, validate_request, validate_response
from crdt_sessions_server.rest.leases import LEASE_TOKEN, Spending, held_run

_EPOCH = datetime.date(1970, 1, 1)


class Days(Query):
    """From which day to which."""

    since: datetime.date | None = Field(None, description="The first day that counts (UTC), such as 2026-11-30.")
    until: datetime.date | None = Field(None, description="The last day that counts.")


class UsageQuery(Days):
    """Whose, and from which day to which."""

    principal: str | None = Field(None, description="For whom the runs worked; all of the tenant if it is left out.")
    session: str | None = Field(None, description="In which session; in all, deleted ones included, if left out.")


class ModelUsage(Answer):
    """What one model was used for, in one currency."""

    model: str = Field(description="Empty where nobody said.")
    currency: str | None = Field(None, description="Absent where nobody said what it cost.")
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    calls: int
    cost: int = Field(description="In millionths of the currency.")


class UsageSums(Answer):
    """What runs have used, added up."""

    input_tokens: int = Field(description="What models read, cached tokens included.")
    cached_tokens: int
    output_tokens: int = Field(description="What models wrote, their thoughts included.")
    reasoning_tokens: int
    calls: int
    costs: dict[str, int] = Field(description="By currency, in millionths of it.")
    models: list[ModelUsage] = Field(description="The same by model and currency.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of usage."""
    usage = Blueprint("usage", __name__, url_prefix="/v1")

    @usage.put("/sessions/<string:name>/runs/<string:run>/usage")
    @tag(["agents"])
    @validate_request(Spending)
    @validate_response(Run)
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost)
    async def put_usage(name: str, run: str, data: Spending) -> Run:
        """Say what this attempt has cost so far; the answer has what all attempts have cost."""
        spent = data.spent()
        async with held_run(registry, name, run) as holding:
            return await holding.usage(spent)

    @usage.get("/sessions/<string:name>/usage")
    @tag(["runs"])
    @validate_querystring(Days)
    @validate_response(UsageSums)
    async def session_usage(name: str, query_args: Days) -> UsageSums:
        """Return what the runs of a session have used."""
        async with registry.open(asked_session(name)) as session:  # 404 if there is none
            return await _sums(registry, query_args, session=session.id)

    @usage.get("/usage")
    @tag(["runs"])
    @validate_querystring(UsageQuery)
    @validate_response(UsageSums)
    async def get_usage(query_args: UsageQuery) -> UsageSums:
        """Return what runs have used that worked for a principal.

        Everybody may ask for their own; that of others, and of the whole tenant, takes ``admin``, and a token for all
        sessions of the tenant, or the session.
        """
        caller = current_principal()
        if query_args.principal != caller.id:
            caller.require(Permission.ADMIN)
            if query_args.session is None and not caller.may_enter_all:
                raise AccessDenied(what="this token is for certain sessions: name one of them")
        session = asked_session(query_args.session) if query_args.session is not None else None
        if session is not None and not caller.may_see(session):
            raise AccessDenied(what="this token is for other sessions")
        return await _sums(registry, query_args, session=session, principal=query_args.principal)

    return usage


async def _sums(
    registry: SessionRegistry, days: Days, *, session: SessionId | None = None, principal: str | None = None
) -> UsageSums:
    found = await registry.store.usage(
        current_principal().tenant,
        session=session,
        principal=principal,
        since=_number(days.since),
        until=_number(days.until),
    )
    return _added_up(found)


def _added_up(found: Mapping[tuple[str, str], Amounts]) -> UsageSums:
    whole, costs = Amounts(), dict[str, int]()
    for (_, currency), amounts in found.items():
        whole = whole.plus(amounts)
        if currency:
            costs[currency] = costs.get(currency, 0) + amounts.cost
    models = [
        ModelUsage(model=model, currency=currency or None, **amounts._asdict())
        for (model, currency), amounts in sorted(found.items())
    ]
    sums = whole._asdict()
    del sums["cost"]
    return UsageSums(**sums, costs=costs, models=models)


def _number(day: datetime.date | None) -> int | None:
    return None if day is None else (day - _EPOCH).days

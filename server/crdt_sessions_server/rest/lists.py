"""REST across sessions: the runs of a tenant, and its agents."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, ValidationError
from quart import Blueprint

from crdt_sessions.ids import Millis, SessionId, name_of, session_id
from crdt_sessions.model import Run
from crdt_sessions.model.run_values import RunStatus
from crdt_sessions.model.strings import AgentName
from crdt_sessions.runtime import SessionRegistry, is_there, known_agents, runs_at_work
from crdt_sessions.storage import FoundRun
from crdt_sessions.sync import RunRecord
from crdt_sessions_server.auth import Principal, current_principal
from crdt_sessions_server.http.describing import tag
from crdt_sessions_server.http.paging import MAX_PAGE, cursor_at, place_of, some_of, visible
from crdt_sessions_server.http.schemas import Answer, Query
from crdt_sessions_server.http.sealing import Seal
from crdt_sessions_server.http.validation import validate_querystring, validate_response


class RunQuery(Query):
    """Which runs."""

    status: str | None = Field(
        None,
        pattern=some_of(RunStatus),
        description="Only those with one of these statuses, with commas in between.",
    )
    agent: AgentName | None = Field(
        None, description="Only those for this agent, or that it has taken; * for those that wait for any."
    )
    cursor: str | None = Field(None, description="`nextCursor` of the page before.")
    limit: int = Field(50, ge=1, le=MAX_PAGE)


class ListedRun(Answer):
    """A run, and where it is."""

    session: str
    asked_at: int = Field(description="When the service heard of it, in milliseconds.")
    run: Run


class ListedRuns(Answer):
    """A page of runs, those that were asked for last first."""

    runs: list[ListedRun]
    next_cursor: str | None = Field(None, description="Ask with this to get the next page; absent on the last.")


class Work(Answer):
    """A run that an agent works on."""

    session: str
    run: str
    since: int = Field(description="When it was claimed, in milliseconds.")


class AgentInfo(Answer):
    """An agent."""

    name: str
    present: bool = Field(description="Whether it waits for runs, or works on one, right now.")
    seen_at: int | None = Field(
        None, description="When it was noted last that it asks for runs; absent if it never has, or is here."
    )
    runs: list[Work] = Field(description="What it works on, as far as one may see the sessions.")


class AgentPage(Answer):
    """The agents of a tenant, by name."""

    agents: list[AgentInfo]


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes."""
    lists = Blueprint("lists", __name__, url_prefix="/v1")
    seal = Seal(registry.store, registry.clock)

    @lists.get("/runs")
    @tag(["runs"])
    @validate_querystring(RunQuery)
    @validate_response(ListedRuns)
    async def list_all_runs(query_args: RunQuery) -> ListedRuns:
        """List the runs of all sessions that one may see, page by page; those that were asked for last come first.

        Of very many that one may not see, a page may have few, or none, and a cursor all the same.
        """
        principal = current_principal()
        if query_args.cursor is not None:
            query_args.cursor = await seal.opened(query_args.cursor)
        found, last = await _runs(registry, query_args, principal)
        cursor = None if last is None else cursor_at(last.asked_at, name_of(last.session), last.run.id)
        if last is not None and cursor is not None and not principal.may_see(last.session):
            cursor = await seal.sealed(cursor)
        listed = (
            ListedRun(session=name_of(each.session), asked_at=each.asked_at, run=run)
            for each in found
            if (run := _run_of(each)) is not None
        )
        return ListedRuns(runs=list(listed), next_cursor=cursor)

    @lists.get("/agents")
    @tag(["agents"])
    @validate_response(AgentPage)
    async def list_agents() -> AgentPage:
        """List the agents: which are connected, and what they work on."""
        principal = current_principal()
        seen = await registry.store.agents(principal.tenant)
        names = sorted({*await known_agents(registry, principal.tenant), *seen})
        works: dict[str, list[Work]] = {}
        at_work = runs_at_work(registry, principal.tenant)
        for session, record in at_work:
            if record.lease is not None and principal.may_see(session):
                work = Work(session=name_of(session), run=record.id, since=record.lease.claimed_at)
                works.setdefault(record.lease.agent, []).append(work)
        return AgentPage(
            agents=[
                AgentInfo(
                    name=name,
                    present=(present := is_there(registry, principal.tenant, name, at_work)),
                    seen_at=None if present else seen.get(name),
                    runs=works.get(name, []),
                )
                for name in names
            ]
        )

    return lists


async def _runs(
    registry: SessionRegistry, query: RunQuery, principal: Principal
) -> tuple[list[FoundRun], FoundRun | None]:
    statuses = query.status.split(",") if query.status is not None else None
    first: tuple[Millis, SessionId, str] | None = None
    if query.cursor is not None:
        at, name, run = place_of(query.cursor, int, str, str)
        first = (Millis(at), session_id(name, principal.tenant), run)

    async def read(last: FoundRun | None, limit: int) -> Sequence[FoundRun]:
        before = (last.asked_at, last.session, last.run.id) if last is not None else first
        return await registry.store.runs(
            principal.tenant, statuses=statuses, answerer=query.agent, before=before, limit=limit
        )

    return await visible(read, lambda each: principal.may_see(each.session), query.limit)


def _run_of(found: FoundRun) -> Run | None:
    """Return a run as its record has it; None if another release wrote that."""
    try:
        return RunRecord.model_validate_json(found.run.data).run
    except ValidationError:
        return None

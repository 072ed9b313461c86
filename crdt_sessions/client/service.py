"""The service over HTTP, as far as agents need it: claims, steps, and control of runs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from crdt_sessions.client.address import service_url
from crdt_sessions.client.obstacles import of_answer, of_failure
from crdt_sessions.client.token import Bearer, Token
from crdt_sessions.errors import LeaseLost, RequestRefused, RunNotClaimable
from crdt_sessions.ids import lineage_of
from crdt_sessions.model import Run

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """A run that was claimed."""

    session: str
    lineage: str
    """The lineage of the session: a name can be given to another one."""
    run: Run
    epoch: int
    ttl_ms: int
    """How long the holder may be silent."""
    token: str
    """Proves the lease."""

    @property
    def renew_s(self) -> float:
        """How often to renew the lease, in seconds: one sign of life that is lost costs nothing."""
        return self.ttl_ms / 3000


@dataclass(frozen=True, slots=True)
class Me:
    """Whom a token stands for."""

    principal: str | None
    """None if the service asks for no token: then everybody is anybody."""
    tenant: str = ""


class ServiceClient:
    """A client of the service's REST routes. Use it as a context manager.

    Args:
        url: the service.
        token: if the service asks for one.
        transport: carries the requests where that is not done over a network.

    Raises:
        BadUrl: *url* is not that of a service.

    Every request raises :class:`ServiceUnreachable` if nothing answers, and :class:`NoService` if what answers is not
    the service. Nothing is tried again.
    """

    def __init__(self, url: str, token: Token | None, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        auth = Bearer(token) if token else None
        self._url = service_url(url)
        self._worker = uuid.uuid4().hex
        self._http = httpx.AsyncClient(
            base_url=self._url, auth=auth, timeout=_TIMEOUT_S, transport=transport, trust_env=transport is None
        )

    async def __aenter__(self) -> ServiceClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def whoami(self) -> Me:
        """Return whom the token stands for. Every service has an answer to that, so this tells whether it is one.

        Raises:
            RequestRefused: the token is not good.
        """
        answer = await self.request("GET", "/v1/me", also={404})
        try:
            me: dict[str, Any] = answer.json()
            return Me(None if me["anonymous"] else str(me["principal"]), str(me["tenant"]))
        except (ValueError, KeyError, TypeError):
            raise of_answer(answer.status_code, answer.headers, answer.content, self._url, everywhere=True) from None

    async def claim(self, agents: Sequence[str], *, wait_s: float) -> Assignment | None:
        """Take a run that waits for one of *agents*; None if there was none in time.

        Raises:
            RequestRefused: the service refused to give this principal any.
        """
        answer = await self.request(
            "POST",
            "/v1/runs/claim",
            json={"agents": list(agents), "waitS": wait_s, "worker": self._worker, "children": True},
            timeout=wait_s + _TIMEOUT_S,
        )
        return _assignment(answer.json()) if answer.status_code == 200 else None

    async def claim_one(self, session: str, run: str, agent: str) -> Assignment:
        """Take a run that is known by name.

        Raises:
            RunNotClaimable: it is not queued, not its turn yet, or for another agent.
        """
        answer = await self.request(
            "POST", f"{_path(session, run)}/claim", json={"agents": [agent], "children": True}
        )
        return _assignment(answer.json())

    async def release(self, assignment: Assignment) -> None:
        """Give a run back that nobody has begun to work on.

        Raises:
            LeaseLost: the lease has ended.
        """
        path = f"{_path(assignment.session, assignment.run.id)}/result"
        await self.request("POST", path, headers=_lease(assignment), json={"status": "released"})

    async def undo(self, session: str, run: str, artifact: str | None) -> list[str]:
        """Undo what a run did to artifacts, or to one of them; return the ids of the steps.

        Raises:
            RequestRefused: nobody may write here.
        """
        answer = await self.request("POST", f"{_path(session, run)}/undo", json={"artifact": artifact})
        return [str(step) for step in answer.json()["steps"]]

    async def step(self, assignment: Assignment, key: str) -> tuple[bool, Any]:
        """Return whether something was recorded for the step *key*, and what.

        Raises:
            LeaseLost: the lease has ended.
        """
        answer = await self.request("GET", _step(assignment, key), headers=_lease(assignment), also={404})
        return (False, None) if answer.status_code == 404 else (True, answer.json()["value"])

    async def record_step(self, assignment: Assignment, key: str, value: Any) -> Any:
        """Record what the step *key* returned, unless something was recorded before; return what is recorded.

        Raises:
            LeaseLost: the lease has ended.
        """
        answer = await self.request("PUT", _step(assignment, key), headers=_lease(assignment), json={"value": value})
        return answer.json()["value"]

    async def request(
        self, method: str, path: str, *, also: frozenset[int] | set[int] = frozenset(), **options: Any
    ) -> httpx.Response:
        """Send a request to the service; a status in *also* is an answer, not an error.

        Raises:
            RequestRefused, LeaseLost, RunNotClaimable: the service refused it.
            ServiceUnreachable, NoService: it was not the service that answered, if anybody did.
        """
        try:
            answer = await self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise of_failure(error, self._url) from error
        is_page = answer.headers.get("Content-Type", "").startswith("text/html") and answer.content
        if (answer.is_success and not is_page) or answer.status_code in also:
            return answer
        raise _error(answer, self._url)


def _error(answer: httpx.Response, url: str) -> Exception:
    obstacle = of_answer(answer.status_code, answer.headers, answer.content, url)
    if not isinstance(obstacle, RequestRefused):
        return obstacle
    problem: dict[str, Any] = obstacle.problem
    kind = str(problem.get("type", "")).rpartition(":")[2]
    if kind == "lease-lost":
        return LeaseLost(run=problem.get("run", ""))
    if kind == "run-not-claimable":
        return RunNotClaimable(run=problem["run"], status=problem.get("state", ""))
    return obstacle


def _assignment(answer: dict[str, Any]) -> Assignment:
    run = Run.model_validate(answer["run"])
    lineage = answer.get("lineage") or lineage_of(answer["generation"], answer["sessionCreatedAt"])
    return Assignment(answer["session"], lineage, run, answer["epoch"], answer["leaseTtlMs"], answer["token"])


def _path(session: str, run: str) -> str:
    return f"/v1/sessions/{quote(session, safe='')}/runs/{quote(run, safe='')}"


def _step(assignment: Assignment, key: str) -> str:
    return f"{_path(assignment.session, assignment.run.id)}/steps/{quote(key, safe='')}"


def _lease(assignment: Assignment) -> dict[str, str]:
    return {"Lease-Token": assignment.token}

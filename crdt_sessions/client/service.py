"""The service over HTTP, as far as agents need it: claims, steps, and control of runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from crdt_sessions.client.address import service_url
from crdt_sessions.client.obstacles import of_answer, of_failure
from crdt_sessions.client.token import Bearer, Token
from crdt_sessions.errors import LeaseLost, RequestRefused, RunNotClaimable
from crdt_sessions.ids import lineage_of
from crdt_sessions.model import Run

Found = TypeVar("Found")

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
        return self._read(answer, _me, everywhere=True)

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
        return None if answer.status_code == 204 else self._read(answer, _assignment)

    async def claim_one(self, session: str, run: str, agent: str) -> Assignment:
        """Take a run that is known by name.

        Raises:
            RunNotClaimable: it is not queued, not its turn yet, or for another agent.
        """
        asked = {"agents": [agent], "children": True}
        return await self.ask("POST", f"{_path(session, run)}/claim", _assignment, json=asked)

    async def release(self, assignment: Assignment) -> None:
        """Give a run back that nobody has begun to work on.

        Raises:
            LeaseLost: the lease has ended.
        """
        path = f"{_path(assignment.session, assignment.run.id)}/result"
        await self.ask("POST", path, _status, headers=_lease(assignment), json={"status": "released"})

    async def undo(self, session: str, run: str, artifact: str | None) -> list[str]:
        """Undo what a run did to artifacts, or to one of them; return the ids of the steps.

        Raises:
            RequestRefused: nobody may write here.
        """
        return await self.ask("POST", f"{_path(session, run)}/undo", _steps, json={"artifact": artifact})

    async def step(self, assignment: Assignment, key: str) -> tuple[bool, Any]:
        """Return whether something was recorded for the step *key*, and what.

        Raises:
            LeaseLost: the lease has ended.
        """
        try:
            return True, await self.ask("GET", _step(assignment, key), _value, headers=_lease(assignment))
        except RequestRefused as error:
            if error.status != 404:
                raise
            return False, None

    async def record_step(self, assignment: Assignment, key: str, value: Any) -> Any:
        """Record what the step *key* returned, unless something was recorded before; return what is recorded.

        Raises:
            LeaseLost: the lease has ended.
        """
        asked = {"value": value}
        return await self.ask("PUT", _step(assignment, key), _value, headers=_lease(assignment), json=asked)

    async def ask(self, method: str, path: str, read: Callable[[Any], Found], **options: Any) -> Found:
        """Send a request to the service; return what *read* makes of the JSON that it answers.

        Args:
            method: of HTTP.
            path: of the service.
            read: raises a ValueError, KeyError or TypeError for what the service cannot have said.
            options: as of :meth:`httpx.AsyncClient.request`.

        Raises:
            RequestRefused, LeaseLost, RunNotClaimable: the service refused it.
            ServiceUnreachable, NoService: it was not the service that answered, if anybody did.
        """
        return self._read(await self.request(method, path, **options), read)

    def _read(self, answer: httpx.Response, read: Callable[[Any], Found], *, everywhere: bool = False) -> Found:
        try:
            return read(answer.json())
        except (ValueError, KeyError, TypeError):
            raise of_answer(
                answer.status_code, answer.headers, answer.content, self._url, everywhere=everywhere
            ) from None

    async def request(
        self, method: str, path: str, *, also: frozenset[int] | set[int] = frozenset(), kind: str = "", **options: Any
    ) -> httpx.Response:
        """Send a request to the service.

        Args:
            method: of HTTP.
            path: of the service.
            also: statuses that are an answer, not an error.
            kind: media type of the answer, if only one will do.
            options: as of :meth:`httpx.AsyncClient.request`.

        Raises:
            RequestRefused, LeaseLost, RunNotClaimable: the service refused it.
            ServiceUnreachable, NoService: it was not the service that answered, if anybody did.
        """
        try:
            answer = await self._http.request(method, path, **options)
        except httpx.RequestError as error:
            raise of_failure(error, self._url) from error
        found = answer.headers.get("Content-Type", "")
        is_page = found.startswith("text/html") and answer.content
        if (answer.is_success and not is_page and found.startswith(kind)) or answer.status_code in also:
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


def _me(answer: dict[str, Any]) -> Me:
    return Me(None if answer["anonymous"] else str(answer["principal"]), str(answer["tenant"]))


def _status(answer: dict[str, Any]) -> Any:
    return answer["status"]


def _steps(answer: dict[str, Any]) -> list[str]:
    return [str(step) for step in answer["steps"]]


def _value(answer: dict[str, Any]) -> Any:
    return answer["value"]


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

"""Errors that only the library of clients raises."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError


class BadUrl(CrdtSessionsError, ValueError):
    """An address that is not that of a service.

    Args:
        url: the address.
        why: what is wrong with it.
        instead: what may have been meant.
    """

    def __init__(self, *, url: str, why: str, instead: str = "http://127.0.0.1:8000") -> None:
        super().__init__(f"{url!r} is not the URL of a service, such as {instead}: {why}")
        self.url = url
        self.why = why
        self.instead = instead


class NoService(CrdtSessionsError):
    """What answers at an address is not the service, or cannot be talked to. To try again is of no use.

    Args:
        url: the address.
        why: what came instead, and what to do next.
    """

    def __init__(self, *, url: str, why: str) -> None:
        super().__init__(f"no crdt-sessions service can be talked to at {url}: {why}")
        self.url = url
        self.why = why


class ServiceUnreachable(CrdtSessionsError):
    """Nothing answers at the address, or only something that stands before the service. It may, later.

    Args:
        url: the address.
        why: what happened.
    """

    def __init__(self, *, url: str, why: str) -> None:
        super().__init__(f"no connection to {url}: {why}")
        self.url = url
        self.why = why


class NoToken(CrdtSessionsError):
    """The application's function that gets a fresh token failed; its error is the cause of this one.

    Args:
        error: what it raised.
        waited_s: how long it was waited for, if it has not returned.
    """

    def __init__(self, *, error: BaseException, waited_s: float | None = None) -> None:
        failed = f"the function for tokens failed: {error!r}"
        late = f"waited for a token: the function for tokens has not returned in {waited_s or 0:g} s"
        super().__init__(failed if waited_s is None else late)
        self.error = error
        self.waited_s = waited_s


class ConnectionClosed(CrdtSessionsError):
    """The server refused this peer for good; reconnecting would not help."""

    def __init__(self, *, code: int, reason: str) -> None:
        super().__init__(f"closed with {code}: " + _with(reason or "refused", _REMEDIES.get(code)))
        self.code = code
        self.reason = reason


_REMEDIES = {
    4401: "Give token= one that the service accepts, or a function that fetches a fresh one for each connection",
    4404: "Make it with POST /v1/sessions, or join another one",
}
"""What to do next, where the reason does not say it."""


def _with(said: str, remedy: str | None) -> str:
    return f"{said.rstrip('.')}. {remedy}" if remedy else said


class RequestRefused(CrdtSessionsError):
    """The server refused a request; *problem* is its problem document (RFC 9457)."""

    def __init__(self, *, status: int, problem: dict[str, object]) -> None:
        said = str(problem.get("detail") or problem.get("title") or "refused")
        super().__init__(f"HTTP {status}: " + _with(said, _REMEDIES.get(4401) if status == 401 else None))
        self.status = status
        self.problem = problem


class BadHandler(CrdtSessionsError, TypeError):
    """A function that cannot answer an agent's runs.

    Args:
        name: of the function.
        why: what is wrong with it, and what to do instead.
    """

    def __init__(self, *, name: str, why: str) -> None:
        super().__init__(f"{name} cannot answer runs: {why}")
        self.name = name
        self.why = why


class NotAnswered(CrdtSessionsError):
    """There is no complete answer, and none comes by itself. What was written stays, in the message of the run.

    Args:
        run: the run that was to answer.
        status: how it ended; None if nobody was asked for it.
        why: for people, from the run's outcome.
        code: of the error it failed with, for programs.
    """

    def __init__(self, *, run: str, status: str | None, why: str, code: str | None = None) -> None:
        super().__init__(f"run {run!r} {status}: {why}" if status is not None else why)
        self.run = run
        self.status = status
        self.why = why
        self.code = code


class RunStopped(CrdtSessionsError):
    """Leaves an agent's answer. It is not to be caught, except to tidy up; what was written stays."""

    def __init__(self, *, run: str, why: str) -> None:
        super().__init__(f"run {run!r}: {why}")
        self.run = run
        self.why = why


class RunFailed(CrdtSessionsError):
    """Ends an agent's answer as failed, with a text that everybody in the session may read.

    Of any other exception people are shown a reference only; its text stands in the agent's log.

    Args:
        message: for people.
        code: for programs.
    """

    def __init__(self, message: str, *, code: str = "failed") -> None:
        super().__init__(message)
        self.code = code


class ToolRefused(CrdtSessionsError):
    """Raised by a tool that a peer offers: it is not going to be called, for a reason that the agent is told.

    Args:
        why: for the agent, and for everybody in the session.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)


class RunCancelled(RunStopped):
    """Somebody pressed stop."""


class RunSuspended(RunStopped):
    """The run goes on later: people must decide something first, or another agent takes over."""

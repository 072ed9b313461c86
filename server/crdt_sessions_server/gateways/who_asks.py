"""Who asks, and whom: admission where the session is named in the body, and whether the agent is known."""

from __future__ import annotations

from quart import g, request

from crdt_sessions.errors import NotFound
from crdt_sessions.ids import SessionId, session_id
from crdt_sessions.model import ANY_AGENT
from crdt_sessions.runtime import SessionRegistry, known_agents
from crdt_sessions_server.asgi import Scope, http_token
from crdt_sessions_server.auth import Admission, Admitted, Permission, Principal, current_admission
from crdt_sessions_server.http.request_forwarding import Answered, answer_elsewhere


async def admit_to(
    admission: Admission, scope: Scope, token: str | None, name: str, needs: Permission
) -> tuple[Admitted, SessionId]:
    """Admit a request that names its session in the body, not in the path; return the admission and the session.

    Raises:
        NotAuthenticated, AccessDenied, BadSessionId: the request is refused.
        TooMany: the principal sends too many requests.
    """
    session_id(name)
    admitted = await admission.admit(scope, token, name, needs)
    admission.count_request(admitted.principal, needs)
    return admitted, session_id(name, admitted.principal.tenant)


async def who_asks() -> Principal:
    """Return the principal of the current HTTP request, before the session's name is known.

    Raises:
        NotAuthenticated, TooMany: as :func:`admit_to`.
    """
    scope = dict(request.scope)
    return (await current_admission().admit(scope, http_token(scope), None)).principal


async def asked_in_body(name: str, needs: Permission = Permission.POST) -> tuple[Principal, SessionId]:
    """Return the principal of the current HTTP request and the session in its body; raises as :func:`admit_to`.

    Raises:
        Answered: another node has the session.
    """
    scope = dict(request.scope)
    g.admitted, session = await admit_to(current_admission(), scope, http_token(scope), name, needs)
    if (answer := await answer_elsewhere(session)) is not None:
        raise Answered(answer)
    return g.admitted.principal, session


async def check_agent(
    registry: SessionRegistry, principal: Principal, agent: str | None, *, what: str = "agent"
) -> None:
    """Return if the named agent is known: it has been connected, or is the default agent.

    Raises:
        NotFound: it is unknown; the error names those that are known.
    """
    if agent in (None, ANY_AGENT):
        return
    known = await known_agents(registry, principal.tenant)
    if agent not in known:
        raise NotFound(what=what, id=agent or "", known=known)

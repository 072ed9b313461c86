"""What several concerns say in SQL."""

from __future__ import annotations

from crdt_sessions.storage.postgres.errors import Refused

_FENCE = (
    "WITH fence AS (UPDATE lanes SET commits = $1 WHERE node = $2 AND lane = $3 AND NOT fenced"
    " AND commits = $1 - 1 RETURNING 1)"
)
FENCED, NOTHING, FULL = "fenced", "nothing", "full"


def fenced(needs: str = "", room: str = "", **parts: str) -> str:
    """Return one statement that does all *parts*, or nothing if the lane is fenced.

    It waits for whoever fences the lane, and they wait for it; the lane's row says afterwards whether it was
    committed. Its first three parameters are the number of the commit, the node and the lane.

    An advisory lock would not do: what a statement sees is older than the locks it waits for. The lane's row is
    looked at again after the wait.

    Args:
        needs: the part that must find something. Else the statement is refused, and does nothing.
        room: another one that must, or there is no room for it.
        parts: statements that change something, or lock what later ones change, by name.
    """
    changes = "".join(f", {name} AS ({_returning(statement)})" for name, statement in parts.items())
    refused = "".join(
        f" WHEN NOT EXISTS (SELECT FROM {part}) THEN refuse('{why}')"
        for part, why in ((needs, NOTHING), (room, FULL))
        if part
    )
    return f"{_FENCE}{changes} SELECT CASE WHEN NOT EXISTS (SELECT FROM fence) THEN refuse('{FENCED}'){refused} END"


def _returning(statement: str) -> str:
    return statement if statement.startswith("SELECT ") or " RETURNING " in statement else f"{statement} RETURNING 1"


def served_here(owner: str, me: str) -> str:
    """Return the condition that no other node that lives serves a session.

    Args:
        owner: the session's owner, in SQL.
        me: this node, in SQL.
    """
    return (
        f"({owner} IS NULL OR {owner} = {me}"
        f" OR NOT EXISTS (SELECT FROM nodes WHERE nodes.node = {owner} AND NOT nodes.gone))"
    )


class missing:
    """Raises *error* where a statement finds nothing that it could change.

    Args:
        error: says so.
        why: the reason for which the statement was refused.
    """

    def __init__(self, error: Exception, why: str = NOTHING) -> None:
        self._error = error
        self._why = why

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refused) and error.why == self._why:
            raise self._error from None

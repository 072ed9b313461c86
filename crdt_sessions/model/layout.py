"""Layout 1: the names of the root types, and what a new session's document begins with.

Roots that are not named here are welcome: an editor may bind ``getText("draft")`` in the same document.
The server keeps and syncs what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_args

from pycrdt import Doc, Map

from crdt_sessions.ids import Millis, SessionId, lineage_of, name_of
from crdt_sessions.model.checks import check_json
from crdt_sessions.model.run_values import RunPolicy
from crdt_sessions.model.spelling import spelled
from crdt_sessions.model.strings import AGENT_CHARACTERS, NOT_AN_ID, checked_id, is_agent
from crdt_sessions.model.values import Meta

LAYOUT = 1

_WRITTEN: dict[str, type] = {"title": str, "metadata": dict, "agent": str, "runPolicy": str}
"""What participants write in ``meta``."""


@dataclass(frozen=True, slots=True)
class Roots:
    """The root maps of a session document."""

    meta: Map[Any]
    messages: Map[Any]
    runs: Map[Any]
    state: Map[Any]
    artifacts: Map[Any]
    receipts: Map[Any]
    delegated: Map[Any]
    edits: Map[Any]
    suggestions: Map[Any]


ROOT_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Roots))
"""The names of layout 1's root maps."""


def roots(doc: Doc[Any]) -> Roots:
    """Return the root maps of *doc*. Naming a root changes nothing in the document."""
    with doc.transaction():  # one instead of one for each
        return Roots(*(doc.get(name, type=Map) for name in ROOT_NAMES))


def _meta(doc: Doc[Any]) -> Map[Any]:
    meta: Map[Any] = doc.get("meta", type=Map)
    return meta


def settled_meta(
    session: SessionId, generation: int, created_at: Millis, status: str, lineage: str | None = None
) -> dict[str, Any]:
    """Return the keys of ``meta`` that the server writes and nobody else may change."""
    return {
        "layout": LAYOUT,
        "sessionId": name_of(session),
        "generation": generation,
        "createdAt": created_at,
        "lineage": lineage or lineage_of(generation, created_at),
        "status": status,
    }


def seed(
    session: SessionId,
    *,
    generation: int,
    created_at: Millis,
    client_id: int,
    lineage: str | None = None,
    title: str | None = None,
    metadata: dict[str, Any] | None = None,
    agent: str | None = None,
) -> bytes:
    """Return the update a new session begins with.

    It is stored in the transaction that creates the session, so it exists once: a document that is seeded
    twice holds everything twice.

    Raises:
        BadValue: title or metadata hold something that the document cannot.
        BadId: *agent* cannot be an agent's name.
    """
    doc: Doc[Any] = Doc(client_id=client_id)
    meta = _meta(doc)
    with doc.transaction():
        for key, value in settled_meta(session, generation, created_at, "active", lineage).items():
            meta[key] = value
        if title is not None:
            meta["title"] = check_json(title, "title")
        if metadata is not None:
            meta["metadata"] = check_json(metadata, "metadata")
        if agent is not None:
            meta["agent"] = checked_agent(agent)
    return doc.get_update()


def checked_agent(agent: str) -> str:
    """Return *agent* if it may stand in ``meta``: an agent's name, or nothing for nobody.

    Raises:
        BadId: it may not.
    """
    return checked_id(agent, "name of an agent", AGENT_CHARACTERS) if agent else agent


def read_meta(doc: Doc[Any]) -> Meta:
    """Return ``meta`` as a value. What participants wrote there and cannot be what it says is left out.

    Raises:
        pydantic.ValidationError: the server's keys are missing or not what layout 1 says.
    """
    return Meta.model_validate(
        {key: value for key, value in spelled(_meta(doc)).items() if meta_flaw(key, value) is None}
    )


def meta_flaw(key: str, value: Any) -> str | None:
    """Return why a key of ``meta`` that participants write cannot have *value*; None if it can, or is another key."""
    if value is None or key not in _WRITTEN:
        return None
    kind = _WRITTEN[key]
    if not isinstance(value, kind):
        return f"it is no {kind.__name__}"
    if key == "agent" and value != "" and not is_agent(value):
        return NOT_AN_ID
    if key == "runPolicy" and value not in get_args(RunPolicy):
        return f"it is none of {', '.join(get_args(RunPolicy))}"
    return None

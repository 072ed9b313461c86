"""Layout 1: the names of the root types, and what a new session's document begins with.

Roots that are not named here are welcome: an editor may bind ``getText("draft")`` in the same document.
The server keeps and syncs what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_args

from pycrdt import Doc, Map

from crdt_sessions.ids import Millis, SessionId, name_of
from crdt_sessions.model.checks import check_json
from crdt_sessions.model.values import Meta, RunPolicy

LAYOUT = 1


@dataclass(frozen=True, slots=True)
class Roots:
    """The root maps of a session document."""

    meta: Map[Any]
    messages: Map[Any]
    runs: Map[Any]
    state: Map[Any]
    artifacts: Map[Any]
    receipts: Map[Any]


ROOT_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Roots))
"""The names of layout 1's root maps."""


def roots(doc: Doc[Any]) -> Roots:
    """Return the root maps of *doc*. Naming a root changes nothing in the document."""
    return Roots(*(doc.get(name, type=Map) for name in ROOT_NAMES))


def settled_meta(session: SessionId, generation: int, created_at: Millis, status: str) -> dict[str, Any]:
    """Return the keys of ``meta`` that the server writes and nobody else may change."""
    return {
        "layout": LAYOUT,
        "sessionId": name_of(session),
        "generation": generation,
        "createdAt": created_at,
        "status": status,
    }


def seed(
    session: SessionId,
    *,
    generation: int,
    created_at: Millis,
    client_id: int,
    title: str | None = None,
    metadata: dict[str, Any] | None = None,
    agent: str | None = None,
) -> bytes:
    """Return the update a new session begins with.

    It is stored in the transaction that creates the session, so it exists once: a document that is seeded
    twice holds everything twice.

    Raises:
        BadValue: title or metadata hold something that the document cannot.
    """
    doc: Doc[Any] = Doc(client_id=client_id)
    meta = roots(doc).meta
    with doc.transaction():
        for key, value in settled_meta(session, generation, created_at, "active").items():
            meta[key] = value
        if title is not None:
            meta["title"] = check_json(title, "title")
        if metadata is not None:
            meta["metadata"] = check_json(metadata, "metadata")
        if agent is not None:
            meta["agent"] = check_json(agent, "agent")
    return doc.get_update()


def read_meta(doc: Doc[Any]) -> Meta:
    """Return ``meta`` as a value. What participants wrote there and is of another type is left out.

    Raises:
        pydantic.ValidationError: the server's keys are missing or not what layout 1 says.
    """
    meta = dict(roots(doc).meta.items())
    for key, kind in (("title", str), ("metadata", dict), ("agent", str), ("runPolicy", str)):
        if not isinstance(meta.get(key), kind):
            meta.pop(key, None)
    if meta.get("runPolicy") not in get_args(RunPolicy):
        meta.pop("runPolicy", None)
    return Meta.model_validate(meta)

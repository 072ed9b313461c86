"""Field rules of ``edits``: a step says what its own client did, and only the server says that it was undone.

Whoever undoes a step takes away what the step's client wrote. So a step that names somebody else's client, or that
was written over, would have people take away what they do not mean to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from crdt_sessions.ids import ClientId
from crdt_sessions.model import SessionView
from crdt_sessions.model.nodes import canonical
from crdt_sessions.model.steps import Step
from crdt_sessions.sync.actor import Actor
from crdt_sessions.sync.runs.mirror import Write

_Entry = dict[str, Any]


class StepRules:
    """The field rules of the steps of one session.

    Args:
        view: the session's document.
        owner: returns the principal whose a Yjs client is, if that is known.
    """

    def __init__(self, view: SessionView, owner: Callable[[ClientId], str | None]) -> None:
        self._view = view
        self._owner = owner
        self._known: dict[str, str] = {}
        """What stands there, by ids, as canonical JSON."""

    def start(self) -> None:
        """Take what a loaded document says as genuine: it was checked when it came."""
        self.check(self._view.edits.ids(), None)

    def check(self, step_ids: Iterable[str], actor: Actor | None) -> tuple[list[Write], list[str]]:
        """Return what puts back what *actor* may not have written, and the names of those fields.

        Args:
            step_ids: what its update changed.
            actor: None for those who may write everything.
        """
        writes: list[Write] = []
        violated: list[str] = []
        for step_id in sorted(step_ids):
            found = allowed = self._view.edits.entry(step_id)
            if actor is not None:
                known = self._known.get(step_id)
                allowed = self._allowed(step_id, json.loads(known) if known is not None else None, found, actor)
            if allowed != found:
                writes.append(_put_back(step_id, allowed))
                violated.append("edits")
            if allowed is not None:
                self._known[step_id] = canonical(allowed)
            else:
                self._known.pop(step_id, None)
        return writes, violated

    def _allowed(self, step_id: str, known: _Entry | None, found: _Entry | None, actor: Actor) -> _Entry | None:
        """Return what may stand there of what was *found*, where *known* stood before."""
        before, now = _step(known), _step(found)
        if found is None or now is None:
            return known
        if before is None:
            own = step_id == f"{now.client}-{now.clock}" and self._owner(ClientId(now.client)) == actor.principal
            return {"step": {**found["step"], "by": actor.principal}} if own else known
        goes_on = before.by == actor.principal and now == before.replace(length=now.length)
        return {**(known or {}), "step": found["step"]} if goes_on else known


def _step(entry: _Entry | None) -> Step | None:
    try:
        return Step.model_validate(entry["step"]) if entry is not None and "step" in entry else None
    except ValidationError:
        return None


def _put_back(step_id: str, entry: _Entry | None) -> Write:
    return lambda view: view.edits.put_back(step_id, entry)

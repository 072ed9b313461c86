"""REST: undoing what a run did to artifacts. It is done here, in one place, so that it is done once."""

from __future__ import annotations

from pydantic import Field
from quart import Blueprint

from crdt_sessions.errors import NotFound
from crdt_sessions.model import SessionView
from crdt_sessions.model.strings import ArtifactId
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.http.describing import tag
from crdt_sessions_server.http.schemas import Answer, Body
from crdt_sessions_server.http.validation import validate_request, validate_response


class Undoing(Body):
    """What is to be undone of what a run did."""

    artifact: ArtifactId | None = Field(None, description="Only what it did to this one; everything if absent.")


class UndoneSteps(Answer):
    """What was undone."""

    steps: list[str] = Field(description="The steps (keys of `edits`) that were undone now; none if all had been.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the route that undoes."""
    undo = Blueprint("undo", __name__, url_prefix="/v1/sessions")

    @undo.post("/<name>/runs/<run>/undo")
    @tag(["artifacts"])
    @validate_request(Undoing)
    @validate_response(UndoneSteps)
    async def undo_run(name: str, run: str, data: Undoing) -> UndoneSteps:
        """Undo what a run did to artifacts, as one step.

        The artifacts are then as if the run had never written there; what others wrote stays, also within the run's
        text. To repeat it changes nothing more.
        """
        principal = current_principal()

        def change(view: SessionView) -> list[str]:
            if view.runs.value(run) is None:
                raise NotFound(what="run", id=run)
            steps = view.edits.all(artifact=data.artifact, run=run)
            there = [id for id, step in steps.items() if step.artifact in view.artifacts]
            return view.edits.undo(there, by=principal.by or "", at=registry.clock.now())

        async with registry.open(asked_session(name)) as session:
            await session.readable()
            return UndoneSteps(steps=await session.edit(change, by=principal.by))

    return undo

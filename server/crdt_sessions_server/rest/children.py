"""REST for child runs: the holder of a run asks for them; whoever may read the session looks at them."""

from __future__ import annotations

from pydantic import Field, JsonValue
from quart import Blueprint

from crdt_sessions.errors import LeaseLost
from crdt_sessions.model import ANY_AGENT, CHILD_LIMITS, Message, Run, RunInput, child_request, output_of
from crdt_sessions.model.children import ChildKey, Orphans
from crdt_sessions.model.strings import AgentName, Time
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.auth import asked_session
from crdt_sessions_server.http.describing import reads, refuses, tag
from crdt_sessions_server.http.schemas import Body
from crdt_sessions_server.http.validation import validate_request, validate_response
from crdt_sessions_server.rest.leases import LEASE_TOKEN, held_run
from crdt_sessions_server.rest.runs import RunPage


class NewChild(Body):
    """A child run to ask for."""

    key: ChildKey = Field(
        description="Names the child within its parent. Asking twice is asking once, also for who goes on with the"
        " parent after its agent was lost."
    )
    agent: AgentName = Field(ANY_AGENT, description="Who is to do it; * for any agent.")
    task: JsonValue = Field(
        None, description=f"What it is to do: text, or JSON of at most {CHILD_LIMITS.max_task_bytes} bytes."
    )
    input: RunInput | None = Field(None, description="Tools, context, model and settings for it.")
    orphans: Orphans = Field("end", description="What becomes of it when its parent has ended.")
    deadline: Time | None = Field(None, description="When it ends as failed if it is not done, in milliseconds.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of child runs."""
    children = Blueprint("children", __name__, url_prefix="/v1/sessions/<string:name>/runs/<string:run>")

    @children.post("/children")
    @tag(["agents"])
    @validate_request(NewChild)
    @validate_response(Run, 201)
    @validate_response(Run, 200)
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost)
    async def delegate(name: str, run: str, data: NewChild) -> tuple[Run, int]:
        """Ask another agent for a child run; 200 with the one that is there if the key was asked for before.

        One that goes beyond the bounds is a run that has failed, and says why.
        """
        async with held_run(registry, name, run) as holding:
            request = child_request(
                holding.run,
                data.key,
                data.agent,
                data.task,
                now=registry.clock.now(),
                deadline=data.deadline,
                input=data.input,
                orphans=data.orphans,
            )
            child, is_new = await holding.delegate(request)
            return child, 201 if is_new else 200

    @children.get("/children")
    @tag(["runs"])
    @validate_response(RunPage)
    async def list_children(name: str, run: str) -> RunPage:
        """List the children of a run, those asked for first first."""
        async with registry.open(asked_session(name)) as session, session.reading():
            return RunPage(runs=session.view.runs.children(session.view.runs.find(run).id))

    @children.get("/output")
    @tag(["runs"])
    @validate_response(Message)
    async def get_output(name: str, run: str) -> Message:
        """Return the message that a run writes, as far as it is; that of a child is in no list of messages."""
        async with registry.open(asked_session(name)) as session, session.reading():
            found = session.view.runs.find(run)
            return session.view.messages.find_value(found.output or output_of(found.id))

    return children

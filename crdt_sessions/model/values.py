"""The JSON values of a session document, and the JSON form of the document itself.

Keys are camelCase: JavaScript reads them as much as Python does. Times are integer milliseconds since the
Unix epoch. What strings may be stands in :mod:`crdt_sessions.model.strings`. Unknown keys are kept, so that a newer
peer's additions survive an older one.
``schemas/v1/`` holds these models as JSON Schema. What messages consist of stands in ``parts.py``, runs in
``run_values.py``, what people decide in ``decisions.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from crdt_sessions.model.base import Integer, Value
from crdt_sessions.model.parts import Part, TextPart, being_written, say_nothing
from crdt_sessions.model.run_values import Run, RunPolicy
from crdt_sessions.model.strings import (
    AgentName,
    ArtifactId,
    MessageId,
    Name,
    PrincipalId,
    RunId,
    Time,
    Title,
    Word,
)

Kind = Literal["human", "agent", "service", "device"]
Role = Literal["user", "assistant", "system", "tool"]
SessionStatus = Literal["active", "closed", "archived"]
Activity = Literal["idle", "typing", "thinking", "speaking", "streaming"]


class Author(Value):
    """Who wrote something."""

    id: PrincipalId
    name: Name = ""
    kind: Kind = "human"


class Meta(Value):
    """``meta``: what the session is. All but title and metadata is written by the server."""

    layout: Integer
    session_id: str
    generation: Integer
    lineage: str | None = None
    """Names this creation of the session; see docs/protocol.md. Absent in documents of earlier releases."""
    created_at: Time
    status: SessionStatus = "active"
    title: str | None = None
    metadata: dict[str, Any] | None = None
    agent: AgentName | Literal[""] | None = None
    """Who answers a user's message that asks nobody in particular; empty for nobody."""
    run_policy: RunPolicy | None = None
    """What becomes of a request while another run is active."""


class MessageHead(Value):
    """``messages[id].head``: written once, by the creator of the message."""

    id: MessageId
    role: Role
    author: Author
    parent: MessageId | None = None
    created_at: Time
    modality: Word | None = None
    reply_to: MessageId | None = None
    steers: RunId | None = None
    """The run that this message is meant to steer while it is active."""
    metadata: Any = None
    """What the application keeps with it, such as ``metadata`` of the AI SDK's messages."""
    replaces: MessageId | None = None
    """The message that this is another version of: the two are alternatives, not one after the other."""
    imported: bool | None = None
    """True if it came with a history that somebody brought: nobody is asked to answer it, and whose words it says
    they are nobody has seen."""
    precedes: MessageId | None = None
    """The message that this one, of a history that was brought later, stands in front of."""

    def to_json(self) -> dict[str, Any]:
        """Return the value for readers; ``parent`` is always there."""
        return {"parent": None} | super().to_json()


class Message(MessageHead):
    """A message in JSON form: head, order, run and parts in one object."""

    seq: Integer | None = None
    by: str | None = None
    """The principal who wrote it: what the server knew, not what ``author`` says. Absent where it knew nobody."""
    run_id: str | None = None
    parts: list[Part] = Field(default_factory=list)

    @property
    def text(self) -> str:
        """The text parts of the first choice, joined."""
        return self.text_of(0)

    def text_of(self, choice: int, type: Literal["text", "reasoning"] = "text") -> str:
        """Return the parts of *type* of one choice, joined."""
        parts = (part for part in self.parts if isinstance(part, TextPart) and part.type == type)
        return "".join(part.text for part in parts if (part.choice or 0) == choice)

    @property
    def empty(self) -> bool:
        """Whether it says nothing, so that there is nothing to answer."""
        return say_nothing(self.parts)

    @property
    def done(self) -> bool:
        """Whether no part is being written right now. A run may still add parts; see :attr:`Run.over`."""
        return not any(map(being_written, self.parts))


class ArtifactHead(Value):
    """``artifacts[id].head``: written once, by the creator of the artifact."""

    id: ArtifactId
    title: Title = ""
    media_type: Word = "text/plain"
    author: Author | None = None
    created_at: Time


class Artifact(ArtifactHead):
    """An artifact in JSON form. Rich content (an XML fragment) is given as XML."""

    content: str = ""


class PresenceUser(Value):
    """The person or program behind a presence."""

    id: str | None = None
    name: str = ""
    color: str | None = None


class Presence(Value):
    """An awareness state: who is here and what they do. Never stored, never in the document."""

    user: PresenceUser = PresenceUser()
    kind: Kind = "human"
    device: str | None = None
    activity: Activity = "idle"
    modality: str | None = None
    run_id: str | None = None
    cursor: Any = None
    """Where in a document they are; its form is the application's."""


class SessionExport(Value):
    """A whole session in JSON form."""

    meta: Meta
    messages: Annotated[list[Message], Field(fail_fast=True)] = Field(default_factory=list)
    runs: Annotated[list[Run], Field(fail_fast=True)] = Field(default_factory=list)
    state: dict[str, Any] = Field(default_factory=dict)
    artifacts: Annotated[list[Artifact], Field(fail_fast=True)] = Field(default_factory=list)
    receipts: dict[str, Integer] = Field(default_factory=dict)
    delegated: Annotated[list[Message], Field(fail_fast=True)] = Field(default_factory=list)
    """What child runs have written, oldest first."""

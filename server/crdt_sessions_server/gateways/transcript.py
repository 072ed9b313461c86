"""Transcripts: conversations that clients bring along, and what of them a session lacks.

Chat clients send their whole conversation with every request. Most of it the session has; what it lacks may be one
question, two whose sending failed and was repeated, or a history that comes from an application's own database. It is
written down as one change, in its order, and only the question at its end is asked. Whatever else is new is history:
it says ``imported``, so nobody answers it, and nobody takes its answers for the work of the session's agents. See
docs/decisions/0029-a-transcript-is-one-import.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from crdt_sessions.errors import TooLarge
from crdt_sessions.ids import Millis
from crdt_sessions.model import MessageHead, Run, SessionView, output_of
from crdt_sessions.model.strings import checked_id, derived
from crdt_sessions.model.values import Role
from crdt_sessions_server.auth import Principal
from crdt_sessions_server.http.streaming import compact

MAX_BROUGHT = 2000
"""Messages that a session lacks, in one transcript."""

NOT_ANSWERED = "it was not answered"
"""What is said of a tool call in a history that has no result."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message as a client of a gateway sends it."""

    id: str
    role: Role
    parts: Sequence[Any]
    """Of layout 1."""
    metadata: Any = None
    """What the application keeps with it."""
    replaces: str | None = None
    """The message that this is another version of."""

    @property
    def edited(self) -> Said:
        """Itself as another version of the message that has its id, which stays in the session as it was.

        The version's id comes from what it says, so that sending it again changes nothing.
        """
        digest = hashlib.sha256(compact([part.to_json() for part in self.parts]).encode()).hexdigest()[:12]
        return replace(self, id=derived("", self.id, f"~{digest}"), replaces=self.id)


def question_of(transcript: Sequence[Said]) -> str | None:
    """Return the id of the message that a transcript wants to be answered; None if an answer is what it ends with."""
    spoken = [said for said in transcript if said.role in ("user", "assistant")] or transcript[-1:]
    return spoken[-1].id if spoken and spoken[-1].role != "assistant" else None


@dataclass(frozen=True, slots=True)
class Lacking:
    """What a session lacks of a transcript.

    Args:
        messages: heads and parts, in the transcript's order.
        size: bytes of their parts as JSON.
    """

    messages: Sequence[tuple[MessageHead, Sequence[Any]]]
    size: int

    def holds(self, message_id: str) -> bool:
        """Whether a message is among them."""
        return any(head.id == message_id for head, _ in self.messages)

    def write(self, view: SessionView) -> None:
        """Write it down."""
        for head, parts in self.messages:
            view.messages.add(head, list(parts))


def lacking(
    view: SessionView,
    transcript: Sequence[Said],
    principal: Principal,
    now: Millis,
    *,
    asked: str | None,
    branches: bool = False,
) -> Lacking:
    """Return what the session lacks of a transcript. Messages are known by their ids, and left as they are.

    Args:
        view: the session.
        transcript: a conversation, oldest first.
        principal: who brings it.
        now: the time.
        asked: the message of it that is going to be asked, and so is no mere history.
        branches: whether what is new comes after just what it stands behind, and not after whatever else was said:
            for clients that know the session's messages by its own ids.

    Raises:
        BadParameter: an id is none that a document can hold.
        BadValue: something in it is not JSON that every peer can hold.
        TooLarge: more than :data:`MAX_BROUGHT` messages are new.
    """
    expected = _expected(view, transcript)
    following = _followed_by_known(view, transcript)
    found: list[tuple[MessageHead, Sequence[Any]]] = []
    present = {said.id for said in transcript if said.id in view.messages}
    brought: set[str] = set()
    before, question, size = None, None, 0
    for said in transcript:
        question = said.id if said.role == "user" else question
        if said.id not in present and said.id not in expected:
            present.add(said.id)
            brought.add(said.id)
            head = MessageHead(
                id=checked_id(said.id, "message id"),
                role=said.role,
                author=principal.author,
                metadata=said.metadata,
                parent=before if (branches or before in brought) and said.replaces is None else None,
                reply_to=question if said.role == "assistant" else None,
                replaces=said.replaces,
                imported=None if said.id == asked else True,
                precedes=following.get(said.id),
                created_at=now,
            )
            size += sum(len(compact(part.json_value())) for part in said.parts)
            found.append((head, said.parts))
        before = said.id if said.id in present else before
    if len(found) > MAX_BROUGHT:
        raise TooLarge(what="a history", size=len(found), limit=MAX_BROUGHT, unit="messages that are new")
    # A millisecond apart, so that all who sort by time have them in their order.
    first = now - len(found) + 1
    return Lacking([(head.replace(created_at=first + at), parts) for at, (head, parts) in enumerate(found)], size)


def _expected(view: SessionView, transcript: Sequence[Said]) -> set[str]:
    """Return the answers in a transcript that are not there yet, or never will be, but are runs' to write.

    A client knows of an answer before there is anything of it, and keeps it if the run fails.
    """
    unknown = {said.id for said in transcript if said.role == "assistant" and said.id not in view.messages}
    return unknown & {_output(run) for run in view.runs.all()} if unknown else unknown


def _output(run: Run) -> str:
    return run.output if run.output is not None else output_of(run.id)


def _followed_by_known(view: SessionView, transcript: Sequence[Said]) -> dict[str, str]:
    """Return for each new message the known one that it precedes; messages at the end are left out."""
    found: dict[str, str] = {}
    known: str | None = None
    for said in reversed(transcript):
        if said.id in view.messages:
            known = said.id
        elif said.replaces is not None:
            known = said.replaces
        elif known is not None:
            found[said.id] = known
    return found

"""Transcripts: conversations that clients send along, and the messages of them that a session lacks.

Chat clients send their whole conversation with every request. The session has most of it. It may lack one question,
two questions whose sending failed and was repeated, or a history from an application's own database. The missing
messages are written as one change, in their order, and only the question at the end is asked. All others say
``imported``: they get no answer, and answers among them do not count as work of the session's agents. See
docs/decisions/0029-a-transcript-is-one-import.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from crdt_sessions.errors import TooLarge
from crdt_sessions.ids import Millis
from crdt_sessions.model import MessageHead, SessionView
from crdt_sessions.model.strings import checked_id, derived
from crdt_sessions.model.values import Role
from crdt_sessions_server.auth import Principal
from crdt_sessions_server.http.streaming import compact

MAX_BROUGHT = 2000
"""Most messages of one transcript that a session may lack."""

NOT_ANSWERED = "it was not answered"
"""The error of a tool call in a history that has no result."""


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message as a client of a gateway sends it."""

    id: str
    role: Role
    parts: Sequence[Any]
    """Of layout 1."""
    metadata: Any = None
    """The application's own data about it."""
    replaces: str | None = None
    """The message that this is another version of."""

    @property
    def edited(self) -> IncomingMessage:
        """This message as a further version of the one with its id, which stays in the session.

        The version's id is made of its content, so sending it again changes nothing.
        """
        digest = hashlib.sha256(compact([part.to_json() for part in self.parts]).encode()).hexdigest()[:12]
        return replace(self, id=derived("", self.id, f"~{digest}"), replaces=self.id)


def question_of(transcript: Sequence[IncomingMessage]) -> str | None:
    """Return the id of the message at the end that needs an answer; None if the transcript ends with an answer."""
    spoken = [incoming for incoming in transcript if incoming.role in ("user", "assistant")] or transcript[-1:]
    return spoken[-1].id if spoken and spoken[-1].role != "assistant" else None


@dataclass(frozen=True, slots=True)
class Lacking:
    """The messages of a transcript that a session lacks.

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
        """Write them into the document."""
        for head, parts in self.messages:
            view.messages.add(head, list(parts))


def lacking(
    view: SessionView,
    transcript: Sequence[IncomingMessage],
    principal: Principal,
    now: Millis,
    *,
    asked: str | None,
    branches: bool = False,
) -> Lacking:
    """Return the messages that the session lacks. It knows messages by their ids, and does not change those it has.

    Args:
        view: the session.
        transcript: a conversation, oldest first.
        principal: its sender.
        now: the time.
        asked: the message of it that will be asked, and so is not imported.
        branches: whether a new message follows the one before it in the transcript, and not the session's last one:
            for clients that know the session's messages by the session's ids.

    Raises:
        BadParameter: a document cannot hold an id.
        BadValue: a value is not JSON that every peer can hold.
        TooLarge: more than :data:`MAX_BROUGHT` messages are new.
    """
    expected = _expected(view, transcript)
    following = _followed_by_known(view, transcript)
    found: list[tuple[MessageHead, Sequence[Any]]] = []
    present = {incoming.id for incoming in transcript if incoming.id in view.messages}
    brought: set[str] = set()
    before, question, size = None, None, 0
    for incoming in transcript:
        question = incoming.id if incoming.role == "user" else question
        if incoming.id not in present and incoming.id not in expected:
            present.add(incoming.id)
            brought.add(incoming.id)
            head = MessageHead(
                id=checked_id(incoming.id, "message id"),
                role=incoming.role,
                author=principal.author,
                metadata=incoming.metadata,
                parent=before if (branches or before in brought) and incoming.replaces is None else None,
                reply_to=question if incoming.role == "assistant" else None,
                replaces=incoming.replaces,
                imported=None if incoming.id == asked else True,
                precedes=following.get(incoming.id),
                created_at=now,
            )
            size += sum(len(compact(part.json_value())) for part in incoming.parts)
            found.append((head, incoming.parts))
        before = incoming.id if incoming.id in present else before
    if len(found) > MAX_BROUGHT:
        raise TooLarge(what="a history", size=len(found), limit=MAX_BROUGHT, unit="messages that are new")
    # A millisecond apart, so that sorting by time keeps their order.
    first = now - len(found) + 1
    return Lacking([(head.replace(created_at=first + at), parts) for at, (head, parts) in enumerate(found)], size)


def _expected(view: SessionView, transcript: Sequence[IncomingMessage]) -> set[str]:
    """Return the answers in a transcript that runs of this session have not written yet, or never will.

    A client knows the id of an answer before it has any text, and keeps the message if the run fails.
    """
    unknown = {
        incoming.id for incoming in transcript if incoming.role == "assistant" and incoming.id not in view.messages
    }
    return {message_id for message_id in unknown if view.runs.writers_of(message_id)}


def _followed_by_known(view: SessionView, transcript: Sequence[IncomingMessage]) -> dict[str, str]:
    """Return for each new message the known message after it; messages at the end have none."""
    found: dict[str, str] = {}
    known: str | None = None
    for incoming in reversed(transcript):
        if incoming.id in view.messages:
            known = incoming.id
        elif incoming.replaces is not None:
            known = incoming.replaces
        elif known is not None:
            found[incoming.id] = known
    return found

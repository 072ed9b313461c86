"""Typed views over everything in a session document but the messages, and the export of the whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pycrdt import Map
from pydantic import ValidationError

from crdt_sessions.errors import BadDocument, NotFound
from crdt_sessions.model import layout
from crdt_sessions.model.artifacts import Artifacts
from crdt_sessions.model.calls import with_ended_calls
from crdt_sessions.model.checks import MAX_DEPTH, check_json
from crdt_sessions.model.children import task_text
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.edits import Edits
from crdt_sessions.model.message_view import MessageView
from crdt_sessions.model.messages import Messages, order
from crdt_sessions.model.parts import TextPart, ValuePart
from crdt_sessions.model.run_values import ANY_AGENT, Run, RunPolicy
from crdt_sessions.model.runs import Runs
from crdt_sessions.model.spelling import spelled, whole
from crdt_sessions.model.strings import checked_id, derived, is_id
from crdt_sessions.model.suggestions import Suggestions
from crdt_sessions.model.thread import conversation
from crdt_sessions.model.values import Author, Message, MessageHead, Meta, SessionExport

_IN_ORDER = ("suspended", "handoff")


class SessionView:
    """A session document as layout 1 sees it. Write only inside :meth:`SessionDoc.edit`."""

    def __init__(self, document: SessionDoc) -> None:
        self.document = document
        self.messages = Messages(document)
        self.runs = Runs(document)
        self.artifacts = Artifacts(document)
        self.edits = Edits(document)
        self.suggestions = Suggestions(document)

    @property
    def state(self) -> Map[Any]:
        """What applications share."""
        return self.document.roots.state

    @property
    def receipts(self) -> Map[Any]:
        """How far each participant has read."""
        return self.document.roots.receipts

    @property
    def meta(self) -> Meta:
        """What the session is.

        Raises:
            BadDocument: ``meta`` is not what layout 1 says.
        """
        try:
            return layout.read_meta(self.document.doc)
        except ValidationError as error:
            raise BadDocument(why=f"meta: {error.errors()[0]['msg']}") from error

    def meta_values(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return what stands under *keys* of ``meta``, whatever that is; None where nothing does."""
        with self.document.doc.transaction():  # one for all: the library makes three for each that is read by itself
            meta = self.document.roots.meta
            return {key: meta.get(key) for key in keys}

    def set_title(self, title: str) -> None:
        """Give the session a *title*."""
        self.document.roots.meta["title"] = check_json(title, "title")

    def set_agent(self, agent: str) -> None:
        """Say who answers a user's message that asks nobody in particular; empty for nobody.

        Raises:
            BadId: *agent* cannot be an agent's name.
        """
        self.document.roots.meta["agent"] = layout.checked_agent(agent)

    def set_run_policy(self, policy: RunPolicy) -> None:
        """Say what becomes of a request while another run is active: its *policy*."""
        self.document.roots.meta["runPolicy"] = policy

    def begin_output(self, run: Run, author: Author, now: int) -> MessageView:
        """Return the message that *run* writes; if nobody has begun it yet it is added, by *author*, at *now*.

        Raises:
            NotFound: the run has no output, or its id is taken by something that is not a message.
        """
        if run.output is None:
            raise NotFound(what="output of run", id=run.id)
        asked = run.request.message_id if run.request is not None else None
        head = MessageHead(
            id=run.output, role="assistant", author=author, parent=asked, reply_to=asked, created_at=now
        )
        message = self.messages.add(head, run_id=run.id, beside=run.parent is not None)
        if message.run_id != run.id:
            message.run_id = run.id
        return message

    def task_message(self, run: Run) -> Message | None:
        """Return what a child run is asked for, as a message for models; None if it is no child."""
        request = run.request
        if request is None or request.parent is None:
            return None
        parent = self.runs.value(request.parent)
        name = (parent.agent if parent is not None else None) or ANY_AGENT
        return Message(
            id=derived("", run.id, "-task"),
            role="user",
            author=Author(id=request.by or name, name=name, kind="agent"),
            created_at=request.created_at,
            parts=[TextPart(type="text", text=task_text(request.task))],
        )

    def broke_off(self, run: Run) -> bool:
        """Whether what stands in the message of a *run* that was claimed was left unfinished by who wrote it.

        So it was if that one was lost or gave the run back, or if its own run, which this one continues, did not
        complete. Who waited for people, or handed over, left it as it was meant.
        """
        answer = self.messages.value(run.output) if run.output is not None else None
        if answer is None or not answer.parts:
            return False
        if (run.epoch or 0) > 1:
            known = self.runs.value(run.id)
            left = known.result if known is not None else None
            in_order = left is not None and left.epoch == (run.epoch or 0) - 1 and left.status in _IN_ORDER
            return not in_order
        others = [each for each in self.runs.all() if each.output == run.output and each.id != run.id]
        ended = [(each.outcome.ended_at, each.status) for each in others if each.outcome is not None]
        return bool(ended) and max(ended)[1] != "completed"

    def conversation(self, leaf: str | None = None) -> list[Message]:
        """Return what people see, or what they saw up to the message *leaf*: see :func:`model.conversation`.

        Tool calls that no result will come of any more have ended, also where the document does not say so.
        """
        runs = self.runs.all()
        return with_ended_calls(conversation(self.messages.ordered(), runs, leaf), runs)

    def steering(self, run_id: str) -> list[Message]:
        """Return the messages that are meant to steer a run and were not taken up yet, in order."""
        run = self.runs.value(run_id)
        taken = run.steers if run is not None else {}
        steering = (view.head for view in self.messages.views() if view.steers == run_id)
        wanted = [head.id for head in steering if head is not None and taken.get(head.id) is not True]
        messages = [message for message_id in wanted if (message := self.messages.value(message_id)) is not None]
        return sorted(messages, key=order)

    def take_up(self, run_id: str, message_id: str) -> None:
        """Record that the agent of a run has taken up a steering message, and where in its answer it did. Once.

        Raises:
            NotFound: there is no such message.
        """
        said = self.messages[message_id].to_value()
        run = self.runs.value(run_id)
        if said is None or (run is not None and run.steers.get(message_id) is True):
            return
        self.runs.consume(run_id, message_id)
        answer = self.messages.find(run.output) if run is not None and run.output is not None else None
        if answer is not None:
            heard = {"messageId": message_id, "parts": [part.to_json() for part in said.parts]}
            answer.add_part(ValuePart(type="steering", value=spelled(heard, MAX_DEPTH - 1)))

    def state_value(self) -> dict[str, Any]:
        """Return the application's shared state in JSON form."""
        value: dict[str, Any] = spelled(self.state)
        return value

    def unread(self, principal: str) -> int:
        """Return how many messages of others *principal* has not read: those after its receipt."""
        return self.messages.count_after(self.read_up_to(principal), besides=principal)

    def read_up_to(self, principal: str) -> int:
        """Return the place in the order up to which *principal* has read; 0 if it never said."""
        return whole(self.receipts.get(principal)) or 0

    def mark_read(self, principal: str, seq: int) -> None:
        """Record that *principal* has read up to *seq*; a receipt never goes back.

        Raises:
            BadId: *principal* cannot be one.
        """
        checked_id(principal, "principal")
        if principal not in self.receipts or seq > self.read_up_to(principal):
            self.receipts[principal] = seq

    def forget_receipt(self, principal: str) -> None:
        """Remove how far *principal* has read."""
        if principal in self.receipts:
            del self.receipts[principal]

    def export(self) -> SessionExport:
        """Return the whole session in JSON form.

        Raises:
            BadDocument: ``meta`` is not what layout 1 says.
        """
        return SessionExport(
            meta=self.meta,
            messages=self.messages.ordered(),
            runs=self.runs.all(),
            state=self.state_value(),
            artifacts=self.artifacts.all(),
            delegated=self.messages.beside(),
            receipts={
                principal: seq
                for principal, receipt in self.receipts.items()
                if is_id(principal) and (seq := whole(receipt)) is not None
            },
        )

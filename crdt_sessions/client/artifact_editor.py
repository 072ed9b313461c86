"""An artifact, as an agent edits it beside others."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from pycrdt import Text

from crdt_sessions.client.insertion import Insertion
from crdt_sessions.errors import BadValue, NotFound
from crdt_sessions.model import RelativePosition, SessionView
from crdt_sessions.model.artifacts import ContentKind
from crdt_sessions.model.dialects import Dialect, dialect_in
from crdt_sessions.model.nodes import words
from crdt_sessions.model.positions import StructId, position_at
from crdt_sessions.model.revisions import find, read_content, revision, text_at
from crdt_sessions.model.rewriting import Alike, Scribe
from crdt_sessions.model.steps import Content, content_in
from crdt_sessions.model.suggestions import Suggestion, SuggestionHead, pieces_of
from crdt_sessions.wire.varint import decode_state_vector

if TYPE_CHECKING:
    from crdt_sessions.client.session import SessionPeer


_COLOR = "#7c3aed"
"""Of a caret in an editor that has none of its own for whoever says no other."""


class ArtifactEditor:
    """An artifact that others edit at the same time: a text, or rich text, of which one reads and writes Markdown.

    Whoever edits is seen at work. Presence has their caret in the form that stock editor bindings draw: relative
    positions in ``cursor`` (``anchor``, ``head``; y-codemirror.next, y-prosemirror, Tiptap, BlockNote, y-quill), for
    plain text in ``selection`` too (y-monaco), and for Lexical in ``anchorPos`` and ``focusPos``.

    What is done for a run can be undone together: :meth:`SessionPeer.undo`. Made by :meth:`AgentRun.artifact`.
    """

    def __init__(
        self, session: SessionPeer, artifact_id: str, *, run: str | None = None, dialect: Dialect = "tiptap"
    ) -> None:
        self._session = session
        self._id = artifact_id
        self._run = run
        self._dialect = dialect
        self._open: str | None = None
        """The step that goes on: what this client writes there is part of it."""

    @property
    def kind(self) -> ContentKind:
        """``text``, or ``xml`` for rich text.

        Raises:
            NotFound: it is gone, or holds something else.
        """
        return "text" if isinstance(self._content, Text) else "xml"

    @property
    def dialect(self) -> Dialect:
        """In whose shape rich text is: ``tiptap``, ``prosemirror``, ``blocknote`` or ``lexical``."""
        content = self._content
        return self._dialect if isinstance(content, Text) else dialect_in(content, self._dialect)

    @property
    def content(self) -> str:
        """The text as it is now; of rich text, as Markdown.

        What Markdown has no word for is a comment there, such as ``<!-- kept:mention -->``: leave it where it is.
        """
        return read_content(self._content)

    def edit(self, new: str, *, of: str | None = None) -> None:
        """Put *new* in place of the passage *of*, or of everything, by small edits: what stays is not touched.

        Args:
            new: text; for rich text Markdown. In place of a passage it is one paragraph at most.
            of: a passage of what people read, within one paragraph, that is there exactly once.

        Raises:
            BadValue: there is no such passage, or more than one; or *new* cannot stand there.
        """
        wanted = revision(self._content, new, of, self._dialect)
        self._change(lambda view: self._begin(view, wanted.make, wanted.alike), begins=True)
        if wanted.passage is not None and not wanted.inline:
            self._show(wanted.passage.path, wanted.passage.start, wanted.passage.start)

    def suggest(self, new: str, *, of: str | None = None, note: str = "") -> str:
        """Suggest what :meth:`edit` would do; people accept or reject it piece by piece. Return the suggestion's id.

        Args:
            new: text; for rich text Markdown.
            of: the passage that it is to stand for, in rich text also some of its Markdown; everything if None. What
                is more than a passage within one paragraph is suggested change by change.
            note: for people.

        Raises:
            BadValue: there is no such passage, or more than one; or there is nothing to change.
        """
        pieces = pieces_of(self._content, self._id, new, of, self._dialect)
        head = SuggestionHead(
            artifact=self._id,
            author=self._session.author,
            run=self._run,
            note=note,
            created_at=self._session.now(),
            pieces=pieces,
        )
        suggestion_id = uuid.uuid4().hex
        self._session.edit(lambda view: view.suggestions.add(suggestion_id, head))
        return suggestion_id

    async def decided(self, suggestion_id: str) -> Suggestion:
        """Return a suggestion once every piece of it is decided: ``settled`` says what, by piece."""
        await self._session.until(lambda: self._session.view.suggestions[suggestion_id].over)
        return self._session.view.suggestions[suggestion_id]

    def select(self, passage: str) -> None:
        """Show others a selection: the passage that one is about to change.

        Raises:
            BadValue: there is no such passage, or more than one.
        """
        self._show(*find(self._content, passage))

    def append(self, text: str) -> None:
        """Write *text* at the end.

        Raises:
            NotFound: it is no plain text.
        """
        self.insert(len(self._text), text)

    def insert(self, index: int, text: str) -> None:
        """Write before the character at *index*.

        Raises:
            IndexError: *index* is outside the text.
            NotFound: it is no plain text.
        """
        self._splice(index, 0, text)

    def delete(self, index: int, count: int) -> None:
        """Delete *count* characters from *index* on.

        Raises:
            IndexError: the range is not within the text.
            NotFound: it is no plain text.
        """
        self._splice(index, count, "")
        self._show((), index, index)

    @asynccontextmanager
    async def stream(self, *, after: str | None = None) -> AsyncIterator[Insertion]:
        """Yield what writes as the words come: ``async with draft.stream() as out: await out.write(token)``.

        They stand together, wherever that place moves while others type around it. In rich text they are Markdown:
        headings, lists, quotes, code and marks become what they say as they come. What may still become something
        else, such as a word behind a star, is written when that is clear, and a table when it is complete.

        Args:
            after: a passage that is there exactly once; at the end if None. In rich text the first paragraph goes on
                there, and what follows it stands behind the block.

        Raises:
            BadValue: there is no such passage, or more than one.
        """
        content, place = self._content, None
        if after is not None:
            found = find(content, after)
            place = found._replace(start=found.stop)
        insertion = Insertion(self._session, self._change, content, place, self.dialect)
        try:
            yield insertion
        finally:
            insertion.close()

    async def undo(self) -> list[str]:
        """Undo what this run did to artifacts, and return the ids of those; see :meth:`SessionPeer.undo`.

        Raises:
            BadValue: it was not made for a run.
        """
        if self._run is None:
            raise BadValue(where="undo", why="this editor was not made for a run")
        return await self._session.undo(self._run)

    # -- inside --------------------------------------------------------------------------------------------

    @property
    def _content(self) -> Content:
        return content_in(self._session.view.document.doc, self._id)

    @property
    def _text(self) -> str:
        if not isinstance(self._content, Text):
            raise NotFound(what="text artifact", id=self._id)
        return self.content

    def _splice(self, index: int, count: int, addition: str) -> None:
        length = len(self._text)
        if not 0 <= index <= index + count <= length:
            raise IndexError(f"{index} to {index + count} is outside a text of {length} characters")

        def change(content: Content, scribe: Scribe) -> None:
            scribe.splice(cast(Text, content), index, index + count, words(addition).atoms)

        if count:
            self._change(lambda view: self._begin(view, change), begins=True)
        else:
            self._change(lambda view: change(content_in(view.document.doc, self._id), Scribe()))

    def _change(self, change: Callable[[SessionView], None], *, begins: bool = False) -> None:
        """Make a change, part of the step that goes on, unless it *begins* one; show the caret behind what it wrote.

        What only writes needs no step of its own: this client writes there for nobody else.
        """

        def within_step(view: SessionView) -> tuple[int, int]:
            if not begins and (self._open is None or view.edits.undone(self._open) is not None):
                self._begin(view, lambda content, scribe: None)
            before = self._clock(view)
            change(view)
            return before, self._clock(view)

        before, after = self._session.edit(within_step)
        if after > before:
            end = StructId(client=self._session.client_id, clock=after - 1)
            self._tell(RelativePosition(type=None, item=end, assoc=-1))

    def _begin(
        self, view: SessionView, change: Callable[[Content, Scribe], None], alike: Alike | None = None
    ) -> None:
        by, now = self._session.author.id, self._session.now()
        self._open = view.edits.begin(self._id, change, by=by, at=now, run=self._run, alike=alike)

    def _clock(self, view: SessionView) -> int:
        return decode_state_vector(view.document.doc.get_state()).get(self._session.client_id, 0)

    def _show(self, path: tuple[int, ...], start: int, stop: int) -> None:
        text = text_at(self._content, path)
        assoc: Literal[-1, 0] = -1 if start == stop and start else 0
        head_assoc: Literal[-1, 0] = -1 if stop else 0
        places = [
            position_at(text, at, side, lambda copy: text_at(content_in(copy, self._id), path))
            for at, side in ((start, assoc), (stop, head_assoc))
        ]
        self._tell(*places)

    def _tell(self, anchor: RelativePosition, head: RelativePosition | None = None) -> None:
        places = {"anchor": anchor.json_value(), "head": (head or anchor).json_value()}
        selection = places if self.kind == "text" else None
        drawn: dict[str, Any] = {}
        if self.dialect == "lexical" and selection is None:
            drawn = {"anchorPos": places["anchor"], "focusPos": places["head"], "focusing": True}
            drawn |= {"name": self._session.author.name, "color": _COLOR}
        self._session.set_presence(cursor={**places, "artifactId": self._id}, selection=selection, **drawn)

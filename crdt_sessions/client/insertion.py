"""Writing into an artifact word by word, at a place that moves while others type around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pycrdt import Text

from crdt_sessions.client.growth import Growth
from crdt_sessions.client.place import Place
from crdt_sessions.model import SessionView
from crdt_sessions.model.dialects import Dialect
from crdt_sessions.model.growing import GrowingMarkdown
from crdt_sessions.model.nodes import Node, read_words
from crdt_sessions.model.revisions import Passage, text_at
from crdt_sessions.model.rewriting import size
from crdt_sessions.model.steps import Content

if TYPE_CHECKING:
    from crdt_sessions.client.session import SessionPeer

_MOST_AHEAD = 200
"""Changes that the service has not acknowledged before whoever writes is held up."""


class Insertion:
    """What somebody writes at one place of an artifact; in rich text, Markdown. See :meth:`ArtifactEditor.stream`.

    Args:
        session: the peer that writes; it is waited for if the service is far behind.
        change: makes a change of the session as one step of the author's.
        content: the artifact's text or rich text.
        place: where it is written; None for the end.
        dialect: how the editor of rich text spells Markdown.
    """

    def __init__(
        self,
        session: SessionPeer,
        change: Callable[[Callable[[SessionView], None]], None],
        content: Content,
        place: Passage | None,
        dialect: Dialect,
    ) -> None:
        self._session = session
        self._change = change
        self._place: Place | None = None
        self._growth: Growth | None = None
        self._written = ""
        self._markdown = GrowingMarkdown(dialect)
        if isinstance(content, Text):
            end = len(read_words(content).atoms)
            self._place = _place_in(content, place or Passage((), end, end))
        else:
            text = _place_in(content, place) if place is not None else None
            self._growth = Growth(content, dialect, text)

    async def write(self, text: str) -> None:
        """Write *text* behind what was written before; wait if the service is far behind."""
        if self._place is not None:
            place = self._place
            if text:
                self._change(lambda view: place.write(text))
        else:
            if not self._written:
                self._space(_edge(text))
            self._written += text
            self._grow(self._markdown.feed(text))
        await self._session.until(lambda: not self._session.connected or self._session.unacknowledged < _MOST_AHEAD)

    def close(self) -> None:
        """Write what was held back, and stop following the place."""
        if self._growth is not None:
            self._grow(self._markdown.end())
            self._space(_edge(self._written[::-1]) if self._written.strip() else "")
            self._growth.close()
        if self._place is not None:
            self._place.close()

    def _space(self, space: str) -> None:
        growth = self._growth
        if growth is not None and space:
            self._change(lambda view: growth.space(space))

    def _grow(self, blocks: tuple[Node, ...]) -> None:
        growth = self._growth
        if growth is not None and growth.lacks(blocks):
            self._change(lambda view: growth.become(blocks))


def _edge(text: str) -> str:
    """Return the space that a text begins with, unless a line ends in it."""
    space = text[: len(text) - len(text.lstrip())]
    return "" if "\n" in space else space


def _place_in(content: Content, place: Passage) -> Place:
    text = text_at(content, place.path)
    return Place(text, sum(map(size, read_words(text).atoms[: place.start])))

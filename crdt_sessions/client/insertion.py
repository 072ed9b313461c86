"""Writing into an artifact word by word, at a place that moves while others type around it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pycrdt import Text, XmlElement, XmlFragment, XmlText

from crdt_sessions.model import SessionView
from crdt_sessions.model.dialects import Dialect
from crdt_sessions.model.nodes import Element, Parent, TextType, Words, element, read_words
from crdt_sessions.model.revisions import Passage, text_at
from crdt_sessions.model.rewriting import Scribe, size
from crdt_sessions.model.steps import Content

if TYPE_CHECKING:
    from crdt_sessions.client.session import SessionPeer

_BLANK = re.compile(r"\n[ \t]*\n\s*")
_MOST_AHEAD = 200
"""Changes that the service has not acknowledged before whoever writes is held up."""


class Insertion:
    """Text that somebody writes at one place of an artifact. Made by :meth:`ArtifactEditor.stream`."""

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
        self._dialect = dialect
        self._held = ""
        """The end of what came, which may be the beginning of a blank line."""
        if place is None:
            fragment = cast(XmlFragment, content)
            change(lambda view: _append(fragment, self._paragraph()))
            self._place = _Place(_last_text(fragment), 0)
        else:
            text = text_at(content, place.path)
            self._place = _Place(text, sum(map(size, read_words(text).atoms[: place.start])))

    async def write(self, text: str) -> None:
        """Write *text* behind what was written before; wait if the service is far behind."""
        if self._place.is_plain:
            self._write(text)
        else:
            self._write_paragraphs(self._held + text)
        await self._session.until(lambda: not self._session.connected or self._session.unacknowledged < _MOST_AHEAD)

    def close(self) -> None:
        """Write what was held back, and stop following the place."""
        if rest := self._held.strip("\n"):
            self._write(rest)
        self._held = ""
        self._place.close()

    def _write(self, text: str) -> None:
        if text:
            self._change(lambda view: self._place.write(text))

    def _write_paragraphs(self, text: str) -> None:
        text = text.replace("\r", "")
        whole = text.rstrip("\n \t")
        self._held = text[len(whole) :]
        if "\n" not in self._held:
            whole, self._held = text, ""
        first, *others = _BLANK.split(whole)
        self._write(first.replace("\n", " "))
        for paragraph in others:
            self._change(lambda view, said=paragraph: self._begin_paragraph(said.replace("\n", " ")))  # type: ignore[misc]

    def _begin_paragraph(self, text: str) -> None:
        block = cast(XmlElement, self._place.text.parent)  # type: ignore[union-attr]
        if self._dialect == "blocknote" and isinstance(block.parent, XmlElement):
            block = block.parent
        parent = cast(Parent, block.parent)
        at = next(at for at, child in enumerate(parent.children) if child == block)
        Scribe().insert(parent, at + 1, self._paragraph())
        self._place.close()
        self._place = _Place(_last_text(cast(XmlElement, parent.children[at + 1])), 0)
        self._place.write(text)

    def _paragraph(self) -> Element:
        paragraph = element("paragraph", {}, [Words(())])
        return element("blockContainer", {}, [paragraph]) if self._dialect == "blocknote" else paragraph


def _append(fragment: XmlFragment, block: Element) -> None:
    groups = (child for child in fragment.children if isinstance(child, XmlElement) and child.tag == "blockGroup")
    parent: Parent = next(groups, fragment)
    Scribe().insert(parent, len(parent.children), block)


def _last_text(parent: Parent) -> XmlText:
    found: Any = parent
    while isinstance(found, Parent):
        found = found.children[len(found.children) - 1]
    return cast(XmlText, found)


class _Place:
    """A place in a shared text, in bytes, which moves with what others write in front of it."""

    def __init__(self, text: TextType, offset: int) -> None:
        self.text = text
        state: list[int] = [offset, False]  # the place; whether the next event is of what is written here
        self._state = state

        # The library keeps observers alive, so this one knows no more than it needs.
        def follow(event: Any) -> None:
            state[0], state[1] = state[0] if state[1] else _moved(state[0], event.delta), False

        self._subscription = text.observe(follow)

    @property
    def is_plain(self) -> bool:
        """Whether it is in plain text, where a blank line is one."""
        return isinstance(self.text, Text)

    def write(self, text: str) -> None:
        """Write *text*, and stay behind it."""
        if text:
            self.text.insert(self._state[0], text)
            self._state[:] = self._state[0] + len(text.encode()), True

    def close(self) -> None:
        """Stop following."""
        self.text.unobserve(self._subscription)


def _moved(offset: int, delta: list[dict[str, Any]]) -> int:
    """Return where a place is after a change; what was inserted right at it comes after it."""
    at = 0
    for step in delta:
        if at > offset:
            break
        if "retain" in step:
            at += step["retain"]
        elif "delete" in step:
            offset -= max(0, min(step["delete"], offset - at))
        elif at < offset:
            inserted = step["insert"]
            length = len(inserted.encode()) if isinstance(inserted, str) else 1
            offset, at = offset + length, at + length
        else:
            break
    return offset

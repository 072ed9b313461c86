"""What somebody wants changed in an artifact, said in words: another whole, or something else in place of a passage.

Of plain text that is text; of rich text it is Markdown. A :class:`Revision` is made for the document as it stands,
and makes its change by small edits, in that document and in copies of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pycrdt import Text

from crdt_sessions.errors import BadValue
from crdt_sessions.model.dialects import Dialect, alike, dialect_in
from crdt_sessions.model.markdown import from_markdown, inline_from_markdown, to_markdown
from crdt_sessions.model.nodes import (
    NEW_LINE,
    Atom,
    ElementType,
    Embed,
    Node,
    Parent,
    TextType,
    Words,
    canonical,
    read_children,
    read_words,
    words,
)
from crdt_sessions.model.rewriting import EXACTLY, Alike, Scribe
from crdt_sessions.model.steps import Content

OBJECT = "\ufffc"
"""What stands for an embed, such as a picture, in the text that agents read."""

BY_CHARACTERS = EXACTLY._replace(atom=lambda atom: OBJECT if isinstance(atom.value, Embed) else atom.value)
"""Plain text: whoever writes it has no words for its marks, which stay."""

Path = tuple[int, ...]
"""Where a text is in rich text: its ancestors' places and its own among their neighbours. Plain text has none."""


class Passage(NamedTuple):
    """A piece of one text of an artifact."""

    path: Path
    start: int
    stop: int


class Revision(NamedTuple):
    """A change that is to be made. Exactly one of *passage* and *whole* is there."""

    alike: Alike
    passage: Passage | None
    inline: tuple[Atom, ...]
    """What comes in place of the passage."""
    whole: tuple[Node, ...] | None

    def make(self, content: Content, scribe: Scribe) -> None:
        """Make it in a document that is as it was."""
        if self.passage is not None:
            scribe.splice(text_at(content, self.passage.path), self.passage.start, self.passage.stop, self.inline)
        elif isinstance(content, Text):
            (new,) = self.whole or ()
            assert isinstance(new, Words)
            scribe.rewrite_text(content, new)
        else:
            scribe.rewrite_children(content, self.whole or ())


def revision(content: Content, new: str, of: str | Passage | None, dialect: Dialect) -> Revision:
    """Return the change that puts *new* in place of the passage *of*, or of everything if that is None.

    Args:
        content: what stands in the artifact.
        new: text, or Markdown.
        of: a passage; if it is said in words, as it reads without marks, it must be there exactly once.
        dialect: whose shape rich text gets that has none yet.

    Raises:
        BadValue: there is no such passage, or more than one; or it is to become more than one paragraph.
    """
    if isinstance(content, Text):
        if of is None:
            return Revision(BY_CHARACTERS, None, (), (words(new),))
        return Revision(BY_CHARACTERS, _found(content, of), words(new).atoms, None)
    dialect = dialect_in(content, dialect)
    if of is None:
        return Revision(alike(dialect), None, (), from_markdown(new, dialect))
    passage = _found(content, of)
    atoms = inline_atoms(new, dialect)
    before = read_words(text_at(content, passage.path)).atoms[passage.start : passage.stop]
    return Revision(EXACTLY, passage, marked_as(atoms, before), None)


def inline_atoms(text: str, dialect: Dialect) -> tuple[Atom, ...]:
    """Return Markdown of one paragraph as characters with marks.

    Raises:
        BadValue: it is more than that.
    """
    inline = inline_from_markdown(text, dialect)
    if not all(isinstance(node, Words) for node in inline):
        raise BadValue(where="the text", why="it has a picture or a new line; replace the whole document with it")
    return tuple(atom for node in inline if isinstance(node, Words) for atom in node.atoms)


def read_passage(content: Content, passage: Passage) -> str:
    """Return what people read at a passage."""
    return _text(Words(read_words(text_at(content, passage.path)).atoms[passage.start : passage.stop]))


def read_content(content: Content) -> str:
    """Return what stands in an artifact as agents read it: the text, or Markdown."""
    if isinstance(content, Text):
        return _text(read_words(content))
    return to_markdown(read_children(content), dialect_in(content))


def find(content: Content, passage: str) -> Passage:
    """Return where a passage is.

    Raises:
        BadValue: it is empty, not there, or there more than once.
    """
    if not passage:
        raise BadValue(where="the passage", why="it is empty")
    found = []
    for path, text in texts(content):
        whole = _text(read_words(text))
        at = whole.find(passage)
        while at >= 0:
            found.append(Passage(path, at, at + len(passage)))
            at = whole.find(passage, at + 1)
    if len(found) != 1:
        many = (
            f"it is there {len(found)} times; say more of it" if found else "it is not there, or not in one paragraph"
        )
        raise BadValue(where=f"the passage {passage[:40]!r}", why=many)
    return found[0]


def texts(content: Content) -> Iterator[tuple[Path, TextType]]:
    """Yield all texts of an artifact, with their paths."""
    if isinstance(content, Text):
        yield (), content
    else:
        yield from _texts_in(content, ())


def text_at(content: Content, path: Sequence[int]) -> TextType:
    """Return the text at a path.

    Raises:
        BadValue: there is none.
    """
    found: object = content
    for place in path:
        children = found.children if isinstance(found, Parent) else ()
        found = children[place] if place < len(children) else None
    if not isinstance(found, TextType):
        raise BadValue(where="the path", why=f"there is no text at {list(path)}")
    return found


def _found(content: Content, passage: str | Passage) -> Passage:
    return find(content, passage) if isinstance(passage, str) else passage


def _texts_in(parent: Parent, path: Path) -> Iterator[tuple[Path, TextType]]:
    for place, child in enumerate(parent.children):
        if isinstance(child, TextType):
            yield (*path, place), child
        elif isinstance(child, ElementType):
            yield from _texts_in(child, (*path, place))


def _text(found: Words) -> str:
    return "".join(_read(atom.value) for atom in found.atoms)


def _read(value: str | Embed) -> str:
    if isinstance(value, Embed):
        return "\n" if value == NEW_LINE else OBJECT
    return value


def marked_as(atoms: Sequence[Atom], before: Sequence[Atom]) -> tuple[Atom, ...]:
    """Return *atoms*; if they have no marks, with those that all of what was there before has."""
    marks = {atom.marks for atom in before}
    if len(marks) != 1 or any(atom.marks for atom in atoms) or marks == {canonical({})}:
        return tuple(atoms)
    return tuple(Atom(atom.value, *marks) for atom in atoms)

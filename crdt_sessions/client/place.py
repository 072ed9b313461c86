"""A place in a shared text where somebody writes while others type around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crdt_sessions.model.lexical import LexicalText
from crdt_sessions.model.nodes import Atom, TextType, words
from crdt_sessions.model.rewriting import size, write


class Place:
    """A place, in bytes, which moves with what others write in front of it.

    Args:
        text: the text.
        offset: where it is.
    """

    def __init__(self, text: TextType, offset: int) -> None:
        self.text = text
        if isinstance(text, LexicalText):
            offset = text.outside(offset)
        state: list[int] = [offset, False]  # the place; whether the next event is of what is written here
        self._state = state

        # The library keeps observers alive, so this one knows no more than it needs.
        def follow(event: Any) -> None:
            state[0], state[1] = state[0] if state[1] else _moved(state[0], event.delta), False

        self._subscription = text.observe(follow)

    def write(self, text: str) -> None:
        """Write *text*, and stay behind it."""
        if isinstance(self.text, LexicalText):
            self._write_in_line(self.text, words(text).atoms, frozenset())
        elif text:
            self.text.insert(self._state[0], text)
            self._state[:] = self._state[0] + len(text.encode()), True

    def write_atoms(self, atoms: Sequence[Atom], names: frozenset[str]) -> None:
        """Write *atoms*, without the marks *names* that they do not have, and stay behind them."""
        if isinstance(self.text, LexicalText):
            self._write_in_line(self.text, atoms, names)
        elif atoms:
            write(self.text, self._state[0], atoms, names)
            self._state[:] = self._state[0] + sum(map(size, atoms)), True

    def _write_in_line(self, text: LexicalText, atoms: Sequence[Atom], names: frozenset[str]) -> None:
        """Write into a text of Lexical, whose block has more in it than characters; the place is one in the block."""
        if atoms:
            offset = text.inside(self._state[0])
            write(text, offset, atoms, names)
            self._state[:] = text.outside(offset + sum(map(size, atoms))), True

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

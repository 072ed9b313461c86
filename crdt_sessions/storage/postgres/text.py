"""Text as PostgreSQL can hold it: everything but the character of number zero."""

from __future__ import annotations

from typing import overload

_ZERO, _ESCAPE = "\x00", "\x1a"


@overload
def kept(text: str) -> str: ...
@overload
def kept(text: str | None) -> str | None: ...
def kept(text: str | None) -> str | None:
    """Return what to store of a text."""
    if text is None or (_ZERO not in text and _ESCAPE not in text):
        return text
    return text.replace(_ESCAPE, _ESCAPE + "1").replace(_ZERO, _ESCAPE + "0")


@overload
def read(text: str) -> str: ...
@overload
def read(text: str | None) -> str | None: ...
def read(text: str | None) -> str | None:
    """Return the text that :func:`kept` was given."""
    if text is None or _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE + "0", _ZERO).replace(_ESCAPE + "1", _ESCAPE)

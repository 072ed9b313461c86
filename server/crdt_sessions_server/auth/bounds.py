"""What a token may hand on to those that are made with it: no more than it opens itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from crdt_sessions.errors import AccessDenied
from crdt_sessions.ids import Millis
from crdt_sessions_server.auth.jwt import LEEWAY_S
from crdt_sessions_server.auth.principal import Principal

_WILD = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")
"""How :func:`glob.escape` spells a character that means itself."""


def patterns_within(own: Sequence[str], wanted: Sequence[str] | None, what: str) -> list[str] | None:
    """Return the patterns of a token that is made with one that has its *own*: theirs, if none are *wanted*.

    A pattern counts as within another one only where that is plain to see: it is the same, a name without wildcards,
    or narrower than one that has no wildcards but ``*``.

    Args:
        own: patterns of the token that it is made with.
        wanted: what is asked for; None for as much as there may be.
        what: of what the patterns are, for the error.

    Returns:
        The patterns; None for all names.

    Raises:
        AccessDenied: one of them is not within the token's own.
    """
    if wanted is None:
        return None if "*" in own else list(own)
    for pattern in wanted:
        if not any(_is_within(pattern, each) for each in own):
            raise AccessDenied(
                what=f"this token is not for all {what} of {pattern!r}; ask for some of {', '.join(own) or 'none'}"
            )
    return list(wanted)


def _is_within(inner: str, outer: str) -> bool:
    if outer in ("*", inner):
        return True
    if not _WILD.search(_ESCAPED.sub("", inner)):
        return fnmatchcase(_ESCAPED.sub(r"\1", inner), outer)
    # As a text, with each of its wildcards in the place of a star: whatever they stand for, the star stands for, too.
    return not re.search(r"[?[]", outer) and "[" not in inner and fnmatchcase(inner, outer)


def lifetime_within(caller: Principal, now: Millis, wanted_s: float | None, usual_s: float) -> float:
    """Return for how many seconds a token may be good that *caller* has made: not for longer than its own.

    Args:
        caller: who has it made.
        now: the time.
        wanted_s: what is asked for; None for the usual, or what is left if that is less.
        usual_s: the usual.

    Raises:
        AccessDenied: it is longer than its own.
    """
    if caller.expires_at is None:
        return usual_s if wanted_s is None else wanted_s
    left = (caller.expires_at - now) / 1000 - LEEWAY_S
    if left < 1 or (wanted_s is not None and wanted_s > left):
        raise AccessDenied(
            what=f"this token is good for {max(0, int(left))} s more, and makes none that are for longer"
        )
    return min(usual_s, left) if wanted_s is None else wanted_s

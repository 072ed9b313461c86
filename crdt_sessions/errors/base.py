"""The root of the tree, and how its sentences spell what they name."""

from __future__ import annotations

from urllib.parse import unquote


def session_name(session: str) -> str:
    """Return a session's name without its tenant, which is the caller's own (``ids`` itself needs errors)."""
    return unquote(session.rpartition("/")[2])


def listed(names: list[str]) -> str:
    """Return names for a sentence; of many the first ones."""
    return ", ".join(map(repr, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")


_NAMED = 20


class CrdtSessionsError(Exception):
    """The root of the tree."""

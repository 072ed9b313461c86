"""Lists page by page: cursors that name the last entry of a page, and pages without hidden entries."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, get_args

from crdt_sessions.errors import BadParameter
from crdt_sessions.model.checks import MAX_INTEGER

Item = TypeVar("Item")

MAX_PAGE = 1000
MOST_LOOKED_AT = 10_000
"""Entries that are read for one page, whether or not somebody may see them."""


def some_of(choices: Any) -> str:
    """Return the pattern of one or several of *choices*, a ``Literal`` of strings, with commas in between."""
    one = "|".join(get_args(choices))
    return rf"^({one})(,({one}))*$"


def cursor_at(*place: Any) -> str:
    """Return the cursor after *place*, a row of JSON values."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def place_of(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Return the place of a cursor, whose values are of these *kinds*.

    Raises:
        BadParameter: it is no cursor of that list.
    """
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        place = None
    if not isinstance(place, list) or [type(value) for value in place] != list(kinds) or not _fits(place):
        raise BadParameter(name="cursor", text=cursor)
    return tuple(place)


def _fits(place: list[Any]) -> bool:
    """Whether a database can look for a place."""
    return all(abs(value) <= MAX_INTEGER for value in place if isinstance(value, int))


async def visible(
    read: Callable[[Item | None, int], Awaitable[Sequence[Item]]], wanted: Callable[[Item], bool], limit: int
) -> tuple[list[Item], Item | None]:
    """Return up to *limit* things that are *wanted*, and the entry after which there may be more; None at the end.

    That entry is not one of those that are wanted where :data:`MOST_LOOKED_AT` of them had to be read.

    Args:
        read: returns up to so many entries after a place.
        wanted: tells whether an entry is shown.
        limit: the most.
    """
    found: list[Item] = []
    last: Item | None = None
    size, looked_at = limit + 1, 0
    while looked_at < MOST_LOOKED_AT:
        items = await read(last, size)
        found += filter(wanted, items)
        if len(found) > limit:
            return found[:limit], found[limit - 1]
        if len(items) < size:
            return found, None
        looked_at += size
        last, size = items[-1], min(2 * size, MAX_PAGE + 1)  # who may see few entries costs few reads
    return found, last

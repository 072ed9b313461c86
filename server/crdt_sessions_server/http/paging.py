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
) -> tuple[list[Item], bool]:
    """Return up to *limit* things that are *wanted*, and whether there are more.

    Args:
        read: returns up to so many entries after a place.
        wanted: tells whether an entry is shown.
        limit: the most.
    """
    found: list[Item] = []
    last: Item | None = None
    size = limit + 1
    while len(found) <= limit:
        items = await read(last, size)
        found += filter(wanted, items)
        if len(items) < size:
            break
        last, size = items[-1], min(2 * size, MAX_PAGE + 1)  # who may see few entries costs few reads
    return found[:limit], len(found) > limit

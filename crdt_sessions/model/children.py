"""Child runs: what somebody who works on a run asks another agent for.

A child is a run like any other, with a parent. It is asked for a *task* in place of a message of the conversation,
and what it writes stands beside the conversation, so that it is nobody's answer there.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from crdt_sessions.errors import BadId, TooLarge
from crdt_sessions.limits import ChildLimits
from crdt_sessions.model.checks import check_json, json_size
from crdt_sessions.model.strings import WORD_CHARACTERS, derived, is_id

CHILD_LIMITS = ChildLimits()

Orphans = Literal["end", "go-on"]
"""What becomes of a child that is not done when its parent has ended."""

_PATTERN = r"^[^:\u0000-\u001F\u007F-\u009F]+$"
ChildKey = Annotated[str, Field(min_length=1, max_length=WORD_CHARACTERS, pattern=_PATTERN)]
"""Names a child among those of its parent."""


def child_of(parent: str, key: str) -> str:
    """Return the id of a child run: the same however often its parent is tried, so asking again asks once.

    Raises:
        BadId: *key* is empty or too long, or has a colon or control characters.
    """
    if ":" in key or not is_id(key, WORD_CHARACTERS):
        raise BadId(what="key of a child run", text=key, limit=WORD_CHARACTERS)
    return derived("", parent, f":{key}")


def may_be_child(run_id: str) -> bool:
    """Whether a run's id can be that of a child: :func:`child_of` makes them all."""
    return ":" in run_id


def checked_task(task: Any) -> Any:
    """Return *task* if it is JSON within bounds.

    Raises:
        BadValue: it is no JSON that every peer can hold.
        TooLarge: it has too many bytes.
    """
    check_json(task, "task")
    if (size := json_size(task)) > CHILD_LIMITS.max_task_bytes:
        raise TooLarge(what="the task of a child run", size=size, limit=CHILD_LIMITS.max_task_bytes, unit="bytes")
    return task


def task_text(task: Any) -> str:
    """Return a task as text, for a model: text as it is, all else as JSON."""
    return task if isinstance(task, str) else json.dumps(task, ensure_ascii=False)

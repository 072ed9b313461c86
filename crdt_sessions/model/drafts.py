"""Drafts: what people have filled in so far of an answer that they are asked for. All their devices share it.

A field of free text is a ``Text``, so that of what two devices type in it at once both stays; any other field is a
value, of which the last one stays. See docs/decisions/0057-text-fields-of-drafts.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pycrdt import Map, Text

from crdt_sessions.model.checks import check_json
from crdt_sessions.model.decisions import ApprovalRequest
from crdt_sessions.model.spelling import spelled
from crdt_sessions.model.text import rewrite

WHOLE = "value"
"""The field of an answer that is one value and no object."""
_BOUNDED = frozenset(["enum", "const", "oneOf", "anyOf", "format"])
"""Keywords of fields in which one does not write freely."""


def new_draft(request: ApprovalRequest, given: Any) -> Map[Any]:
    """Return the draft of a question, to be written with it: of two that are made at once only one stays.

    Args:
        request: the question.
        given: the input of the tool, which may be edited.
    """
    return Map({name: Text(first) for name, first in _free_texts(request, given)})


def filled_in(draft: Any) -> dict[str, Any]:
    """Return the fields of a draft that somebody has filled in, as JSON; none if it is no draft.

    A text that is empty is a field that nobody has filled in.
    """
    if not isinstance(draft, Map):
        return {}
    empty = {name for name, value in draft.items() if isinstance(value, Text) and not len(value)}
    return {name: value for name, value in spelled(draft).items() if name not in empty}


def fill_in(draft: Any, fields: Mapping[str, Any]) -> None:
    """Fill in fields of a draft, or empty those that are None; of a text only what differs is changed.

    Nothing happens where there is no draft.

    Raises:
        BadValue: one of them is not JSON that every peer can hold.
    """
    if not isinstance(draft, Map):
        return
    for name, value in fields.items():
        known = draft.get(name)
        if isinstance(known, Text) and (value is None or isinstance(value, str)):
            rewrite(known, check_json(value or "", name))
        elif value is None:
            draft.pop(name, None)
        elif spelled(known) != value:
            draft[name] = check_json(value, name)


def _free_texts(request: ApprovalRequest, given: Any) -> Iterator[tuple[str, str]]:
    """Yield the fields in which people write freely, with what stands there at first."""
    form = request.form or {}
    fields, edits = form.get("properties"), request.kind == "edit"
    first = given if edits else request.default
    if not isinstance(fields, dict):
        fields, first = ({} if edits else {WHOLE: form}), {WHOLE: first}
    for name, field in fields.items():
        if isinstance(field, dict) and field.get("type") == "string" and _BOUNDED.isdisjoint(field):
            value = first.get(name) if isinstance(first, dict) else None
            value = field.get("default") if value is None else value
            yield name, value if isinstance(value, str) else ""

"""Every string that participants write into a session document or send to a route: its form and its limit, once.

Two kinds. *Identifiers* name something and are taken as they are or not at all: one that does not fit makes the
entry it stands in unreadable. *Words* only describe, and what is over their limit is cut off; a stop whose reason is
too long is a stop. Requests over HTTP are refused in both cases (422), since there is somebody to be told.

Lengths count Unicode code points. What the server derives from an identifier always fits: :func:`derived`.
``docs/protocol.md``, section "Identifiers", has the table.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from crdt_sessions.errors import BadId

ID_CHARACTERS = 200
"""Messages, runs, artifacts, principals."""
AGENT_CHARACTERS = 100
CALL_CHARACTERS = 500
"""Tool calls: some providers hide a state of theirs in the id."""
NAME_CHARACTERS = 200
"""Names for people, and of tools."""
TITLE_CHARACTERS = 500
REASON_CHARACTERS = 1000
ERROR_CHARACTERS = 10_000
WORD_CHARACTERS = 100
"""Modalities, media types, codes of errors."""

PLAIN = r"^[^\u0000-\u001F\u007F-\u009F]+$"
"""No control characters: ids stand in headers, paths and lines of logs."""

NOT_AN_ID = "it is empty or too long, or has control characters"

_PLAIN = re.compile(r"[^\u0000-\u001F\u007F-\u009F\ud800-\udfff]+")
_HALF = re.compile("[\ud800-\udfff]")
_MAX_MILLIS = 2**53 - 1


def _id(characters: int) -> Any:
    return Field(min_length=1, max_length=characters, pattern=PLAIN)


# Of the two branches of these the first takes nearly all there is, without a call into Python.
@dataclass(frozen=True, slots=True)
class _Words:
    """A string that is cut off after so many characters."""

    characters: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        fits = core_schema.str_schema(max_length=self.characters)
        cut = core_schema.no_info_after_validator_function(self._cut, core_schema.str_schema())
        return core_schema.union_schema([fits, cut], mode="left_to_right")

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "maxLength": self.characters}

    def _cut(self, text: str) -> str:
        return text[: self.characters]


class _Millis:
    """An integer that every peer can hold; fractions are cut off."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        whole = core_schema.int_schema(ge=-_MAX_MILLIS, le=_MAX_MILLIS)
        fraction = core_schema.float_schema(ge=-_MAX_MILLIS, le=_MAX_MILLIS, allow_inf_nan=False)
        floored = core_schema.no_info_after_validator_function(math.floor, fraction)
        return core_schema.union_schema([whole, floored], mode="left_to_right")

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "integer", "minimum": -_MAX_MILLIS, "maximum": _MAX_MILLIS}


MessageId = Annotated[str, _id(ID_CHARACTERS)]
RunId = Annotated[str, _id(ID_CHARACTERS)]
ArtifactId = Annotated[str, _id(ID_CHARACTERS)]
SuggestionId = Annotated[str, _id(ID_CHARACTERS)]
PrincipalId = Annotated[str, _id(ID_CHARACTERS)]
AgentName = Annotated[str, _id(AGENT_CHARACTERS)]
ToolCallId = Annotated[str, Field(max_length=CALL_CHARACTERS)]
"""What a provider made up, which may be anything, even nothing."""

Who = Annotated[str, _Words(ID_CHARACTERS)]
"""A person that is only mentioned, such as the one who pressed stop."""
Name = Annotated[str, _Words(NAME_CHARACTERS)]
ToolName = Annotated[str, _Words(NAME_CHARACTERS)]
"""Models write these, and misspell them."""
Title = Annotated[str, _Words(TITLE_CHARACTERS)]
Reason = Annotated[str, _Words(REASON_CHARACTERS)]
ErrorText = Annotated[str, _Words(ERROR_CHARACTERS)]
Word = Annotated[str, _Words(WORD_CHARACTERS)]

Time = Annotated[int, _Millis()]
"""Milliseconds since the Unix epoch; fractions are cut off."""


def is_id(text: object, characters: int = ID_CHARACTERS) -> bool:
    """Whether *text* is an identifier of at most so many characters."""
    return isinstance(text, str) and len(text) <= characters and _PLAIN.fullmatch(text) is not None


def is_agent(text: object) -> bool:
    """Whether *text* may be an agent's name."""
    return is_id(text, AGENT_CHARACTERS)


def is_call(text: object) -> bool:
    """Whether *text* may be the id of a tool call."""
    return isinstance(text, str) and len(text) <= CALL_CHARACTERS and _HALF.search(text) is None


def checked_id(text: str, what: str, characters: int = ID_CHARACTERS) -> str:
    """Return *text* if it is an identifier of at most so many characters.

    Args:
        text: what came.
        what: its name for the error, such as ``message id``.
        characters: the limit.

    Raises:
        BadId: it is none.
    """
    if not is_id(text, characters):
        raise BadId(what=what, text=text, limit=characters)
    return text


def derived(before: str, id: str, after: str = "") -> str:
    """Return the id that is made of another one: *before*, the id and *after*.

    If that would be over the limit, ``~`` and the SHA-256 of the id (64 hexadecimal digits, over its UTF-8) stands
    there instead of the id: the same on every replica, and again something that can be derived from.
    """
    whole = f"{before}{id}{after}"
    if len(whole) <= ID_CHARACTERS:
        return whole
    return f"{before}~{hashlib.sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()}{after}"

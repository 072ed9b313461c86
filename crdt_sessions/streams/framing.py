"""What a body is in the log: bytes as they are, or JSON messages with a comma after each.

So a JSON stream is a log of bytes like any other, and any piece of it that begins and ends between messages becomes
an array by putting it into brackets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NoReturn

from crdt_sessions.errors import BadStreamRequest

_SPACE = re.compile(r"[ \t\n\r]*")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


# The numbers stay as they are written, so it does not matter what they are read as.
_DECODER = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_no_constant)


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in small letters."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether streams of that type hold messages."""
    return media_type(content_type) == "application/json"


def framed(content_type: str, body: bytes) -> bytes:
    """Return what a body is in the log of a stream: of a JSON array each item is a message.

    Raises:
        BadStreamRequest: the stream is one of JSON, and the body is not.
    """
    if not is_json(content_type):
        return body
    return "".join(f"{message}," for message in _messages(body)).encode()


def array(data: bytes) -> bytes:
    """Return a piece of a JSON stream's log as an array."""
    return b"[" + data[:-1] + b"]"


def sub_offset(content_type: str, data: bytes, count: int) -> int:
    """Return how many bytes of *data*, a piece of the log, hold its first *count* messages, or bytes if not JSON.

    Raises:
        BadStreamRequest: there are not so many.
    """
    ends = list(_ends(data.decode())) if is_json(content_type) else range(1, len(data) + 1)
    if count > len(ends):
        raise BadStreamRequest(why=f"Stream-Fork-Sub-Offset {count} is beyond what was appended there at once")
    return ends[count - 1] if count else 0


def _messages(body: bytes) -> Iterator[str]:
    try:
        text = body.decode()
        start = _after_space(text, 0)
        if text[start : start + 1] != "[":
            _, end = _DECODER.raw_decode(text, start)
            yield text[start:end]
        else:
            end = start + 1
            for first, last in _items(text, end):
                yield text[first:last]
                end = last
            end = _after_space(text, end) + 1
        if _after_space(text, end) != len(text):
            raise ValueError("something follows the value")
    except json.JSONDecodeError as error:
        raise BadStreamRequest(why=f"the body is not JSON: line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise BadStreamRequest(why=f"the body is not JSON: {error}") from None


def _items(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Yield where the items of an array begin and end, up to its bracket; *at* is after the opening one."""
    at = _after_space(text, at)
    if text[at : at + 1] == "]":
        return
    while True:
        start = _after_space(text, at)
        _, at = _DECODER.raw_decode(text, start)
        yield start, at
        follows = _after_space(text, at)
        if text[follows : follows + 1] == "]":
            return
        if text[follows : follows + 1] != ",":
            raise ValueError(f"neither a comma nor a bracket at character {follows}")
        at = follows + 1


def _ends(text: str) -> Iterator[int]:
    """Yield after how many bytes the messages of a piece of the log end, with their commas."""
    at = size = 0
    while at < len(text):
        _, end = _DECODER.raw_decode(text, at)
        size += len(text[at : end + 1].encode())
        at = end + 1
        yield size


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found is not None else at

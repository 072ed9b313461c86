"""Errors of names, parameters and values that do not do."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError, listed


class BadSessionId(CrdtSessionsError):
    """A session's name is 1 to 200 characters that a URL can hold: see :func:`crdt_sessions.ids.session_id`."""

    def __init__(self, *, text: str, made: bool = True) -> None:
        super().__init__(
            "a session's name is 1 to 200 characters: no control characters, no space at its ends, no segment . or .."
            f", not {text[:80]!r}"
            if made
            else f"{text[:80]!r} is not the id of a session: ids are made of names by crdt_sessions.ids.session_id"
        )
        self.text = text


class BadId(CrdtSessionsError):
    """An identifier of a message, run, agent, principal or tool call that cannot be one."""

    def __init__(self, *, what: str, text: str, limit: int) -> None:
        super().__init__(f"a {what} is 1 to {limit} characters, none of them a control character, not {text[:80]!r}")
        self.what = what
        self.limit = limit


class BadTenant(CrdtSessionsError):
    """A tenant's name is 1 to 64 characters of A-Z a-z 0-9 . _ - and begins with a letter or digit."""

    def __init__(self, *, text: str) -> None:
        super().__init__(
            "a tenant is 1 to 64 characters of A-Z a-z 0-9 . _ - and begins with a letter or digit,"
            f" not {text[:80]!r}"
        )
        self.text = text


class BadParameter(CrdtSessionsError):
    """A query parameter that cannot be read."""

    def __init__(self, *, name: str, text: str) -> None:
        super().__init__(f"the parameter {name} cannot be {text[:40]!r}")
        self.name = name
        self.text = text


class BadValue(CrdtSessionsError):
    """A value that the document, or JavaScript, cannot hold."""

    def __init__(self, *, where: str, why: str) -> None:
        super().__init__(f"{where or 'the value'}: {why}")
        self.where = where
        self.why = why


class EmptyMessage(CrdtSessionsError):
    """A message that says nothing: without parts, or with nothing in them but white space."""

    def __init__(self) -> None:
        super().__init__(
            "the message says nothing: give it text that is not only white space, or a part such as a file"
        )


class BadDocument(CrdtSessionsError):
    """An import that is not a session document."""

    def __init__(self, *, why: str) -> None:
        super().__init__(why)
        self.why = why


class NotFound(CrdtSessionsError):
    """A message, run or artifact that is not in the document.

    Args:
        what: what was looked for.
        id: the name it was looked for by.
        known: the names there are, where there are few.
    """

    def __init__(self, *, what: str, id: str, known: list[str] | None = None) -> None:
        there = "" if known is None else f"; there {'are' if known else 'is none'} {listed(known)}".rstrip()
        super().__init__(f"there is no {what} {id!r}{there}")
        self.what = what
        self.id = id
        self.known = known

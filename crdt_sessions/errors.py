"""Every error this library raises, in one tree.

::

    CrdtSessionsError
    ├── WireError                 bytes that are not a frame
    │   ├── TruncatedFrame        a length promised more than there is
    │   ├── VarintTooLong         an integer beyond 2**53 - 1
    │   ├── BadText               a string that is not UTF-8, or not JSON where JSON is due
    │   └── UnknownFrame          a message type we do not speak, or not in this direction
    ├── UpdateError               an update the CRDT cannot take
    │   ├── MalformedUpdate
    │   └── PanickedUpdate        the native library panicked on it
    ├── TooLarge                  a frame, document or field over its limit
    ├── TooSlow                   a peer that does not read what it asked for
    ├── NotAuthenticated          no token, or one that nobody knows
    ├── AccessDenied              the principal may not do this
    ├── SessionNotFound
    │   └── SessionDeleted        it existed; it will not come back by itself
    ├── SessionExists
    ├── SessionClosed             it takes no more writes
    ├── WrongGeneration           the client's history belongs to an earlier session of that name
    ├── BadSessionId
    ├── BadParameter              a query parameter that cannot be read
    ├── BadValue                  a value that the document cannot hold
    ├── BadDocument               an import that is not a session document
    ├── NotFound                  a message, run or artifact that is not in the document
    ├── StorageError              the store failed; what was not acknowledged is not stored
    │   ├── DamagedLog            a stored row does not match its checksum, or cannot be applied
    │   ├── DatabaseInUse         another process has the database open
    │   └── NewerSchema           the database was written by a newer release
    ├── ShuttingDown              the process is about to stop; come back
    └── ConnectionClosed          (client) the server refused this peer for good

Errors carry their facts as attributes; the sentence is derived from them.
How they look to the outside stands in :mod:`crdt_sessions.wire.closing` (close codes) and in
``crdt_sessions_server.problems`` (HTTP).
"""

from __future__ import annotations


class CrdtSessionsError(Exception):
    """The root of the tree."""


class WireError(CrdtSessionsError):
    """Bytes that are not a valid frame."""


class TruncatedFrame(WireError):
    """A length prefix promised more bytes than the frame holds."""

    def __init__(self, *, wanted: int, available: int) -> None:
        super().__init__(f"wanted {wanted} bytes, {available} available")
        self.wanted = wanted
        self.available = available


class VarintTooLong(WireError):
    """An integer beyond 2**53 - 1, the largest that JavaScript peers can hold."""

    def __init__(self) -> None:
        super().__init__("an integer is longer than 8 bytes or exceeds 2**53 - 1")


class BadText(WireError):
    """A string that is not UTF-8, or not JSON where JSON is due."""

    def __init__(self, *, what: str) -> None:
        super().__init__(what)
        self.what = what


class UnknownFrame(WireError):
    """A message type we do not speak, or one that may not travel in this direction."""

    def __init__(self, *, kind: int) -> None:
        super().__init__(f"unknown or misdirected message type {kind}")
        self.kind = kind


class UpdateError(CrdtSessionsError):
    """An update that the CRDT library does not take. Nothing of it was stored."""

    def __init__(self, *, size: int) -> None:
        super().__init__(f"an update of {size} bytes cannot be decoded")
        self.size = size


class MalformedUpdate(UpdateError):
    """The CRDT library rejected the bytes."""


class PanickedUpdate(UpdateError):
    """The CRDT library panicked on the bytes, or gave up in the middle; the document cannot be trusted any more."""


class TooLarge(CrdtSessionsError):
    """Something is over its limit."""

    def __init__(self, *, what: str, size: int, limit: int) -> None:
        super().__init__(f"{what} of {size} exceeds the limit of {limit} bytes")
        self.what = what
        self.size = size
        self.limit = limit


class TooSlow(CrdtSessionsError):
    """A peer does not read what it asked for, or does not write its frames in time."""

    def __init__(self, *, what: str) -> None:
        super().__init__(what)
        self.what = what


class NotAuthenticated(CrdtSessionsError):
    """No token, or one that nobody knows."""

    def __init__(self) -> None:
        super().__init__("a valid token is required")


class AccessDenied(CrdtSessionsError):
    """The principal may not do this."""

    def __init__(self, *, what: str) -> None:
        super().__init__(f"not allowed: {what}")
        self.what = what


class _SessionError(CrdtSessionsError):
    sentence = ""

    def __init__(self, *, session: str) -> None:
        super().__init__(self.sentence.format(session=session))
        self.session = session


class SessionNotFound(_SessionError):
    """There is no session of that name."""

    sentence = "there is no session {session!r}"


class SessionDeleted(SessionNotFound):
    """The session existed and was deleted; it does not come back by itself."""

    sentence = "session {session!r} was deleted"


class SessionExists(_SessionError):
    """A session of that name exists already."""

    sentence = "session {session!r} exists already"


class SessionClosed(_SessionError):
    """The session takes no more writes."""

    sentence = "session {session!r} is closed; reopen it to write"


class WrongGeneration(CrdtSessionsError):
    """The client's history belongs to an earlier session of that name; merging would duplicate content."""

    def __init__(self, *, session: str, theirs: int, ours: int) -> None:
        super().__init__(f"session {session!r} is generation {ours}, not {theirs}; discard the local copy")
        self.session = session
        self.theirs = theirs
        self.ours = ours


class BadSessionId(CrdtSessionsError):
    """A session id is 1 to 128 characters of A-Z a-z 0-9 . _ ~ : @ - and begins with a letter or digit."""

    def __init__(self, *, text: str) -> None:
        super().__init__(
            "a session id is 1 to 128 characters of A-Z a-z 0-9 . _ ~ : @ - "
            f"and begins with a letter or digit, not {text[:80]!r}"
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


class BadDocument(CrdtSessionsError):
    """An import that is not a session document."""

    def __init__(self, *, why: str) -> None:
        super().__init__(why)
        self.why = why


class NotFound(CrdtSessionsError):
    """A message, run or artifact that is not in the document."""

    def __init__(self, *, what: str, id: str) -> None:
        super().__init__(f"there is no {what} {id!r}")
        self.what = what
        self.id = id


class StorageError(CrdtSessionsError):
    """The store failed. What was not acknowledged is not stored."""


class DamagedLog(StorageError):
    """A stored row does not match its checksum, or the CRDT cannot apply it."""

    def __init__(self, *, session: str, seq: int, why: str) -> None:
        super().__init__(f"session {session!r}, row {seq}: {why}")
        self.session = session
        self.seq = seq
        self.why = why


class DatabaseInUse(StorageError):
    """Another process has the database open; one process owns a database."""

    def __init__(self, *, path: str) -> None:
        super().__init__(f"{path} is in use by another process; one process owns a database: stop the other one")
        self.path = path


class NewerSchema(StorageError):
    """The database was written by a newer release; this one does not touch it."""

    def __init__(self, *, path: str, found: int, known: int) -> None:
        super().__init__(f"{path} has schema version {found}, this release knows {known}: upgrade crdt-sessions")
        self.path = path
        self.found = found
        self.known = known


class ShuttingDown(CrdtSessionsError):
    """The process is about to stop; come back in a moment."""

    def __init__(self) -> None:
        super().__init__("the server restarts")


class ConnectionClosed(CrdtSessionsError):
    """The server refused this peer for good; reconnecting would not help."""

    def __init__(self, *, code: int, reason: str) -> None:
        super().__init__(f"closed with {code}: {reason}")
        self.code = code
        self.reason = reason

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
    │   ├── PanickedUpdate        the native library panicked on it
    │   └── EarlyUpdate           it needs another one that has not arrived
    ├── TooLarge                  a frame, document or field over its limit
    ├── TooSlow                   a peer that does not read what it asked for
    ├── TooMany                   more connections or messages than allowed; come back later
    ├── Overloaded                the process has too much to do; come back later
    ├── NotAuthenticated          no token, or one that nobody knows
    │   └── TokenExpired          it was good; come back with a fresh one
    ├── AccessDenied              the principal may not do this
    │   └── ForeignWriter         the Yjs client id belongs to somebody else
    ├── SessionNotFound
    │   └── SessionDeleted        it existed; it will not come back by itself
    ├── SessionExists
    ├── SessionClosed             it takes no more writes
    ├── WrongGeneration           the client's history belongs to an earlier session of that name
    ├── RunNotClaimable           it is not queued, or not for this agent
    ├── RunsActive                agents write in the session; stop them first
    ├── LeaseLost                 the run was taken away from this agent, or has ended
    ├── WrongOffset               text that is not to be appended where the buffer ends
    ├── BadSessionId
    ├── BadTenant
    ├── BadParameter              a query parameter that cannot be read
    ├── BadValue                  a value that the document cannot hold
    ├── BadDocument               an import that is not a session document
    ├── NotFound                  a message, run or artifact that is not in the document
    ├── StorageError              the store failed; what was not acknowledged is not stored
    │   ├── DamagedLog            a stored row does not match its checksum, or cannot be applied
    │   ├── DamagedDatabase       SQLite finds the file damaged where it was asked to look
    │   ├── StoreUnavailable      it cannot write now: disk full, I/O error, locked, read-only; it is tried again
    │   ├── DatabaseInUse         another process has the database open
    │   └── NewerSchema           the database was written by a newer release
    ├── ShuttingDown              the process is about to stop; come back
    ├── RequestRefused            (client) the server refused a request
    ├── ConnectionClosed          (client) the server refused this peer for good
    └── RunStopped                (client) leaves an agent's answer: it is not to go on
        ├── RunCancelled          somebody pressed stop
        └── RunSuspended          people must decide something first, or another agent goes on

Errors carry their facts as attributes; the sentence is derived from them.
How they look to the outside stands in :mod:`crdt_sessions.wire.closing` (close codes) and in
``crdt_sessions_server.problems`` (HTTP).
"""

from __future__ import annotations


def _name(session: str) -> str:
    """Return a session's name without its tenant, which is the caller's own (``ids`` itself needs errors)."""
    return session.rpartition("/")[2]


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


class EarlyUpdate(UpdateError):
    """An update that needs another one, which has not arrived; nothing of it was taken.

    What a replica with the server's state vector lacks, as one update, is never early.
    """

    def __init__(self, *, size: int) -> None:
        super().__init__(size=size)
        self.args = ("an update needs another one that has not arrived: send all that the server lacks in one",)


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


class TooMany(CrdtSessionsError):
    """More of something than is allowed at a time; it works again with fewer."""

    def __init__(self, *, what: str, limit: float) -> None:
        super().__init__(f"more than {limit:g} {what}; come back later")
        self.what = what
        self.limit = limit


class Overloaded(CrdtSessionsError):
    """The process has too much to do to take on more."""

    def __init__(self, *, what: str, retry_after_s: int = 2) -> None:
        super().__init__(f"overloaded: {what}; come back in {retry_after_s} s")
        self.what = what
        self.retry_after_s = retry_after_s


class NotAuthenticated(CrdtSessionsError):
    """No token, or one that nobody knows."""

    def __init__(self, *, why: str = "a valid token is required") -> None:
        super().__init__(why)
        self.why = why


class TokenExpired(NotAuthenticated):
    """The token was good when the connection began; the client may come back with a fresh one."""

    def __init__(self) -> None:
        super().__init__(why="the token has expired; come back with a fresh one")


class AccessDenied(CrdtSessionsError):
    """The principal may not do this."""

    def __init__(self, *, what: str) -> None:
        super().__init__(f"not allowed: {what}")
        self.what = what


class ForeignWriter(AccessDenied):
    """An update holds something new by a Yjs client that belongs to another principal."""

    def __init__(self, *, client: int) -> None:
        super().__init__(what=f"the Yjs client {client} belongs to somebody else; begin with a new document")
        self.client = client


class _SessionError(CrdtSessionsError):
    sentence = ""

    def __init__(self, *, session: str) -> None:
        self.session = _name(session)
        super().__init__(self.sentence.format(session=self.session))


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
        self.session = _name(session)
        super().__init__(f"session {self.session!r} is generation {ours}, not {theirs}; discard the local copy")
        self.theirs = theirs
        self.ours = ours


class RunNotClaimable(CrdtSessionsError):
    """The run is not queued, not next, or for another agent."""

    def __init__(self, *, run: str, status: str) -> None:
        super().__init__(f"run {run!r} cannot be claimed: {status}")
        self.run = run
        self.status = status


class RunsActive(CrdtSessionsError):
    """Agents write in the session, and what is asked for would pull the ground from under them."""

    def __init__(self, *, runs: list[str]) -> None:
        super().__init__(f"runs are active: {', '.join(runs[:5])}; cancel them, or wait for their end")
        self.runs = runs


class LeaseLost(CrdtSessionsError):
    """The lease was lost or given back; what its holder writes is refused."""

    def __init__(self, *, run: str = "") -> None:
        super().__init__(f"the lease of run {run!r} has ended" if run else "no such lease")
        self.run = run


class WrongOffset(CrdtSessionsError):
    """The text is not to be appended where the buffer ends, and is not a repetition of what stands there."""

    def __init__(self, *, offset: int, length: int) -> None:
        super().__init__(f"offset {offset}, but the buffer has {length} characters; go on from there")
        self.offset = offset
        self.length = length


class BadSessionId(CrdtSessionsError):
    """A session id is 1 to 128 characters of A-Z a-z 0-9 . _ ~ : @ - and begins with a letter or digit."""

    def __init__(self, *, text: str) -> None:
        super().__init__(
            "a session id is 1 to 128 characters of A-Z a-z 0-9 . _ ~ : @ - "
            f"and begins with a letter or digit, not {text[:80]!r}"
        )
        self.text = text


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
        self.session = _name(session)
        super().__init__(f"session {self.session!r}, row {seq}: {why}")
        self.seq = seq
        self.why = why


class DamagedDatabase(StorageError):
    """SQLite finds the file damaged where it was asked to look. Other places of it may be sound."""


class StoreUnavailable(StorageError):
    """The store cannot write now: the disk is full, fails, is read-only, or another process holds a lock."""


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


class RequestRefused(CrdtSessionsError):
    """The server refused a request; *problem* is its problem document (RFC 9457)."""

    def __init__(self, *, status: int, problem: dict[str, object]) -> None:
        super().__init__(f"HTTP {status}: {problem.get('detail') or problem.get('title') or 'refused'}")
        self.status = status
        self.problem = problem


class RunStopped(CrdtSessionsError):
    """Leaves an agent's answer. It is not to be caught, except to tidy up; what was written stays."""

    def __init__(self, *, run: str, why: str) -> None:
        super().__init__(f"run {run!r}: {why}")
        self.run = run
        self.why = why


class RunCancelled(RunStopped):
    """Somebody pressed stop."""


class RunSuspended(RunStopped):
    """The run goes on later: people must decide something first, or another agent takes over."""

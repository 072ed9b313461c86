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
    │   ├── ForeignWriter         the Yjs client id belongs to somebody else
    │   └── NotAnApprover         others are asked about the tool call
    ├── SessionNotFound
    │   └── SessionDeleted        it existed; it will not come back by itself
    ├── SessionExists
    ├── SessionClosed             it takes no more writes
    ├── WrongGeneration           the client's history belongs to an earlier session of that name
    ├── WrongLineage              the client has a copy of another session of that name
    ├── RunNotClaimable           it is not queued, or not for this agent
    ├── AllowanceSpent            what runs may use in a day is used
    ├── AgentAway                 the agent is known but not connected; try again later
    ├── RunsActive                agents write in the session; stop them first
    ├── LeaseLost                 the run was taken away from this agent, or has ended
    ├── WrongOffset               text that is not to be appended where the buffer ends
    ├── BadSessionId
    ├── BadId                     an identifier that is too long, empty or has control characters
    ├── BadTenant
    ├── BadParameter              a query parameter that cannot be read
    ├── BadValue                  a value that the document cannot hold
    ├── EmptyMessage              a message that says nothing
    ├── BadDocument               an import that is not a session document
    ├── NotFound                  a message, run or artifact that is not in the document
    ├── NotAnAnswer               it does not fit what people are asked
    ├── AlreadyDecided            what people were asked is settled; the first decision counts
    ├── PieceSettled              a piece of a suggestion is settled; the first decision counts
    ├── NothingToDecide           nobody is asked about the tool call
    ├── CallNotGiven              a device brings the result of a tool call that is not its own
    ├── StorageError              the store failed; what was not acknowledged is not stored
    │   ├── SessionFailed         the service failed in the middle of something; the session is loaded anew
    │   ├── DamagedLog            a stored row does not match its checksum, or cannot be applied
    │   ├── DamagedDatabase       SQLite finds the file damaged where it was asked to look
    │   ├── StoreUnavailable      it cannot write now: disk full, I/O error, locked, read-only; it is tried again
    │   │   └── DatabaseGone      the file was removed or replaced while it was open
    │   ├── Fenced                another node counted this one as gone, and may own its sessions now
    │   ├── Regressed             the database lost what it had acknowledged
    │   ├── HeldElsewhere         another node serves the session
    │   ├── DatabaseInUse         another process has the database open
    │   ├── DatabaseHasOtherNames the file has several hard links
    │   ├── ForeignDatabase       the file is no database, or one of something else
    │   └── NewerSchema           the database was written by a newer release
    ├── StreamError               a durable stream that does not do what was asked of it
    │   ├── StreamNotFound
    │   ├── StreamGone            it was deleted, or its time came, and is kept for its forks only
    │   ├── StreamExists          there is one at that path, made otherwise
    │   ├── StreamEnded           it is closed and takes nothing more
    │   ├── StreamConflict        what was sent does not fit the stream as it is
    │   ├── StaleProducer         a later epoch of this producer has written
    │   ├── ProducerGap           an earlier batch of this producer is missing
    │   ├── OffsetExpired         what was read up to there was taken back; begin anew
    │   ├── StreamReadOnly        it shows something that is not written this way
    │   └── BadStreamRequest      it does not follow the protocol
    ├── NodeUnreachable           the node that serves the session does not answer; come back
    ├── NodeRefused               another node answers with an error what it was asked
    ├── ShuttingDown              the process is about to stop; come back
    ├── BadUrl                    (client) the address of no service
    ├── NoService                 (client) what answers there is not the service, or cannot be talked to
    ├── ServiceUnreachable        (client) nothing answers there at the moment
    ├── NoToken                   (client) the application's function for tokens failed
    ├── RequestRefused            (client) the server refused a request
    ├── ConnectionClosed          (client) the server refused this peer for good
    ├── BadHandler                (client) a function that cannot answer an agent's runs
    ├── NotAnswered               (client) the run that was to answer ended without completing, or nobody was asked
    ├── RunFailed                 (client) ends an agent's answer as failed, with a text for everybody
    └── RunStopped                (client) leaves an agent's answer: it is not to go on
        ├── RunCancelled          somebody pressed stop
        └── RunSuspended          people must decide something first, or another agent goes on

Errors carry their facts as attributes; the sentence is derived from them.
How they look to the outside stands in :mod:`crdt_sessions.wire.closing` (close codes) and in
``crdt_sessions_server.http.problems`` (HTTP).
"""

from __future__ import annotations

from urllib.parse import unquote


def _name(session: str) -> str:
    """Return a session's name without its tenant, which is the caller's own (``ids`` itself needs errors)."""
    return unquote(session.rpartition("/")[2])


def _listed(names: list[str]) -> str:
    """Return names for a sentence; of many the first ones."""
    return ", ".join(map(repr, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")


_NAMED = 20


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
    """Something of an update needs another one, which has not arrived. It was not taken; the rest of it was.

    What a replica with the server's state vector lacks, as one update, is never early.
    """

    def __init__(self, *, size: int) -> None:
        super().__init__(size=size)
        self.args = ("an update needs another one that has not arrived: send all that the server lacks in one",)


class TooLarge(CrdtSessionsError):
    """Something is over its limit."""

    def __init__(self, *, what: str, size: int, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"{what} of {size} exceeds the limit of {limit} {unit}")
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


class AllowanceSpent(CrdtSessionsError):
    """What runs may use in a day is used; no more begin until the next day (UTC). Those under way go on.

    Args:
        whose: allowance it is.
        spent: what was used of it.
        limit: how much it is.
        unit: of both: tokens, or a currency.
        anew: when the next day begins, as ISO 8601 has it.
        retry_after_s: how long that is from now.
    """

    def __init__(self, *, whose: str, spent: float, limit: float, unit: str, anew: str, retry_after_s: int) -> None:
        super().__init__(
            f"the runs of {whose} have used {spent:,g} {unit} today, and may use {limit:,g} {unit} a day;"
            f" it begins anew at {anew}"
        )
        self.spent = spent
        self.limit = limit
        self.unit = unit
        self.anew = anew
        self.retry_after_s = retry_after_s


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


class NotAnApprover(AccessDenied):
    """The question about a tool call is for others.

    Args:
        call: the tool call.
        principal: who wanted to decide.
        approvers: the principals that may decide.
        advice: what to do about it, if there is something.
    """

    def __init__(self, *, call: str, principal: str, approvers: list[str], advice: str = "") -> None:
        asked, more = _listed(approvers) or "nobody", f"; {advice}" if advice else ""
        super().__init__(
            what=f"{principal!r} does not decide about the tool call {call!r}; that is for {asked}{more}"
        )
        self.call = call
        self.principal = principal
        self.approvers = approvers


class NotAnAnswer(CrdtSessionsError):
    """What somebody says does not fit what is asked.

    Args:
        call: the tool call.
        why: what is wrong with it.
    """

    def __init__(self, *, call: str, why: str) -> None:
        super().__init__(f"that is no answer to what the tool call {call!r} asks: {why}")
        self.call = call
        self.why = why


class PieceSettled(CrdtSessionsError):
    """Somebody has decided otherwise about a piece of a suggestion before. Who comes later has no say.

    Args:
        suggestion: the suggestion.
        piece: which piece, from 0.
        accepted: what was settled.
        by: the principal that decided.
    """

    def __init__(self, *, suggestion: str, piece: int, accepted: bool, by: str) -> None:
        super().__init__(f"piece {piece} was {'accepted' if accepted else 'rejected'} by {by!r} already")
        self.suggestion = suggestion
        self.piece = piece
        self.accepted = accepted
        self.by = by


class AlreadyDecided(CrdtSessionsError):
    """What people were asked about a tool call is settled. Who comes later has no say.

    Args:
        call: the tool call.
        approved: what was settled.
        by: the principal that decided; ``deadline`` if nobody decided in time, empty if the question was closed.
        reason: why, if that is known.
    """

    def __init__(self, *, call: str, approved: bool, by: str, reason: str | None = None) -> None:
        if by == "deadline":
            settled = "counts as denied: nobody decided in time"
        elif by:
            settled = f"was {'approved' if approved else 'denied'} by {by!r} already"
        else:
            settled = f"is not asked about any more: {reason or 'the run has ended'}"
        super().__init__(f"the tool call {call!r} {settled}")
        self.call = call
        self.approved = approved
        self.by = by


class NothingToDecide(CrdtSessionsError):
    """Nobody is asked about a tool call, or its run has ended.

    Args:
        call: the tool call.
        why: what is the matter.
    """

    def __init__(self, *, call: str, why: str) -> None:
        super().__init__(f"there is nothing to decide about the tool call {call!r}: {why}")
        self.call = call


class CallNotGiven(CrdtSessionsError):
    """A device brings the result of a tool call that is not its own.

    Args:
        call: the tool call.
        device: the device.
        why: what is the matter.
    """

    def __init__(self, *, call: str, device: str, why: str) -> None:
        super().__init__(f"the result of the tool call {call!r} by the device {device!r} does not count: {why}")
        self.call = call
        self.device = device


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


class WrongLineage(CrdtSessionsError):
    """The client's history belongs to another session of that name; merging would mix two conversations."""

    def __init__(self, *, session: str, theirs: str, ours: str) -> None:
        self.session = _name(session)
        super().__init__("this copy is of another session of that name; discard it and join anew")
        self.theirs = theirs
        self.ours = ours


class RunNotClaimable(CrdtSessionsError):
    """The run is not queued, not next, or for another agent."""

    def __init__(self, *, run: str, status: str) -> None:
        super().__init__(f"run {run!r} cannot be claimed: {status}")
        self.run = run
        self.status = status


class AgentAway(CrdtSessionsError):
    """Nobody takes a run in time, since its agent is not there. What was asked waits for it.

    Args:
        agent: the agent it is for; ``*`` for any.
        run: what was asked.
        waited_s: for how long somebody was waited for.
        retry_after_s: when to look again.
    """

    def __init__(self, *, agent: str, run: str, waited_s: float, retry_after_s: int = 5) -> None:
        who = "no agent is there" if agent == "*" else f"the agent {agent!r} is not there"
        super().__init__(
            f"{who}, and none came within {waited_s:g} s; what was asked is kept, and answered when one comes:"
            " repeat the request then"
        )
        self.agent = agent
        self.run = run
        self.retry_after_s = retry_after_s


class RunsActive(CrdtSessionsError):
    """Agents are writing in the session, and this change would break their work."""

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
        there = "" if known is None else f"; there {'are' if known else 'is none'} {_listed(known)}".rstrip()
        super().__init__(f"there is no {what} {id!r}{there}")
        self.what = what
        self.id = id
        self.known = known


class StorageError(CrdtSessionsError):
    """The store failed. Nothing of what was to be written is stored, unless it is a :class:`StoreUnavailable`."""


class SessionFailed(StorageError):
    """The service failed half-way through a change, so it reloads the session from disk. Try again.

    What it failed on stands in the service's log with the same *reference*, and is nobody else's business.
    """

    def __init__(self, *, reference: str) -> None:
        super().__init__(f"the session failed and is loaded anew; try again (reference {reference})")
        self.reference = reference


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
    """The store cannot write now: the disk is full, fails, is read-only, or another process holds a lock.

    Where a database was reached over a network, what was being written may be stored all the same: read it again
    before you write anything else.
    """


class DatabaseGone(StoreUnavailable):
    """A file of the database was removed or replaced while it was open: what would be written now is lost."""

    def __init__(self, *, path: str) -> None:
        super().__init__(
            f"{path} was removed or replaced while the service has it open: put that file back, or stop the service"
            " and restore a copy"
        )
        self.path = path


class Fenced(StorageError):
    """Other nodes counted this one as gone, and it commits nothing any more: they may own its sessions by now.

    Args:
        node: the id it had; None if that is not known.
    """

    def __init__(self, *, node: int | None = None) -> None:
        super().__init__("this node was counted as gone, and others may serve its sessions now; come back")
        self.node = node


class Regressed(StorageError):
    """The database has less of a session than it had acknowledged, as after a failover that was not synchronous.

    Args:
        session: whose rows they are.
        acknowledged: the last row that was acknowledged.
        found: the last row there is.
    """

    def __init__(self, *, session: str, acknowledged: int, found: int) -> None:
        self.session = _name(session)
        super().__init__(
            f"session {self.session!r} ends with row {found} in the database, which had acknowledged row"
            f" {acknowledged}; it goes on from there, and peers bring back what they have"
        )
        self.acknowledged = acknowledged
        self.found = found


class HeldElsewhere(StorageError):
    """Another node serves the session.

    Args:
        session: which.
        node: the other one.
    """

    def __init__(self, *, session: str, node: int) -> None:
        self.session = _name(session)
        super().__init__(f"session {self.session!r} is served by another node; come back")
        self.node = node


class NodeUnreachable(CrdtSessionsError):
    """Another node does not answer, or another process has its address.

    Args:
        node: which.
        why: what happened.
        refused: whether nobody listens at its address, or somebody else.
    """

    def __init__(self, *, node: int, why: str, refused: bool = False) -> None:
        super().__init__(f"the node that serves this does not answer ({why}); come back")
        self.node = node
        self.why = why
        self.refused = refused


class NodeRefused(CrdtSessionsError):
    """Another node answers with an error what it was asked.

    Args:
        node: which.
        error: what its error is called here.
        detail: what it says.
    """

    def __init__(self, *, node: int, error: str, detail: str) -> None:
        super().__init__(f"another node answered: {detail}")
        self.node = node
        self.error = error
        self.detail = detail


class DatabaseInUse(StorageError):
    """Another process has the database open; one process owns a database."""

    def __init__(self, *, path: str) -> None:
        super().__init__(
            f"{path} is in use by another process; one process owns a SQLite file: stop the other one, or keep the"
            " sessions in PostgreSQL, which several may share (--database postgresql://...)"
        )
        self.path = path


class DatabaseHasOtherNames(StorageError):
    """The database file has several hard links; by another name a second process could open it unnoticed."""

    def __init__(self, *, path: str, links: int) -> None:
        super().__init__(
            f"{path} has {links} names (hard links), and by each of them other files beside it: remove the others, or"
            " use a copy"
        )
        self.path = path
        self.links = links


class ForeignDatabase(StorageError):
    """The file is no database, or one of something else; it is left as it is."""

    def __init__(self, *, path: str, why: str) -> None:
        super().__init__(f"{path} holds no sessions: {why}; it is left as it is, name another file")
        self.path = path
        self.why = why


class NewerSchema(StorageError):
    """The database was written by a newer release; this one does not touch it."""

    def __init__(self, *, path: str, found: int, known: int) -> None:
        super().__init__(f"{path} has schema version {found}, this release knows {known}: upgrade crdt-sessions")
        self.path = path
        self.found = found
        self.known = known


class StreamError(CrdtSessionsError):
    """A durable stream that does not do what was asked of it."""


class StreamNotFound(StreamError):
    """There is no such stream, or its time has come."""

    def __init__(self, *, path: str) -> None:
        super().__init__(f"there is no stream {path!r}")
        self.path = path


class StreamGone(StreamError):
    """The stream was deleted, or its time came; what it held is kept for its forks only."""

    def __init__(self, *, path: str) -> None:
        super().__init__(f"the stream {path!r} was deleted, and only its forks are left")
        self.path = path


class StreamExists(StreamError):
    """There is a stream at that path, and it was made otherwise."""

    def __init__(self, *, path: str, differs: str) -> None:
        super().__init__(f"the stream {path!r} exists already, with another {differs}")
        self.path = path
        self.differs = differs


class StreamEnded(StreamError):
    """The stream is closed. It can be read, and takes nothing more."""

    def __init__(self, *, path: str, offset: str) -> None:
        super().__init__(f"the stream {path!r} is closed")
        self.path = path
        self.offset = offset


class StreamConflict(StreamError):
    """What was sent does not fit the stream as it is."""

    def __init__(self, *, path: str, why: str) -> None:
        super().__init__(f"the stream {path!r} {why}")
        self.path = path


class StaleProducer(StreamError):
    """A producer of that id has written with a later epoch: whoever asks has been replaced."""

    def __init__(self, *, producer: str, epoch: int) -> None:
        super().__init__(f"the producer {producer!r} has gone on to epoch {epoch}")
        self.producer = producer
        self.epoch = epoch


class ProducerGap(StreamError):
    """A batch of this producer came before an earlier one."""

    def __init__(self, *, producer: str, expected: int, received: int) -> None:
        super().__init__(f"the producer {producer!r} sent batch {received}, but batch {expected} is the next one")
        self.producer = producer
        self.expected = expected
        self.received = received


class OffsetExpired(StreamError):
    """What was read of a stream up to there was taken back since, so nothing follows it."""

    def __init__(self, *, path: str) -> None:
        super().__init__(f"what was read of the stream {path!r} was taken back since")
        self.path = path


class StreamReadOnly(StreamError):
    """The stream shows something of a session that is not written this way."""

    def __init__(self, *, path: str) -> None:
        super().__init__(f"the stream {path!r} shows what is in a session, and can only be read")
        self.path = path


class BadStreamRequest(StreamError):
    """A request that does not follow the protocol of durable streams."""

    def __init__(self, *, why: str) -> None:
        super().__init__(why)


class ShuttingDown(CrdtSessionsError):
    """The process is about to stop; come back in a moment."""

    def __init__(self) -> None:
        super().__init__("the server restarts")


class BadUrl(CrdtSessionsError, ValueError):
    """An address that is not that of a service.

    Args:
        url: the address.
        why: what is wrong with it.
        instead: what may have been meant.
    """

    def __init__(self, *, url: str, why: str, instead: str = "http://127.0.0.1:8000") -> None:
        super().__init__(f"{url!r} is not the URL of a service, such as {instead}: {why}")
        self.url = url
        self.why = why
        self.instead = instead


class NoService(CrdtSessionsError):
    """What answers at an address is not the service, or cannot be talked to. To try again is of no use.

    Args:
        url: the address.
        why: what came instead, and what to do next.
    """

    def __init__(self, *, url: str, why: str) -> None:
        super().__init__(f"no crdt-sessions service can be talked to at {url}: {why}")
        self.url = url
        self.why = why


class ServiceUnreachable(CrdtSessionsError):
    """Nothing answers at the address, or only something that stands before the service. It may, later.

    Args:
        url: the address.
        why: what happened.
    """

    def __init__(self, *, url: str, why: str) -> None:
        super().__init__(f"no connection to {url}: {why}")
        self.url = url
        self.why = why


class NoToken(CrdtSessionsError):
    """The application's function that gets a fresh token failed; its error is the cause of this one.

    Args:
        error: what it raised.
    """

    def __init__(self, *, error: Exception) -> None:
        super().__init__(f"the function for tokens failed: {error!r}")
        self.error = error


class ConnectionClosed(CrdtSessionsError):
    """The server refused this peer for good; reconnecting would not help."""

    def __init__(self, *, code: int, reason: str) -> None:
        super().__init__(f"closed with {code}: " + _with(reason or "refused", _REMEDIES.get(code)))
        self.code = code
        self.reason = reason


_REMEDIES = {
    4401: "Give token= one that the service accepts, or a function that fetches a fresh one for each connection",
    4404: "Make it with POST /v1/sessions, or join another one",
}
"""What to do next, where the reason does not say it."""


def _with(said: str, remedy: str | None) -> str:
    return f"{said.rstrip('.')}. {remedy}" if remedy else said


class RequestRefused(CrdtSessionsError):
    """The server refused a request; *problem* is its problem document (RFC 9457)."""

    def __init__(self, *, status: int, problem: dict[str, object]) -> None:
        said = str(problem.get("detail") or problem.get("title") or "refused")
        super().__init__(f"HTTP {status}: " + _with(said, _REMEDIES.get(4401) if status == 401 else None))
        self.status = status
        self.problem = problem


class BadHandler(CrdtSessionsError, TypeError):
    """A function that cannot answer an agent's runs.

    Args:
        name: of the function.
        why: what is wrong with it, and what to do instead.
    """

    def __init__(self, *, name: str, why: str) -> None:
        super().__init__(f"{name} cannot answer runs: {why}")
        self.name = name
        self.why = why


class NotAnswered(CrdtSessionsError):
    """There is no complete answer, and none comes by itself. What was written stays, in the message of the run.

    Args:
        run: the run that was to answer.
        status: how it ended; None if nobody was asked for it.
        why: for people, from the run's outcome.
        code: of the error it failed with, for programs.
    """

    def __init__(self, *, run: str, status: str | None, why: str, code: str | None = None) -> None:
        super().__init__(f"run {run!r} {status}: {why}" if status is not None else why)
        self.run = run
        self.status = status
        self.why = why
        self.code = code


class RunStopped(CrdtSessionsError):
    """Leaves an agent's answer. It is not to be caught, except to tidy up; what was written stays."""

    def __init__(self, *, run: str, why: str) -> None:
        super().__init__(f"run {run!r}: {why}")
        self.run = run
        self.why = why


class RunFailed(CrdtSessionsError):
    """Ends an agent's answer as failed, with a text that everybody in the session may read.

    Of any other exception people are shown a reference only; its text stands in the agent's log.

    Args:
        message: for people.
        code: for programs.
    """

    def __init__(self, message: str, *, code: str = "failed") -> None:
        super().__init__(message)
        self.code = code


class ToolRefused(CrdtSessionsError):
    """Raised by a tool that a peer offers: it is not going to be called, for a reason that the agent is told.

    Args:
        why: for the agent, and for everybody in the session.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)


class RunCancelled(RunStopped):
    """Somebody pressed stop."""


class RunSuspended(RunStopped):
    """The run goes on later: people must decide something first, or another agent takes over."""

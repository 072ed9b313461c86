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
    │   ├── SubscriptionError     a subscription to streams that does not do what was asked of it
    │   │   ├── SubscriptionNotFound
    │   │   ├── SubscriptionExists    there is one of that name, made otherwise
    │   │   ├── WebhookRefused        the service does not post to that URL
    │   │   ├── BadWakeToken          no worker was given that token
    │   │   ├── WakeFenced            the worker's turn is over
    │   │   ├── AlreadyClaimed        it is another worker's turn
    │   │   ├── NoPendingWork         nothing is new in its streams
    │   │   └── BadAck                a worker cannot have come there
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

from crdt_sessions.errors.access import AccessDenied, ForeignWriter, NotAuthenticated, TokenExpired
from crdt_sessions.errors.asks import (
    AlreadyDecided,
    CallNotGiven,
    NotAnAnswer,
    NotAnApprover,
    NothingToDecide,
    PieceSettled,
)
from crdt_sessions.errors.base import CrdtSessionsError
from crdt_sessions.errors.client import (
    BadHandler,
    BadUrl,
    ConnectionClosed,
    NoService,
    NotAnswered,
    NoToken,
    RequestRefused,
    RunCancelled,
    RunFailed,
    RunStopped,
    RunSuspended,
    ServiceUnreachable,
    ToolRefused,
)
from crdt_sessions.errors.limits import AllowanceSpent, Overloaded, TooLarge, TooMany, TooSlow
from crdt_sessions.errors.nodes import Fenced, HeldElsewhere, NodeRefused, NodeUnreachable, Regressed
from crdt_sessions.errors.runs import AgentAway, LeaseLost, RunNotClaimable, WrongOffset
from crdt_sessions.errors.sessions import (
    RunsActive,
    SessionClosed,
    SessionDeleted,
    SessionExists,
    SessionNotFound,
    ShuttingDown,
    WrongGeneration,
    WrongLineage,
)
from crdt_sessions.errors.storage import (
    DamagedDatabase,
    DamagedLog,
    DatabaseGone,
    DatabaseHasOtherNames,
    DatabaseInUse,
    ForeignDatabase,
    NewerSchema,
    SessionFailed,
    StorageError,
    StoreUnavailable,
)
from crdt_sessions.errors.streams import (
    BadStreamRequest,
    OffsetExpired,
    ProducerGap,
    StaleProducer,
    StreamConflict,
    StreamEnded,
    StreamError,
    StreamExists,
    StreamGone,
    StreamNotFound,
    StreamReadOnly,
)
from crdt_sessions.errors.subscriptions import (
    AlreadyClaimed,
    BadAck,
    BadWakeToken,
    NoPendingWork,
    SubscriptionError,
    SubscriptionExists,
    SubscriptionNotFound,
    WakeFenced,
    WebhookRefused,
)
from crdt_sessions.errors.updates import EarlyUpdate, MalformedUpdate, PanickedUpdate, UpdateError
from crdt_sessions.errors.values import (
    BadDocument,
    BadId,
    BadParameter,
    BadSessionId,
    BadTenant,
    BadValue,
    EmptyMessage,
    NotFound,
)
from crdt_sessions.errors.wire import BadText, TruncatedFrame, UnknownFrame, VarintTooLong, WireError

__all__ = [
    "AccessDenied",
    "AgentAway",
    "AllowanceSpent",
    "AlreadyClaimed",
    "AlreadyDecided",
    "BadAck",
    "BadDocument",
    "BadHandler",
    "BadId",
    "BadParameter",
    "BadSessionId",
    "BadStreamRequest",
    "BadTenant",
    "BadText",
    "BadUrl",
    "BadValue",
    "BadWakeToken",
    "CallNotGiven",
    "ConnectionClosed",
    "CrdtSessionsError",
    "DamagedDatabase",
    "DamagedLog",
    "DatabaseGone",
    "DatabaseHasOtherNames",
    "DatabaseInUse",
    "EarlyUpdate",
    "EmptyMessage",
    "Fenced",
    "ForeignDatabase",
    "ForeignWriter",
    "HeldElsewhere",
    "LeaseLost",
    "MalformedUpdate",
    "NewerSchema",
    "NoPendingWork",
    "NoService",
    "NoToken",
    "NodeRefused",
    "NodeUnreachable",
    "NotAnAnswer",
    "NotAnApprover",
    "NotAnswered",
    "NotAuthenticated",
    "NotFound",
    "NothingToDecide",
    "OffsetExpired",
    "Overloaded",
    "PanickedUpdate",
    "PieceSettled",
    "ProducerGap",
    "Regressed",
    "RequestRefused",
    "RunCancelled",
    "RunFailed",
    "RunNotClaimable",
    "RunStopped",
    "RunSuspended",
    "RunsActive",
    "ServiceUnreachable",
    "SessionClosed",
    "SessionDeleted",
    "SessionExists",
    "SessionFailed",
    "SessionNotFound",
    "ShuttingDown",
    "StaleProducer",
    "StorageError",
    "StoreUnavailable",
    "StreamConflict",
    "StreamEnded",
    "StreamError",
    "StreamExists",
    "StreamGone",
    "StreamNotFound",
    "StreamReadOnly",
    "SubscriptionError",
    "SubscriptionExists",
    "SubscriptionNotFound",
    "TokenExpired",
    "TooLarge",
    "TooMany",
    "TooSlow",
    "ToolRefused",
    "TruncatedFrame",
    "UnknownFrame",
    "UpdateError",
    "VarintTooLong",
    "WakeFenced",
    "WebhookRefused",
    "WireError",
    "WrongGeneration",
    "WrongLineage",
    "WrongOffset",
]

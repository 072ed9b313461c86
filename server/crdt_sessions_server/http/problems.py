"""Errors as HTTP: one table of the types of problems there are. ``problem_documents`` answers with them.

``docs/reference/problems.md`` and the OpenAPI document are made of this table. A type's slug is stable: clients tell
problems apart by it, and people read the title and the detail, which says what happened and what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass

from crdt_sessions import errors

MEDIA_TYPE = "application/problem+json"
URN = "urn:crdt-sessions:problem:"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of problem.

    Args:
        slug: names it, for ever.
        status: the HTTP status.
        title: the same for all occurrences.
        remedy: what to do next, in a sentence.
    """

    slug: str
    status: int
    title: str
    remedy: str

    @property
    def urn(self) -> str:
        """The member ``type`` of its documents."""
        return URN + self.slug


OF_ERRORS: dict[type[errors.CrdtSessionsError], ProblemType] = {
    errors.WireError: ProblemType(
        "wire-error", 400, "Not frames of the sync protocol",
        "Send whole SyncStep1, SyncStep2 and Update messages of y-protocols, one after the other.",
    ),
    errors.UpdateError: ProblemType(
        "update-error", 400, "Not a Yjs update",
        "Send what Y.encodeStateAsUpdate returns, byte for byte; nothing of this was stored.",
    ),
    errors.EarlyUpdate: ProblemType(
        "early-update", 409, "An update that needs another one first",
        "Ask for the server's state vector, and send all that the server lacks as one update.",
    ),
    errors.BadDocument: ProblemType(
        "bad-document", 422, "Not a session document",
        "Send what GET …/export returned, in the format that Content-Type names.",
    ),
    errors.EmptyMessage: ProblemType(
        "empty-message", 422, "A message that says nothing",
        "Say something in text, or give parts that hold something.",
    ),
    errors.BadValue: ProblemType(
        "bad-value", 422, "A value that cannot be kept",
        "Change the value so that JSON and JavaScript can hold it, and send it again.",
    ),
    errors.BadSessionId: ProblemType(
        "bad-session-id", 422, "Not a session's name",
        "Choose another name, and percent-encode it in a path.",
    ),
    errors.BadId: ProblemType(
        "bad-id", 422, "Not an id",
        "Choose a shorter id without control characters, or leave it out to have one made.",
    ),
    errors.BadTenant: ProblemType(
        "bad-tenant", 422, "Not a tenant's name",
        "Have the token's issuer name a tenant of that form.",
    ),
    errors.BadParameter: ProblemType(
        "bad-parameter", 422, "A parameter that cannot be read",
        "Look at the route in /docs for what the parameter may be.",
    ),
    errors.NotAuthenticated: ProblemType(
        "not-authenticated", 401, "Not signed in",
        "Send a good token, as Authorization: Bearer … or as the query parameter token.",
    ),
    errors.AccessDenied: ProblemType(
        "access-denied", 403, "Not allowed",
        "Ask for a role or a token that may do this; GET /v1/me tells what this one may.",
    ),
    errors.ForeignWriter: ProblemType(
        "foreign-writer", 403, "The Yjs client belongs to somebody else",
        "Begin with a new Y.Doc, whose client id is its own.",
    ),
    errors.SessionNotFound: ProblemType(
        "session-not-found", 404, "No such session",
        "Check the name, which is percent-encoded in a path, or make the session with POST /v1/sessions.",
    ),
    errors.SessionDeleted: ProblemType(
        "session-deleted", 410, "The session was deleted",
        "Discard local copies of it; POST /v1/sessions with that name begins a new one.",
    ),
    errors.NotFound: ProblemType(
        "not-found", 404, "Nothing of that id",
        "Check the id; the lists of the session say which there are.",
    ),
    errors.SessionExists: ProblemType(
        "session-exists", 409, "The session exists already",
        "Use it as it is, or choose another name.",
    ),
    errors.SessionClosed: ProblemType(
        "session-closed", 409, "The session is closed",
        'Open it again with PATCH /v1/sessions/<name> and {"status": "active"}, which takes the permission manage.',
    ),
    errors.WrongGeneration: ProblemType(
        "wrong-generation", 409, "A copy of an earlier session of that name",
        "Discard the local copy, and sync anew.",
    ),
    errors.WrongLineage: ProblemType(
        "wrong-lineage", 409, "A copy of another session of that name",
        "Discard the local copy, and sync anew.",
    ),
    errors.RunNotClaimable: ProblemType(
        "run-not-claimable", 409, "The run is not to be had",
        "Claim another one: POST /v1/runs/claim waits for the next.",
    ),
    errors.NotAnApprover: ProblemType(
        "not-an-approver",
        403,
        "Others are asked to decide",
        "Have one of those in the member approvers decide.",
    ),
    errors.NotAnAnswer: ProblemType(
        "not-an-answer",
        422,
        "It does not fit what is asked",
        "Look at approvalRequest of the tool call: its kind, and the schema that the value must fit.",
    ),
    errors.PieceSettled: ProblemType(
        "piece-settled",
        409,
        "It is decided already",
        "Show what was decided about the piece; it holds for everybody.",
    ),
    errors.AlreadyDecided: ProblemType(
        "already-decided",
        409,
        "It is decided already",
        "Show the decision; it holds for everybody.",
    ),
    errors.NothingToDecide: ProblemType(
        "nothing-to-decide",
        409,
        "Nobody is asked",
        "Look at the run: its member pending names the calls that wait for a decision.",
    ),
    errors.CallNotGiven: ProblemType(
        "call-not-given",
        409,
        "The call is not this device's",
        "Offer the device again; the member taken of the answer says which device has the call.",
    ),
    errors.AgentAway: ProblemType(
        "agent-away", 503, "The agent is not there",
        "Start the agent, or ask one that GET /v1/agents lists; the question is kept and answered when it is back.",
    ),
    errors.RunsActive: ProblemType(
        "runs-active", 409, "Agents are writing",
        "Cancel the runs or wait for their end, then try again.",
    ),
    errors.LeaseLost: ProblemType(
        "lease-lost", 409, "The run is no longer yours",
        "Stop writing, and claim another run; the header Lease-Token carries the token of a claim.",
    ),
    errors.WrongOffset: ProblemType(
        "wrong-offset", 409, "Text that does not follow the existing text",
        "Append again from the offset in the member length.",
    ),
    errors.TooLarge: ProblemType(
        "too-large", 413, "Too large",
        "Send less at once; docs/reference/limits.md says how much is taken.",
    ),
    errors.TooSlow: ProblemType(
        "too-slow", 503, "The client was too slow",
        "Try again, and read what comes without a pause.",
    ),
    errors.TooMany: ProblemType(
        "too-many", 429, "Too many requests or connections",
        "Wait as long as Retry-After says, then try again.",
    ),
    errors.AllowanceSpent: ProblemType(
        "allowance-spent", 429, "The day's allowance is used",
        "Ask again when it begins anew, as Retry-After says; the operator sets how much it is.",
    ),
    errors.Overloaded: ProblemType(
        "overloaded", 503, "The service has too much to do",
        "Wait as long as Retry-After says, then try again.",
    ),
    errors.StorageError: ProblemType(
        "storage-error", 503, "The store failed",
        "What was sent is not stored. Try again; if it goes on, the operator finds the reason in the service's log.",
    ),
    errors.SessionFailed: ProblemType(
        "session-failed", 503, "The session failed and is loaded anew",
        "Wait as long as Retry-After says, then try again; the operator finds the reference in the service's log.",
    ),
    errors.DamagedLog: ProblemType(
        "damaged-log", 503, "The session's data are damaged",
        "The operator runs crdt-sessions doctor; docs/how-to/damaged-database.md says how to go on.",
    ),
    errors.DamagedDatabase: ProblemType(
        "damaged-database", 503, "The database is damaged",
        "The operator runs crdt-sessions doctor; docs/how-to/damaged-database.md says how to go on.",
    ),
    errors.StoreUnavailable: ProblemType(
        "store-unavailable", 503, "Nothing can be stored now",
        "What was sent is not stored. Try again later; the operator looks at the disk and at /readyz.",
    ),
    errors.StreamNotFound: ProblemType(
        "stream-not-found", 404, "No such stream",
        "Check the path, or make the stream with PUT.",
    ),
    errors.StreamGone: ProblemType(
        "stream-gone", 410, "The stream was deleted",
        "Read one of its forks, or make a stream at another path.",
    ),
    errors.StreamExists: ProblemType(
        "stream-exists", 409, "The stream exists already",
        "Use it as it is, or make one at another path; HEAD tells how it was made.",
    ),
    errors.StreamEnded: ProblemType(
        "stream-ended", 409, "The stream is closed",
        "Read it to its end, and write to another one.",
    ),
    errors.StreamConflict: ProblemType(
        "stream-conflict", 409, "It does not fit the stream",
        "Look at the stream with HEAD, and send what fits it.",
    ),
    errors.StaleProducer: ProblemType(
        "stale-producer", 403, "A later producer of that id has written",
        "Stop writing; or begin anew with a higher Producer-Epoch and Producer-Seq 0.",
    ),
    errors.ProducerGap: ProblemType(
        "producer-gap", 409, "An earlier batch is missing",
        "Send the batch that Producer-Expected-Seq names, then this one again.",
    ),
    errors.OffsetExpired: ProblemType(
        "offset-expired", 410, "Nothing follows there any more",
        "Forget what was read, and begin with the offset -1.",
    ),
    errors.StreamReadOnly: ProblemType(
        "stream-read-only", 405, "A stream that can only be read",
        "Write to the session: as a Yjs peer, or with the routes under /v1/sessions.",
    ),
    errors.SubscriptionNotFound: ProblemType(
        "subscription-not-found", 404, "No such subscription",
        "Check its name, or make it with PUT.",
    ),
    errors.SubscriptionExists: ProblemType(
        "subscription-exists", 409, "The subscription exists already",
        "Use it as it is, or delete it and make it anew; GET tells what it asks for.",
    ),
    errors.WebhookRefused: ProblemType(
        "webhook-refused", 400, "Webhooks do not go there",
        "Give the https URL of a host that everybody can reach; --webhooks-to-private allows others.",
    ),
    errors.BadWakeToken: ProblemType(
        "bad-wake-token", 401, "Not a worker's token",
        "Send the callback_token of the webhook, or the token of the claim, as Authorization: Bearer.",
    ),
    errors.WakeFenced: ProblemType(
        "wake-fenced", 409, "The worker's turn is over",
        "Stop; what you did is not noted. Wait for the next wake, and go on from its offsets.",
    ),
    errors.AlreadyClaimed: ProblemType(
        "already-claimed", 409, "Another worker has the turn",
        "Wait for the next line in the wake stream.",
    ),
    errors.NoPendingWork: ProblemType(
        "no-pending-work", 409, "Nothing is new",
        "Wait for the next line in the wake stream.",
    ),
    errors.BadAck: ProblemType(
        "bad-ack", 409, "A worker cannot have come there",
        "Ack an offset that a read of that stream gave you, not before the last one you acked.",
    ),
    errors.SubscriptionError: ProblemType(
        "subscription-error", 409, "The subscription does not take that",
        "Look at it with GET.",
    ),
    errors.BadStreamRequest: ProblemType(
        "bad-stream-request", 400, "Not a request of the Durable Streams protocol",
        "Mend the headers, the query or the body; docs/how-to/durable-streams.md shows how they are meant.",
    ),
    errors.NodeUnreachable: ProblemType(
        "node-unreachable", 503, "The node that serves this does not answer",
        "Wait as long as Retry-After says, then try again: another node takes over from one that is gone.",
    ),
    errors.NodeRefused: ProblemType(
        "node-refused", 502, "Another node answered with an error",
        "Look at the detail, and at that node's log.",
    ),
    errors.ShuttingDown: ProblemType(
        "shutting-down", 503, "The service restarts",
        "Wait as long as Retry-After says, then try again.",
    ),
}  # fmt: skip
"""Error to the type of its problem; a subclass without an entry of its own takes its parent's."""

NO_SUCH_ROUTE = ProblemType(
    "no-such-route", 404, "No such route",
    "Look at /docs for the routes there are, and percent-encode the ids in a path.",
)  # fmt: skip
METHOD_NOT_ALLOWED = ProblemType(
    "method-not-allowed", 405, "Not a method of this route", "Use one of the methods in the header Allow."
)
UPGRADE_REQUIRED = ProblemType(
    "upgrade-required", 426, "A WebSocket only",
    "Connect with a WebSocket client, ws:// or wss://; over HTTP there is POST /v1/sessions/<name>/sync.",
)  # fmt: skip
NOT_INSTALLED = ProblemType(
    "not-installed", 501, "A part of the service that is not installed",
    "Install it where the service runs, and start the service again.",
)  # fmt: skip
UNSUPPORTED_MEDIA_TYPE = ProblemType(
    "unsupported-media-type", 415, "A body of the wrong content type",
    "Send the body with a Content-Type that this route takes.",
)  # fmt: skip
PRECONDITION_FAILED = ProblemType(
    "precondition-failed", 412, "It has changed meanwhile",
    "Read it anew, and send the change again with the ETag that it has then.",
)  # fmt: skip
PATCH_FAILED = ProblemType(
    "patch-failed", 409, "A patch that does not fit",
    "Read it anew, and make the patch from how it is now; nothing of this one was applied.",
)  # fmt: skip
MALFORMED_JSON = ProblemType("malformed-json", 400, "The body is not JSON", "Send JSON as RFC 8259 has it, in UTF-8.")
INVALID_INPUT = ProblemType(
    "invalid-input", 422, "The input does not fit the route",
    "Mend the fields in the member errors; /docs says what the route takes.",
)  # fmt: skip
REQUEST_TIMEOUT = ProblemType(
    "request-timeout", 408, "The body did not come in time", "Send the request again, at once and whole."
)
BAD_REQUEST = ProblemType(
    "bad-request", 400, "Not a request that can be read", "Look at the request's line, headers and length."
)
INTERNAL_ERROR = ProblemType(
    "internal-error", 500, "The service failed",
    "Try again; if it goes on, give the reference to the operator, who finds it in the service's log.",
)  # fmt: skip
OF_STATUS = {
    each.status: each
    for each in (
        BAD_REQUEST, NO_SUCH_ROUTE, METHOD_NOT_ALLOWED, REQUEST_TIMEOUT, OF_ERRORS[errors.TooLarge],
        UNSUPPORTED_MEDIA_TYPE, INVALID_INPUT, UPGRADE_REQUIRED, INTERNAL_ERROR,
    )
}  # fmt: skip
"""What is said where a framework refuses with nothing but an HTTP status."""

TYPES: tuple[ProblemType, ...] = tuple(
    dict.fromkeys(
        (*OF_ERRORS.values(), MALFORMED_JSON, PRECONDITION_FAILED, PATCH_FAILED, NOT_INSTALLED, *OF_STATUS.values())
    )
)
"""All there are."""


def type_of(error: errors.CrdtSessionsError | type[errors.CrdtSessionsError]) -> ProblemType:
    """Return the type of problem that *error* is."""
    kinds = (error if isinstance(error, type) else type(error)).__mro__
    return next((OF_ERRORS[kind] for kind in kinds if kind in OF_ERRORS), INTERNAL_ERROR)

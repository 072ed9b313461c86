"""The client's end of the protocol: one peer's replica of a session, without I/O.

The Python client and the peers of the simulated network use this class. It says what to send on a connection, takes
what arrives, keeps local changes until they are acknowledged, and counts the durable ones.

Invariants:

1. Local changes wait until the server's SyncStep1 was answered; the answer carries all changes that the server lacks.
2. :attr:`durable` counts only changes before a type 102 frame that the server has returned.
3. After every connect the replica announces its presence with a raised clock. Peers that remember it as gone at the
   old clock would not notice its return.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar, assert_never

from crdt_sessions.errors import TooLarge, UnknownFrame
from crdt_sessions.ids import ClientId, Millis, Seq
from crdt_sessions.limits import Limits
from crdt_sessions.model import RunCancel, SessionDoc, SessionView, merge
from crdt_sessions.model.strings import checked_id
from crdt_sessions.sync.awareness import AwarenessTable
from crdt_sessions.sync.changes import ChangeIndex
from crdt_sessions.wire import (
    EMPTY_UPDATE,
    Ack,
    AwarenessEntry,
    AwarenessFrame,
    Frame,
    Hold,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    decode_awareness,
    encode,
    encode_awareness,
)
from crdt_sessions.wire.awareness import GONE
from crdt_sessions.wire.update_v1 import MAX_CLOCK
from crdt_sessions.wire.varint import Reader, decode_state_vector, varuint

Result = TypeVar("Result")

_RENEW_MS = 15_000  # y-protocols renews at half of the 30 s after which others forget


class Replica:
    """A peer's replica.

    Args:
        client_id: a Yjs client id, fresh and random in every process.
        limits: the server's limits; it would refuse a frame larger than ``max_frame_bytes``.
    """

    def __init__(self, client_id: int, *, limits: Limits | None = None) -> None:
        self.client_id = ClientId(client_id)
        self.document = SessionDoc(client_id)
        self.view = SessionView(self.document)
        self.limits = limits or Limits()
        self.awareness = AwarenessTable()
        self.connected = False
        self.synced = False
        """Whether both sides have answered each other's SyncStep1 on this connection."""
        self.version = 0
        """Number of local changes made so far."""
        self.durable = 0
        """Number of local changes known to be on the server's disk."""
        self.changes = ChangeIndex()
        """When each message and run last changed, counted by :attr:`revision`."""
        self.revision = Seq(0)
        """Number of changes of the document so far, local and remote."""
        self.denied: str | None = None
        """The server's reason, if it denied permission."""
        self.heartbeat_ms: Millis | None = None
        """Longest time between two messages, for the holder of a lease; None if silence does no harm."""
        self._spoke = Millis(0)
        self._state: dict[str, Any] | None = None
        self._clock = 0
        self._announced: Millis = Millis(0)
        self._announce = False
        self._answered = False
        self._received = False
        self._borrowed = 0
        """:attr:`version` at the beginning: changes up to then are a predecessor's."""
        self._probed = 0
        self._stops: dict[str, RunCancel] = {}
        """Cancels of runs whose entry had not arrived."""
        self._replies: list[Frame] = []
        self._local: list[bytes] = []
        self._incoming: list[bytes] = []

    def close(self) -> None:
        """Release the document."""
        self.document.close()

    # -- the connection --------------------------------------------------------------------------------------

    def open(self, now: Millis) -> None:
        """Note that a connection is open; :meth:`take` then says what to send."""
        self.connected, self.synced = True, False
        self._answered = self._received = False
        self._probed = self.durable
        self._replies = [SyncStep1(self.document.state_vector())]
        self._clock += 1
        self._announce = self._state is not None

    def successor(self, client_id: int) -> Replica:
        """Return a replica that goes on with this one's connection as another client, and close this one.

        Every change of this one must be :attr:`durable`, and it must have called :meth:`leave`. The successor goes on
        with the same count of changes, so late acknowledgements to this one do not count for it.

        Args:
            client_id: a Yjs client id, fresh and random.
        """
        follower = Replica(client_id, limits=self.limits)
        follower.begin(self.document.encode())
        follower.awareness = self.awareness
        follower.version = follower.durable = follower._borrowed = follower._probed = self.version
        follower.connected, follower.synced = self.connected, self.synced
        follower._answered, follower._received = self._answered, self._received
        self.close()
        return follower

    def hold(self, token: str) -> None:
        """Queue a Hold frame: from now on this is the connection of the lease's holder. Call it before other changes.

        Args:
            token: proves the lease.
        """
        self._replies.append(Hold(token))

    def lost(self, now: Millis) -> None:
        """Note that the connection has ended. Local changes stay; the presence of all others is removed."""
        self.connected = self.synced = False
        for client in list(self.awareness.present()):
            if client != self.client_id:
                self.awareness.remove(client, now)

    def receive(self, data: bytes, now: Millis) -> None:
        """Take one WebSocket message.

        Raises:
            WireError, UpdateError: the message cannot be understood; the connection should be dropped.
        """
        for frame in decode(data):
            self._dispatch(frame, now)

    def take(self, now: Millis) -> list[bytes]:
        """Return the messages to send now, and count them as sent; none while there is no connection."""
        if not self.connected:
            return []
        frames, self._replies = self._replies, []
        if self._answered:
            if self._local:
                frames.append(Update(merge(self._local)))
                self._local.clear()
            if self._probed < self.version:
                self._probed = self.version
                frames.append(Ack(varuint(self.version)))
        if self._state is not None and now - self._announced >= _RENEW_MS:
            self._clock += 1
            self._announce = True
        if self._announce:
            frames.append(self._announcement(now))
        if not frames and self.heartbeat_ms is not None and now - self._spoke >= self.heartbeat_ms:
            frames.append(Ack(varuint(self.durable)))
        if frames:
            self._spoke = now
        return [self._checked(encode(frame)) for frame in frames]

    # -- changes ---------------------------------------------------------------------------------------------

    def edit(self, change: Callable[[SessionView], Result]) -> Result:
        """Change the document in one transaction; the change is sent when there is a connection.

        Raises:
            BadValue: *change* wrote something that the document cannot hold.
        """
        try:
            return self.document.transact(lambda _: change(self.view))
        finally:  # what a change wrote before it failed stays, and must be sent
            delta = self.document.take_delta()
            if delta is not None:
                self._note()
                self._keep(delta)

    def stop(self, run_id: str, cancel: RunCancel) -> None:
        """Ask for a run to be stopped, and make sure that the request persists.

        If the run's entry has not arrived yet, the replica makes one. The CRDT keeps only one of two concurrent
        entries, so the request is repeated if the other one is kept.

        Raises:
            BadId: *run_id* is not a valid id.
        """
        checked_id(run_id, "run id")
        if run_id not in self.view.runs:
            self._stops[run_id] = cancel
        self.edit(lambda view: view.runs.cancel(run_id, cancel))

    def restore(self, update: bytes) -> None:
        """Apply an update from a local store, before the first connection.

        Raises:
            UpdateError: it cannot be decoded.
        """
        self.document.apply(update)
        self._note()

    def begin(self, document: bytes) -> None:
        """Load a whole document that the server also has, before the first connection.

        Raises:
            UpdateError: it cannot be decoded.
        """
        self.document.append(document)
        self._note()

    def restored_unacknowledged(self) -> None:
        """Note that the restored document may hold changes the server has not acknowledged."""
        self.version += 1

    def set_presence(self, state: dict[str, Any] | None) -> None:
        """Announce a presence, such as who is here and what they do; None removes it.

        Raises:
            ValueError: *state* is not JSON.
        """
        json.dumps(state, allow_nan=False)
        self._state = state
        self._clock += 1
        self._announce = True

    def leave(self) -> None:
        """Remove the presence, and count that as a change, so that callers can wait until the server has taken it."""
        self.set_presence(None)
        self.version += 1

    def presences(self) -> dict[ClientId, dict[str, Any]]:
        """Return the presence of everybody else."""
        states = {client: json.loads(text) for client, text in self.awareness.present().items()}
        return {
            client: state for client, state in states.items() if client != self.client_id and isinstance(state, dict)
        }

    @property
    def has_incoming(self) -> bool:
        """Whether :meth:`take_incoming` has something to return."""
        return bool(self._incoming)

    def take_incoming(self) -> list[bytes]:
        """Return the updates received, and the local ones made, since the last call, for a local store."""
        taken, self._incoming = self._incoming, []
        return taken

    # -- inside ----------------------------------------------------------------------------------------------

    def _keep(self, delta: bytes) -> None:
        self.version += 1
        self._incoming.append(delta)
        if self.connected and self._answered:
            self._local.append(delta)  # otherwise the answer to the server's SyncStep1 will carry it

    def _note(self) -> None:
        self.revision = Seq(self.revision + 1)
        self.changes.note(self.document.take_touched(), self.revision)

    def _dispatch(self, frame: Frame, now: Millis) -> None:
        match frame:
            case SyncStep1(state_vector):
                self._replies.append(SyncStep2(self._lacking(state_vector)))
                self._local.clear()
                self._answered = True
                self._probed = self.durable
                self.synced = self._received
            case SyncStep2(update):
                self._merge(update)
                self._received = True
                self.synced = self._answered
            case Update(update):
                self._merge(update)
            case AwarenessFrame(payload):
                self._hear(payload, now)
            case QueryAwareness():
                self._announce = self._state is not None
            case PermissionDenied(reason):
                self.denied = reason
            case Hold():
                raise UnknownFrame(kind=103)  # only clients send it
            case Ack(payload):
                self.durable = max(self.durable, Reader(payload).varuint())
            case _:
                assert_never(frame)

    def _lacking(self, state_vector: bytes) -> bytes:
        """Return the update that a server with *state_vector* lacks.

        If it lacks nothing, the update is empty. A difference that Yjs encodes would name all deletions ever made.
        """
        if self.version == self._borrowed:  # everything here came from the server
            theirs = decode_state_vector(state_vector)
            ours = decode_state_vector(self.document.state_vector())
            if all(clock <= theirs.get(client, 0) for client, clock in ours.items()):
                return EMPTY_UPDATE
        return self.document.encode(state_vector)

    def _merge(self, update: bytes) -> None:
        if self.document.apply(update) is not None:
            self._incoming.append(update)
            self._note()
            if self._stops:
                self._stop_again()

    def _stop_again(self) -> None:
        for run_id, cancel in list(self._stops.items()):
            run = self.view.runs.value(run_id)
            if run is not None and run.status is not None:  # the server's entry, or ours with the server's status
                del self._stops[run_id]
                if run.cancel is None and not run.over:
                    self.stop(run_id, cancel)

    def _hear(self, payload: bytes, now: Millis) -> None:
        for entry in decode_awareness(payload):
            if entry.client_id != self.client_id:
                self.awareness.accept(entry, now)
            elif entry.gone and self._state is not None and self._clock <= entry.clock < MAX_CLOCK:
                self._clock = entry.clock + 1  # a peer believes that we left
                self._announce = True
            elif not entry.gone and self._clock < entry.clock < MAX_CLOCK:
                self._clock = entry.clock + 1  # somebody spoke for us: what we say next is news again

    def _announcement(self, now: Millis) -> Frame:
        self._announced, self._announce = now, False
        text = GONE if self._state is None else json.dumps(self._state, allow_nan=False)
        return AwarenessFrame(encode_awareness([AwarenessEntry(self.client_id, self._clock, text)]))

    def _checked(self, data: bytes) -> bytes:
        if len(data) > self.limits.max_frame_bytes:
            raise TooLarge(what="a frame", size=len(data), limit=self.limits.max_frame_bytes)
        return data

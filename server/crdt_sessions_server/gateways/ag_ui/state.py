"""AG-UI's shared state: a client's copy, merged into the session's ``state``.

An AG-UI client sends its whole state with each request: as it was told, with its own changes in it. Written as it is,
it would undo what others have changed since. So the service remembers what clients were told, and takes the
difference as the change that the client proposes. docs/protocol.md has the rules, under *Gateways*.

The memory is bounded and ends with the process. Without it, a client's state can only add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crdt_sessions.errors import BadValue
from crdt_sessions.ids import SessionId
from crdt_sessions.model import SessionView
from crdt_sessions.model.checks import check_json, json_size
from crdt_sessions.model.shared import check_writable, rewrite, same
from crdt_sessions_server.auth import Permission, Principal

_MAX_BYTES = 16 * 1024 * 1024
"""Memory for the states that clients were told, as JSON, of all sessions together."""
_MAX_PER_PLACE = 4
"""States at one place of a conversation: several tabs may have heard of changes at different times."""
_ABSENT = object()

Place = tuple[SessionId, str, str | None]
"""Session, principal, and the latest message of a person that the client knows."""


class ToldStates:
    """The states that this process told its clients last.

    Args:
        max_bytes: the memory for them; the oldest are forgotten.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._told: dict[Place, list[dict[str, Any]]] = {}

    def client(self, session: SessionId, principal: Principal) -> ClientState:
        """Return the state of a client that makes a request."""
        return ClientState(self, session, principal)

    def remember(self, place: Place, state: dict[str, Any], instead_of: dict[str, Any] | None = None) -> None:
        """Note that a client at *place* has *state*, and no longer *instead_of*."""
        there = self._forget(place)
        there = [each for each in there if not same(each, state) and not same(each, instead_of)]
        self._told[place] = [*there, state][-_MAX_PER_PLACE:]
        self._bytes += sum(map(json_size, self._told[place]))
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._told)))

    def _forget(self, place: Place) -> list[dict[str, Any]]:
        there = self._told.pop(place, [])
        self._bytes -= sum(map(json_size, there))
        return there

    def base(self, place: Place, sent: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state that a client at *place* had before it changed it to *sent*; empty if it is not known.

        If several are known, it is the one that differs in the fewest keys, and of those the latest.
        """
        there = reversed(self._told.get(place, []))
        return min(there, key=lambda told: _differences(told, sent), default={})


class ClientState:
    """The state of one client, for one request.

    Args:
        states: what clients were told.
        session: the session.
        principal: the client's principal.
    """

    def __init__(self, states: ToldStates, session: SessionId, principal: Principal) -> None:
        self._states = states
        self._session = session
        self._principal = principal
        self._sent: dict[str, Any] | None = None
        self._base: dict[str, Any] = {}
        self._written = False

    def propose(self, view: SessionView, messages: Sequence[Any], sent: Any) -> None:
        """Take the state of a request. An empty one proposes nothing: clients without a state send that.

        Args:
            view: the session.
            messages: the client's, as AG-UI spells them.
            sent: its state.

        Raises:
            AccessDenied: it is a change, and the principal may not write.
            BadValue: it is no object of JSON, or changes what only Yjs peers can change.
        """
        if not sent:
            return
        if not isinstance(sent, dict):
            raise BadValue(where="state", why="is no object")
        self._sent = check_json(sent, "state")
        self._base = self._states.base(self._place(view, [message.id for message in messages]), sent)
        current = view.state_value()
        merged = merge(self._base, sent, current)
        if not same(current, merged):
            self._principal.require(Permission.WRITE)
            check_writable(view.state, current, merged, "state")

    @property
    def open(self) -> bool:
        """Whether there is a proposal that is not written yet."""
        return self._sent is not None and not self._written

    @property
    def size(self) -> int:
        """The bytes by which the document may grow."""
        return json_size(self._sent) if self._sent is not None else 0

    def write(self, view: SessionView) -> None:
        """Merge the proposal into the session's state, once."""
        if self._sent is None or self._written:
            return
        self._written = True
        current = view.state_value()
        rewrite(view.state, current, merge(self._base, self._sent, current))

    def sent(self, view: SessionView, messages: Sequence[Any]) -> None:
        """Note that the client has the state that it sent, until a stream has told it more."""
        if self._sent is not None:
            self._states.remember(self._place(view, [message.id for message in messages]), self._sent)

    def told(self, view: SessionView, state: dict[str, Any], *, whole: bool) -> None:
        """Note what the client was told; *whole* if it has received all of it."""
        known = [message.id for message in view.conversation()]
        self._states.remember(self._place(view, known), state, self._sent if whole else None)

    def _place(self, view: SessionView, known: Sequence[str]) -> Place:
        """Return the place of a client that knows these messages, in whatever order it shows them."""
        found = (message for id in known if (message := view.messages.find(id)) is not None)
        asked = [(each.seq or 0, each.id) for each in found if each.head is not None and each.head.role == "user"]
        return self._session, self._principal.id, max(asked)[1] if asked else None


def merge(told: Mapping[str, Any], sent: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """Return *current* with the changes that lead from *told* to *sent*.

    Objects are merged key by key, all other values are taken whole. A key that the client was not told of, and that
    is there, stays as it is; one that the client has left out goes, unless it has been changed since.
    """
    found = dict(current)
    for key, value in sent.items():
        there, known = current.get(key, _ABSENT), told.get(key, _ABSENT)
        if isinstance(value, dict) and isinstance(there, dict):
            found[key] = merge(known if isinstance(known, dict) else {}, value, there)
        elif (there is _ABSENT and known is _ABSENT) or (known is not _ABSENT and not same(known, value)):
            found[key] = value
    for key in told.keys() - sent.keys():
        if key in current and same(current[key], told[key]):
            del found[key]
    return found


def _differences(told: Mapping[str, Any], sent: Mapping[str, Any]) -> int:
    return sum(not same(told.get(key, _ABSENT), sent.get(key, _ABSENT)) for key in told.keys() | sent.keys())

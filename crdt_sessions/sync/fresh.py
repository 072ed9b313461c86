"""Fresh updates: those that begin a message or a request for a run. Their shape alone shows that they are harmless.

Like the updates in :mod:`crdt_sessions.sync.plain` they need no trial in another process. One client writes a new
entry of ``messages``, ``delegated`` or ``runs``, or appends to an array that it began in this way, such as the parts
of a message. All else goes into types that the same update makes: maps, arrays and texts, JSON of moderate depth, and
text. No key is written twice, and nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crdt_sessions.errors import WireError
from crdt_sessions.wire.any_value import skip_value
from crdt_sessions.wire.update_v1 import ANY, HAS_KEY, MAX_CLOCK, STRING, TYPE, read_head, sole_block, units
from crdt_sessions.wire.varint import Reader

_MAX_STRUCTS = 200
_MAX_BYTES = 64 * 1024
_MAX_DEPTH = 10
_ARRAY, _MAP, _TEXT = 0, 1, 2
_ROOTS = ("messages", "delegated", "runs")


OpenArrays = Mapping[tuple[int, int], tuple[int, int | None]]
"""Maps the client and clock of each array to its depth and the clock of its last element, None if it is empty.

Why they are remembered: ``docs/decisions/0042-arrays-that-may-be-gone-on-with.md``.
"""


@dataclass(frozen=True, slots=True)
class Fresh:
    """The effect of a fresh update."""

    client: int
    """The Yjs client that wrote it."""
    clock: int
    """The client's clock after it."""
    arrays: OpenArrays
    """The arrays to which the client may append later."""


def fresh(
    update: bytes, clocks: Mapping[int, int], has: Callable[[str, str], bool], arrays: OpenArrays | None = None
) -> Fresh | None:
    """Return the effect of *update* if it is fresh, else None.

    Args:
        update: foreign bytes.
        clocks: the state vector of a document in which nothing is pending.
        has: tells whether that document has a key in a root map.
        arrays: arrays that earlier fresh updates made in this document. If somebody has deleted one since, then
            elements that are appended to it are deleted, too.
    """
    if len(update) > _MAX_BYTES:
        return None
    try:
        return _Planting(Reader(update), clocks, has).read(arrays or {})
    except (WireError, _NotFresh):
        return None


class _NotFresh(Exception):
    """The update is not fresh."""


class _Planting:
    """Reads one update, and keeps track of the types that it has made so far."""

    def __init__(self, reader: Reader, clocks: Mapping[int, int], has: Callable[[str, str], bool]) -> None:
        self._reader = reader
        self._clocks = clocks
        self._has = has
        self._client = self._clock = 0
        self._made: dict[int, tuple[int, int]] = {}  # clock of a type to its kind and depth
        self._keys: set[tuple[int | str, str]] = set()
        self._ends: dict[int, int] = {}  # last clock inside an array or text to the clock of that type
        self._begun: set[int] = set()  # arrays and texts that are not empty

    def read(self, arrays: OpenArrays) -> Fresh:
        reader = self._reader
        block = sole_block(reader)
        if block is None:
            raise _NotFresh
        structs, self._client, self._clock = block
        _require(1 <= structs <= _MAX_STRUCTS and self._clock == self._clocks.get(self._client, 0))
        self._reopen(arrays)
        for _ in range(structs):
            self._struct()
            _require(self._clock < MAX_CLOCK)
        _require(reader.varuint() == 0 and not reader.remaining)  # no deletions, and nothing after them
        return Fresh(self._client, self._clock, self._left_open())

    def _reopen(self, arrays: OpenArrays) -> None:
        for (client, at), (depth, end) in arrays.items():
            if client == self._client:
                self._made[at] = (_ARRAY, depth)
                if end is not None:
                    self._begun.add(at)
                    self._ends[end] = at

    def _left_open(self) -> OpenArrays:
        ends = {at: end for end, at in self._ends.items()}
        return {
            (self._client, at): (depth, ends.get(at)) for at, (kind, depth) in self._made.items() if kind == _ARRAY
        }

    def _struct(self) -> None:
        head = read_head(self._reader)
        content = head.kind
        _require(head.right is None)
        if head.origin is not None:
            client, before = head.origin
            _require(client == self._client and not head.info & HAS_KEY)
            self._append(self._ends.pop(before, -1), content)
        elif isinstance(head.parent, str):
            root, key = head.parent, head.key or ""
            _require(root in _ROOTS and head.key is not None and not self._has(root, self._once(root, key)))
            _require(content == TYPE and self._reader.take(1)[0] == _MAP)
            self._make(_MAP, 0)
        elif head.parent is not None:
            self._inside(*head.parent, head.key, content)
        else:  # GC and Skip have no parent
            raise _NotFresh

    def _inside(self, client: int, parent: int, key: str | None, content: int) -> None:
        """Read a struct that has a parent and no neighbour."""
        _require(client == self._client)
        if key is not None:
            self._once(parent, key)
            kind, depth = self._made.get(parent, (None, 0))
            _require(kind == _MAP and content in (ANY, TYPE))
            self._content(content, depth, one=True)
        else:
            _require(parent not in self._begun)
            self._begun.add(parent)
            self._append(parent, content)

    def _append(self, parent: int, content: int) -> None:
        """Read content that is appended to an array or a text."""
        kind, depth = self._made.get(parent, (None, 0))
        _require(content == STRING if kind == _TEXT else kind == _ARRAY and content in (ANY, TYPE))
        self._content(content, depth)
        self._ends[self._clock - 1] = parent

    def _once(self, parent: int | str, key: str) -> str:
        _require((parent, key) not in self._keys)
        self._keys.add((parent, key))
        return key

    def _content(self, kind: int, depth: int, *, one: bool = False) -> None:
        reader = self._reader
        if kind == STRING:
            length = units(reader.string().encode())
            _require(length > 0)
            self._clock += length
        elif kind == ANY:
            count = reader.varuint()
            _require(count == 1 or (not one and 1 <= count <= reader.remaining))
            for _ in range(count):
                skip_value(reader, json_depth=_MAX_DEPTH)
            self._clock += count
        else:
            made = reader.take(1)[0]  # Yrs reads one byte here, other libraries a varint
            _require(made in (_ARRAY, _MAP, _TEXT))
            self._make(made, depth + 1)

    def _make(self, kind: int, depth: int) -> None:
        _require(depth < _MAX_DEPTH)
        self._made[self._clock] = (kind, depth)
        self._clock += 1


def _require(condition: bool) -> None:
    if not condition:
        raise _NotFresh

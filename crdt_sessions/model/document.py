"""SessionDoc owns a session's Yjs document: the one place where foreign bytes meet the CRDT library.

It knows nothing of peers, frames or rules. Whatever changes the document, it hands back the *delta* (what
the document says changed, as an update) and remembers *where* the change was (:class:`Touched`), so that
nobody ever has to walk the whole document to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pycrdt import Doc, Snapshot, TransactionEvent, get_update, merge_updates

from crdt_sessions.errors import BadValue, MalformedUpdate, PanickedUpdate
from crdt_sessions.model import layout
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.update_v1 import may_hold_pairs, read_id_set
from crdt_sessions.wire.varint import Reader, decode_state_vector

Result = TypeVar("Result")

_NOTHING = b"\x00"
"""The state vector of an empty document."""
_MANY = 256
_WHOLE = 4096
"""Bytes from which on an update to an empty document is taken for a document."""


@dataclass(slots=True)
class Touched:
    """Where a transaction changed the document."""

    meta: set[str] = field(default_factory=set)
    """Keys of ``meta``."""

    messages: dict[str, set[str]] = field(default_factory=dict)
    """Message id to the keys of the message map that were set; empty if only something deeper changed."""

    runs: set[str] = field(default_factory=set)
    """Run ids."""

    @property
    def within_messages(self) -> bool:
        """Whether only something deep in messages changed."""
        return not (self.meta or self.runs or any(self.messages.values()))


class SessionDoc:
    """A session's document, guarded.

    Args:
        client_id: the Yjs client id for changes made here; must be fresh and random for every load,
            since a reused id whose last updates were lost makes replicas diverge for good.
    """

    def __init__(self, client_id: int) -> None:
        self.doc: Doc[Any] = Doc(client_id=client_id)
        self._notes = notes = _Notes()
        self._touched = Touched()
        self._waiting = EMPTY_UPDATE
        self._complete = _NOTHING  # the state vector before anything waited
        self._pairs: bool | None = None  # whether there may be any in what was looked at; None if nothing was
        self._unlooked: list[bytes] = []  # what came since
        roots = layout.roots(self.doc)

        # Observers only take notes: an exception in one would leave the mutating call after the change (P9),
        # and they are closures without self because pycrdt keeps them alive (P10).
        def note_delta(event: TransactionEvent) -> None:
            if not notes.known:
                notes.deltas.append(event.update)

        self.roots = roots
        self._noting: list[tuple[Any, Any]] = [(self.doc, self.doc.observe(note_delta))]
        self._watching: list[tuple[Any, Any]] = []
        self._watch()

    def close(self) -> None:
        """Release the native subscriptions; without this the document is never freed."""
        for subscriptions in (self._noting, self._watching):
            _unsubscribe(subscriptions)

    def _watch(self) -> None:
        roots = self.roots
        for root, note in ((roots.meta, _note_meta), (roots.messages, _note_messages), (roots.runs, _note_runs)):
            self._watching.append((root, root.observe_deep(_bind(note, self._touched))))

    def apply(self, update: bytes) -> bytes | None:
        """Apply a foreign update; return what changed, or None if the document held all of it already.

        The empty update means that nothing is visible yet: it waits for one that has not arrived.

        Raises:
            MalformedUpdate: the library rejected the bytes; nothing was applied.
            PanickedUpdate: the library panicked or gave up in the middle; the document must not be used any more.
        """
        if update == EMPTY_UPDATE:
            return None
        before = self.doc.get_state()
        self._integrate(update, begins=before == _NOTHING)
        held = self._notes.deltas == [update] or not _waits(self.doc, update)
        if not held:
            if self._waiting == EMPTY_UPDATE:
                self._complete = before
            self._waiting = merge((self._waiting, update))
        if self._waiting != EMPTY_UPDATE:
            self._retry()
        delta = self.take_delta()
        return EMPTY_UPDATE if delta is None and not held else delta

    def _integrate(self, update: bytes, *, begins: bool) -> None:
        """Apply *update*. If a document *begins* with it, an event for each thing would cost more than the rest."""
        if self._pairs is False:
            self._look_later(update)
        if not begins or len(update) < _WHOLE:
            apply_guarded(self.doc, update)
            return
        _unsubscribe(self._watching)
        try:
            apply_guarded(self.doc, update)
        except MalformedUpdate:
            self._watch()
            raise
        self._watch()
        touched, roots = self._touched, self.roots
        touched.meta.update(roots.meta.keys())
        touched.messages.update((message_id, {"*"}) for message_id in list(roots.messages.keys()))
        touched.runs.update(roots.runs.keys())

    def append(self, update: bytes) -> None:
        """Apply an update of which is known that it is new and waits for nothing: it is itself what changes.

        Raises:
            UpdateError: as :meth:`apply`.
        """
        self._notes.known = True
        try:
            self._integrate(update, begins=len(update) >= _WHOLE and self.doc.get_state() == _NOTHING)
        finally:
            self._notes.known = False

    def _retry(self) -> None:
        """Apply again what waits.

        The library keeps an update that lacks another one, but does not always notice when that arrives
        (docs/decisions/0005-waiting-updates.md).
        """
        progress = True
        while self._waiting != EMPTY_UPDATE and progress:
            events = len(self._notes.deltas)
            apply_guarded(self.doc, self._waiting)
            if not _waits(self.doc, self._waiting):
                self._waiting = EMPTY_UPDATE
                # What came after the gap was in no delta so far; now everybody gets all of it.
                self._notes.deltas[:] = [self.doc.get_update(self._complete)]
            progress = len(self._notes.deltas) > events

    def transact(self, change: Callable[[SessionDoc], Result], origin: str = "local") -> Result:
        """Run *change* in one transaction and return its result; :meth:`take_delta` has what changed.

        A CRDT cannot roll back: what *change* did before it raised stays, and is in the delta.

        Raises:
            BadValue: *change* wrote something that the library panics on.
        """
        with self.doc.transaction(origin=origin):
            try:
                return change(self)
            except BaseException as error:
                if not _is_panic(error):
                    raise
                raise BadValue(where="", why="the document cannot hold it") from error

    def take_delta(self) -> bytes | None:
        """Return what changed since the last call, as an update; None if nothing visible did."""
        if not self._notes.deltas:
            return None
        delta = merge(self._notes.deltas)
        self._notes.deltas.clear()
        if self._pairs is False:
            self._look_later(delta)
        return None if delta == EMPTY_UPDATE else delta  # empty: integrated, but after a gap

    def edit(self, change: Callable[[SessionDoc], Result], origin: str = "local") -> tuple[Result, bytes | None]:
        """Run *change* in one transaction; return its result and what changed. See :meth:`transact`."""
        return self.transact(change, origin), self.take_delta()

    def take_touched(self) -> Touched:
        """Return where the document changed since the last call."""
        taken = Touched(self._touched.meta.copy(), self._touched.messages.copy(), self._touched.runs.copy())
        self._touched.meta.clear()
        self._touched.messages.clear()
        self._touched.runs.clear()
        return taken

    @property
    def touched(self) -> bool:
        """Whether :meth:`take_touched` has something to tell."""
        return bool(self._touched.meta or self._touched.messages or self._touched.runs)

    @property
    def may_hold_pairs(self) -> bool:
        """Whether there may be text beyond the basic plane: two UTF-16 units each, of which Yjs can take one."""
        if self._pairs is None:
            self._pairs = may_hold_pairs(self.doc.get_update())
        if self._unlooked:
            self._pairs = may_hold_pairs(b"".join(self._unlooked))
            self._unlooked.clear()
        return self._pairs

    def _look_later(self, update: bytes) -> None:
        """Have *update* looked at for pairs, together with others: most are tokens."""
        self._unlooked.append(update)
        if len(self._unlooked) == _MANY or len(update) > _WHOLE:
            self._pairs = self.may_hold_pairs

    @property
    def waiting(self) -> bytes:
        """The updates that lack another one, merged; the empty update if there are none."""
        return self._waiting

    def state_vector(self) -> bytes:
        """Return what this replica has, encoded."""
        return self.doc.get_state()

    def encode(self, state_vector: bytes | None = None) -> bytes:
        """Return the document as an update, or what a replica with *state_vector* lacks.

        Updates that wait for a gap are not part of it; see :attr:`waiting`.

        Raises:
            MalformedUpdate: *state_vector* cannot be decoded.
        """
        if state_vector is None:
            return self.doc.get_update()
        return guarded(lambda: self.doc.get_update(state_vector), size=len(state_vector))

    def contains(self, update: bytes) -> bool:
        """Tell whether the document already holds all of *update*.

        A wrong "no" is possible for updates integrated after a gap; a wrong "yes" is not.

        Raises:
            UpdateError: *update* cannot be decoded.
        """
        return holds(self.doc, update)


def apply_guarded(doc: Doc[Any], update: bytes) -> None:
    """Apply foreign bytes to *doc*. The only call of ``apply_update`` in the code base.

    Raises:
        MalformedUpdate: the library rejected the bytes.
        PanickedUpdate: the library panicked on them, or gave up in the middle.
    """
    guarded(lambda: doc.apply_update(update), size=len(update))


def merge(updates: Iterable[bytes]) -> bytes:
    """Return one update that says what *updates* say, gaps included.

    Raises:
        MalformedUpdate: one of them cannot be decoded.
    """
    listed = [update for update in updates if update != EMPTY_UPDATE]
    if not listed:
        return EMPTY_UPDATE
    if len(listed) == 1:
        return listed[0]
    return guarded(lambda: merge_updates(*listed), size=sum(map(len, listed)))


def holds(doc: Doc[Any], update: bytes) -> bool:
    """Tell whether *doc* holds all of *update*; see :meth:`SessionDoc.contains`.

    Comparing merged bytes would not do: the library writes the keys of JSON objects in random order.

    Raises:
        UpdateError: *update* cannot be decoded.
    """
    deletions = _beyond(doc, update)
    if not deletions:
        return deletions is not None
    known = extent_of(doc).deleted
    return all(_covers(known.get(client, []), ranges) for client, ranges in deletions.items())


def _waits(doc: Doc[Any], update: bytes) -> bool:
    """Tell whether something of *update*, which was applied to *doc*, waits for what has not arrived.

    Cheaper than :func:`holds`, and correct where every deletion of a known struct is known as well.
    """
    deletions = _beyond(doc, update)
    if not deletions:
        return deletions is None
    state = decode_state_vector(doc.get_state())
    return any(ranges[-1][0] + ranges[-1][1] > state.get(client, 0) for client, ranges in deletions.items())


def _beyond(doc: Doc[Any], update: bytes) -> dict[int, list[tuple[int, int]]] | None:
    """Return what *update* deletes; None if it has structs that *doc* lacks."""
    if update == EMPTY_UPDATE:
        return {}
    unknown = Reader(guarded(lambda: get_update(update, doc.get_state()), size=len(update)))
    return None if unknown.varuint() != 0 else read_id_set(unknown)  # clients with structs beyond the state vector


def _covers(known: list[tuple[int, int]], asked: list[tuple[int, int]]) -> bool:
    """Tell whether each of the *asked* ranges lies in one of the *known* ones; both ascend and do not touch."""
    ranges = iter(known)
    start, size = next(ranges, (0, 0))
    for clock, length in asked:
        while start + size < clock + length:
            if (following := next(ranges, None)) is None:
                return False
            start, size = following
        if clock < start:
            return False
    return True


@dataclass(slots=True)
class _Notes:
    """What the document's observer writes down."""

    deltas: list[bytes] = field(default_factory=list)
    known: bool = False
    """Whether what changes is known without asking the library, which takes longer than the change."""


@dataclass(frozen=True, slots=True)
class Folded:
    """Many updates as one."""

    update: bytes
    waits: bool
    """Whether something in it waits for an update that has not arrived."""


def fold(updates: Iterable[bytes]) -> Folded:
    """Return the smallest update we can make that holds everything in *updates*.

    A document re-encodes its history much tighter than a merge does, and the result is verified: a document
    loaded from it has the same version. But a document forgets updates that wait for a gap; where there are
    any, the updates are merged struct by struct instead, which loses nothing and needs no document.

    Raises:
        UpdateError: one of them cannot be applied, or the result would not hold all of them.
    """
    rows = list(updates)
    whole = SessionDoc(1)
    try:
        for update in rows:
            whole.apply(update)
        if whole.waiting != EMPTY_UPDATE:
            return Folded(merge(rows), waits=True)
        return Folded(encode_verified(whole), waits=False)
    finally:
        whole.close()


def encode_verified(document: SessionDoc) -> bytes:
    """Return all of *document* as an update that was applied once: it makes a document of the same extent.

    Raises:
        UpdateError: it cannot be applied, or makes another one.
    """
    whole = document.encode()
    again: Doc[Any] = Doc(client_id=1)
    apply_guarded(again, whole)
    if extent_of(again) != extent_of(document.doc):
        raise MalformedUpdate(size=len(whole))
    return whole


@dataclass(frozen=True, slots=True)
class Extent:
    """What a document has seen: equal for replicas that agree."""

    clocks: dict[int, int]
    """Client id to the number of structs integrated from it: the state vector."""
    deleted: dict[int, list[tuple[int, int]]]
    """Client id to deleted ranges (clock, length): the delete set."""


def extent_of(doc: Doc[Any]) -> Extent:
    """Return state vector and delete set of *doc*."""
    return decode_extent(Snapshot.from_doc(doc).encode())


def decode_extent(snapshot: bytes) -> Extent:
    """Return what an encoded Yjs snapshot says. Source: Yjs ``Snapshot.js``.

    Raises:
        WireError: it is not one.
    """
    reader = Reader(snapshot)
    deleted = read_id_set(reader)
    return Extent(decode_state_vector(reader.take(reader.remaining)), deleted)


def guarded(call: Callable[[], Result], *, size: int) -> Result:
    """Call into the library with foreign bytes of *size*; its errors and panics become :class:`UpdateError`."""
    try:
        return call()
    except ValueError as error:
        raise MalformedUpdate(size=size) from error
    except BaseException as error:
        # It decodes, but contradicts itself or the document: the library gives up or panics in the middle.
        gave_up = isinstance(error, RuntimeError) and str(error).startswith("Cannot apply update")
        if not (gave_up or _is_panic(error)):
            raise  # cancellation and interrupts pass
        raise PanickedUpdate(size=size) from error


def _is_panic(error: BaseException) -> bool:
    """Tell whether *error* is pyo3's PanicException, a BaseException that cannot be imported."""
    return type(error).__name__ == "PanicException"


def _unsubscribe(subscriptions: list[tuple[Any, Any]]) -> None:
    for target, subscription in subscriptions:
        target.unobserve(subscription)
    subscriptions.clear()


_Event = Any  # pycrdt's stubs give events no attributes


def _bind(note: Callable[[Touched, _Event], None], touched: Touched) -> Callable[[list[Any]], None]:
    def observer(events: list[Any]) -> None:
        for event in events:
            note(touched, event)

    return observer


def _note_meta(touched: Touched, event: _Event) -> None:
    touched.meta.update(_root_keys(event))


def _note_messages(touched: Touched, event: _Event) -> None:
    path = event.path
    if not path:
        for message_id in _keys(event):
            touched.messages.setdefault(message_id, set()).add("*")
    else:
        keys = touched.messages.setdefault(str(path[0]), set())
        if len(path) == 1:
            keys.update(_keys(event))


def _note_runs(touched: Touched, event: _Event) -> None:
    touched.runs.update(_root_keys(event))


def _root_keys(event: _Event) -> list[str]:
    """Return the keys of the root map that an event, however deep, is about."""
    return [str(event.path[0])] if event.path else _keys(event)


def _keys(event: _Event) -> list[str]:
    return [str(key) for key in getattr(event, "keys", ())]  # only a MapEvent has keys

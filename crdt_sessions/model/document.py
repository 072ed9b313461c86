"""SessionDoc owns a session's Yjs document: the one place where foreign bytes meet the CRDT library.

It knows nothing of peers, frames or rules. Whatever changes the document, it hands back the *delta* (what
the document says changed, as an update) and remembers *where* the change was (:class:`Touched`), so that
nobody ever has to walk the whole document to find out.

Text that it is known to take may wait (:meth:`SessionDoc.defer`). It is taken before anybody sees the document: there
is no way to it that does not lead through :attr:`SessionDoc.doc` or :attr:`SessionDoc.roots`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pycrdt import Doc, TransactionEvent

from crdt_sessions.errors import BadValue, MalformedUpdate, UpdateError
from crdt_sessions.model import layout
from crdt_sessions.model.deferred import MAX_BYTES, DeferredText, DocumentFailed
from crdt_sessions.model.extent import holds, waits
from crdt_sessions.model.known_runs import KnownRuns
from crdt_sessions.model.library import apply_guarded, guarded, is_panic, merge
from crdt_sessions.model.touched import Touched, watch
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.update_v1 import NO_DELETIONS, may_hold_pairs
from crdt_sessions.wire.varint import decode_state_vector

Result = TypeVar("Result")

_NOTHING = b"\x00"
"""The state vector of an empty document."""
_MANY = 256
_WHOLE = 4096
"""Bytes from which on an update to an empty document is taken for a document."""


@dataclass(slots=True)
class _Notes:
    """What the document's observer writes down."""

    deltas: list[bytes] = field(default_factory=list)
    known: bool = False
    """Whether what changes is known without asking the library, which takes longer than the change."""
    deletes: bool = False
    """Whether what was known has deleted something."""


class SessionDoc:
    """A session's document, guarded.

    Args:
        client_id: the Yjs client id for changes made here; must be fresh and random for every load,
            since a reused id whose last updates were lost makes replicas diverge for good.
    """

    def __init__(self, client_id: int) -> None:
        self._doc: Doc[Any] = Doc(client_id=client_id)
        self._deferred = DeferredText()
        self._notes = notes = _Notes()
        self._touched = Touched()
        self._known_runs = KnownRuns()
        self._waiting = EMPTY_UPDATE
        self._complete = _NOTHING  # the state vector before anything waited
        self._pairs: bool | None = None  # whether there may be any in what was looked at; None if nothing was
        self._unlooked: list[bytes] = []  # what came since
        self._roots = layout.roots(self._doc)

        # Observers only take notes: an exception in one would leave the mutating call after the change (P9),
        # and they are closures without self because pycrdt keeps them alive (P10).
        def note_delta(event: TransactionEvent) -> None:
            if not notes.known:
                notes.deltas.append(event.update)
            elif event.delete_set != NO_DELETIONS:  # type: ignore[attr-defined]  # pycrdt's stubs do not name it
                notes.deletes = True

        self._noting: list[tuple[Any, Any]] = [(self._doc, self._doc.observe(note_delta))]
        self._watching = watch(self._roots, self._touched, self._known_runs.forget)

    def close(self) -> None:
        """Release the native subscriptions; without this the document is never freed."""
        for subscriptions in (self._noting, self._watching):
            _unsubscribe(subscriptions)
        self._deferred.clear()
        self._known_runs.forget_all()

    # -- what waits to be taken ------------------------------------------------------------------------------------

    @property
    def doc(self) -> Doc[Any]:
        """The library's document. Nothing is deferred any more when this returns.

        Raises:
            DocumentFailed: as :meth:`settle`.
        """
        if self._deferred.bytes:
            self.settle()
        return self._doc

    @property
    def roots(self) -> layout.Roots:
        """Its root types. Do not keep them: whoever does reads on without what was deferred since.

        Raises:
            DocumentFailed: as :meth:`settle`.
        """
        if self._deferred.bytes:
            self.settle()
        return self._roots

    @property
    def known_runs(self) -> KnownRuns:
        """What was read of ``runs`` and stands.

        Raises:
            DocumentFailed: as :meth:`settle`.
        """
        if self._deferred.bytes:
            self.settle()
        return self._known_runs

    @property
    def behind(self) -> bool:
        """Whether something is deferred."""
        return bool(self._deferred.bytes)

    def defer(self, client: int, clock: int, update: bytes, at: int) -> None:
        """Take an update later, of which is known that the document takes it. Arguments as of :class:`DeferredText`.

        Neither the delta nor :class:`Touched` will tell of it. It must go on where the last text of its client ends.

        Raises:
            DocumentFailed: as :meth:`settle`.
        """
        self._deferred.add(client, clock, update, at)
        if self._deferred.bytes > MAX_BYTES:
            self.settle()

    def settle(self) -> None:
        """Take what was deferred.

        Raises:
            DocumentFailed: the document does not take it. It raises again whenever the document is asked for.
        """
        notes, touched, deferred = self._notes, self._touched, self._deferred
        notes.known = touched.known = True
        try:
            for update in deferred.updates():
                self._integrate(update, begins=False)
        except UpdateError as error:
            raise DocumentFailed from error
        finally:
            notes.known = touched.known = False
        if deferred.bytes and not deferred.held_by(decode_state_vector(self._doc.get_state())):
            raise DocumentFailed
        deferred.clear()

    # -- changing --------------------------------------------------------------------------------------------------

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
        held = self._notes.deltas == [update] or not waits(self.doc, update)
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
            apply_guarded(self._doc, update)
            return
        _unsubscribe(self._watching)
        try:
            apply_guarded(self._doc, update)
        except MalformedUpdate:
            self._watching = watch(self._roots, self._touched, self._known_runs.forget)
            raise
        self._watching = watch(self._roots, self._touched, self._known_runs.forget)
        self._known_runs.forget_all()
        touched, roots = self._touched, self._roots
        touched.meta.update(roots.meta.keys())
        for root in (roots.messages, roots.delegated):
            touched.messages.update((message_id, {"*"}) for message_id in list(root.keys()))
        touched.runs.update(roots.runs.keys())
        touched.suggestions.update(roots.suggestions.keys())
        touched.edits.update(roots.edits.keys())

    def append(self, update: bytes) -> bool:
        """Apply an update of which is known that it is new and waits for nothing: it is itself what changes.

        Returns:
            whether anything is deleted by it, itself included, though it deletes nothing by its shape. That is so
            where it is the entry of a map, or in something that is deleted.

        Raises:
            UpdateError: as :meth:`apply`.
        """
        doc, notes = self.doc, self._notes
        notes.known, notes.deletes = True, False
        try:
            self._integrate(update, begins=len(update) >= _WHOLE and doc.get_state() == _NOTHING)
        finally:
            notes.known = False
        return notes.deletes

    def _retry(self) -> None:
        """Apply again what waits.

        The library keeps an update that lacks another one, but does not always notice when that arrives
        (docs/decisions/0005-waiting-updates.md).
        """
        progress = True
        while self._waiting != EMPTY_UPDATE and progress:
            events = len(self._notes.deltas)
            apply_guarded(self._doc, self._waiting)
            if not waits(self._doc, self._waiting):
                self._waiting = EMPTY_UPDATE
                # What came after the gap was in no delta so far; now everybody gets all of it.
                self._notes.deltas[:] = [self._doc.get_update(self._complete)]
            progress = len(self._notes.deltas) > events

    def transact(self, change: Callable[[SessionDoc], Result], origin: str = "local") -> Result:
        """Run *change* in one transaction and return its result; :meth:`take_delta` has what changed.

        A CRDT cannot roll back: what *change* did before it raised stays, and is in the delta.

        Raises:
            BadValue: *change* wrote something that the library panics on.
        """
        known, doc = self._known_runs, self.doc
        within, known.changing = known.changing, True
        try:
            with doc.transaction(origin=origin):
                try:
                    return change(self)
                except BaseException as error:
                    if not is_panic(error):
                        raise
                    raise BadValue(where="", why="the document cannot hold it") from error
        finally:
            known.changing = within

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
        return self._touched.take()

    @property
    def touched(self) -> bool:
        """Whether :meth:`take_touched` has something to tell."""
        touched = self._touched  # asked for each token
        return bool(touched.messages or touched.meta or touched.runs or touched.suggestions or touched.edits)

    @property
    def may_hold_pairs(self) -> bool:
        """Whether there may be text beyond the basic plane: two UTF-16 units each, of which Yjs can take one."""
        if self._deferred.bytes:
            self.settle()
        return self._looked()

    def _looked(self) -> bool:
        if self._pairs is None:
            self._pairs = may_hold_pairs(self._doc.get_update())
        if self._unlooked:
            self._pairs = may_hold_pairs(b"".join(self._unlooked))
            self._unlooked.clear()
        return self._pairs

    def _look_later(self, update: bytes) -> None:
        """Have *update* looked at for pairs, together with others: most are tokens."""
        self._unlooked.append(update)
        if len(self._unlooked) == _MANY or len(update) > _WHOLE:
            self._pairs = self._looked()

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


def _unsubscribe(subscriptions: list[tuple[Any, Any]]) -> None:
    for target, subscription in subscriptions:
        target.unobserve(subscription)
    subscriptions.clear()

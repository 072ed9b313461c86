"""Applies updates to a session's document, and has it decided what follows from them.

The one place where the document moves. An update is bound to its author and applied, and is a row to be stored; what
its author may not have written is put back; the steward decides about the rest, and what it decided is mirrored in
the document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from crdt_sessions.errors import LeaseLost, MalformedUpdate, PanickedUpdate, TooLarge, WrongLineage
from crdt_sessions.ids import ClientId, Millis, PeerId, Seq
from crdt_sessions.limits import Limits
from crdt_sessions.model import Later, Pairs, SessionView, Touched, lineage_in, split
from crdt_sessions.sync.actor import NOBODY_KNOWN, Actor, Asker
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.changes import ChangeIndex
from crdt_sessions.sync.events import (
    ClosePeer,
    Describe,
    Effect,
    Harmless,
    Persist,
    RunReady,
    Trusted,
    Violation,
)
from crdt_sessions.sync.log import UpdateLog
from crdt_sessions.sync.panics import Panics
from crdt_sessions.sync.peers import Peer
from crdt_sessions.sync.plain import Inspector, Passed
from crdt_sessions.sync.records import Records, Writer
from crdt_sessions.sync.rules import FieldRules
from crdt_sessions.sync.runs import RunSteward
from crdt_sessions.sync.steward import Steward
from crdt_sessions.sync.waiting import WaitingUpdates
from crdt_sessions.sync.writers import Writers
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import decode_state_vector

Owner = TypeVar("Owner")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

_MAX_TITLE = 500
_NOWHERE = Touched()
Vouched = Passed | Harmless | Trusted
"""Why an update may meet the document: its shape, a trial, or that nobody is there who would try it."""


class EngineFailed(Exception):
    """Something raised after memory had moved; its cause says what.

    What the engine holds may be ahead of what it told, so it must not be used any more.
    """


def moved(method: Callable[Concatenate[Owner, Arguments], Result]) -> Callable[Concatenate[Owner, Arguments], Result]:
    """Let no error of what happens after memory moved pass for a refusal, of which nothing remains."""

    @wraps(method)
    def guarded(owner: Owner, /, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        try:
            return method(owner, *arguments, **named)
        except EngineFailed:
            raise
        except Exception as error:
            raise EngineFailed from error

    return guarded


class Merger:
    """What moves the document of one session.

    Args:
        session: the session's id, for errors.
        view: its document.
        lineage: what its beginning is known by.
        log: where what changed is appended.
        changes: noted for readers of the document.
        runs: decides about runs.
        steward: decides about the rest.
        writers: whose the Yjs clients are.
        waiting: what needs something that has not arrived.
        peers: the connections, to close those of leases that were taken away.
        limits: sizes.
        panics: updates on which the library is known to panic.
        aside: what nothing is to follow from.
    """

    def __init__(
        self,
        session: str,
        view: SessionView,
        lineage: str,
        *,
        log: UpdateLog,
        changes: ChangeIndex,
        runs: RunSteward,
        steward: Steward,
        writers: Writers,
        waiting: WaitingUpdates,
        peers: Mapping[PeerId, Peer],
        limits: Limits,
        panics: Panics,
        aside: Aside,
    ) -> None:
        self.document = view.document
        self._session = session
        self._view = view
        self._lineage = lineage
        self._log = log
        self._changes = changes
        self._steward = steward
        self._writers = writers
        self._waiting = waiting
        self._peers = peers
        self._limits = limits
        self._panics = panics
        self._inspector = Inspector(view.document)
        self._pairs = Pairs(view.document)
        self._rules = FieldRules(view, runs, aside, writers.principal_of)
        self._size_bound = len(view.document.encode())
        self._vector = (log.head, view.document.state_vector())

    def start(self, now: Millis) -> None:
        """Settle what the loaded document left open; :meth:`carry_out` has what follows."""
        self.document.take_touched()
        found = self._view.messages
        messages: dict[str, set[str]] = {message_id: set() for message_id in (*found.ids(), *found.ids_beside())}
        everything = Touched({"title"}, messages, set(self._view.runs.ids()))
        self._changes.note(everything, self._log.head)
        self._steward.start(now)  # the document does not change by that
        self._rules.start()

    # -- reading -------------------------------------------------------------------------------------------------

    def passes(self, update: bytes) -> Passed | None:
        """Return the shape of an update that is harmless by it; None if it must be tried first.

        Raises:
            MalformedUpdate: the library is known to panic on it.
        """
        passed = self._inspector.passes(update)
        if passed is None and update in self._panics:
            raise MalformedUpdate(size=len(update))
        return passed

    def clocks(self) -> Mapping[int, int]:
        """Return what the document has, as clocks by client."""
        return self._inspector.clocks()

    def all_there_is(self) -> tuple[Seq, bytes]:
        """Return the last log entry and the document's state vector, of which peers share the bytes."""
        if self._vector[0] != self._log.head:
            self._vector = (self._log.head, self.document.state_vector())
        return self._vector

    def holds(self, update: bytes, verdict: Vouched) -> bool:
        """Tell whether the document holds all of a foreign update.

        Raises:
            UpdateError: it cannot be decoded.
            WrongLineage: it is of another session.
        """
        if isinstance(verdict, Harmless):
            return verdict.held
        held = self.document.contains(update)
        if not held:
            self._check_lineage(update)
        return held

    def check_size(self, growth: int) -> None:
        """Return if the document may grow by so many bytes.

        Raises:
            TooLarge: it would exceed its limit.
        """
        limit = self._limits.max_document_bytes
        if self._size_bound + growth > limit:
            self._size_bound = len(self.document.encode())
            if self._size_bound + growth > limit:
                raise TooLarge(what="the document", size=self._size_bound + growth, limit=limit)

    # -- writing -------------------------------------------------------------------------------------------------

    def merge(
        self,
        update: bytes,
        verdict: Vouched,
        author: PeerId | None,
        actor: Actor | None,
        now: Millis,
        *,
        foreign: bool = False,
    ) -> tuple[list[Effect], Later | None]:
        """Take an update that *verdict* vouches for; return the effects, and what of it must wait.

        Args:
            update: as it came.
            verdict: why it may meet the document.
            author: whose connection brought it, if one did.
            actor: for whom it is taken, if that is known.
            now: the time.
            foreign: whether it may be of another session.

        Raises:
            LeaseLost, ForeignWriter: it is by a client that is fenced, or somebody else's.
            WrongLineage: it is of another session.
            TooLarge, TooMany: there is no room for it.
            UpdateError: it cannot be applied.
        """
        self.check_size(len(update))
        if isinstance(verdict, Passed):
            return self._merge_passed(verdict, author, actor, now), None
        if isinstance(verdict, Harmless):
            if verdict.later is not None:
                self._check_waiting(verdict.later, author, actor)
            return self._merge_harmless(verdict, author, actor, now), verdict.later
        if not foreign:
            self._check_lineage(update)
        taken, clocks, later = split(update, self._inspector.clocks())
        if later is not None:
            self._check_waiting(later, author, actor)
        return self._merge_untried(taken, clocks, author, actor, now) if taken != EMPTY_UPDATE else [], later

    @moved
    def edited(self, now: Millis, by: Asker) -> list[Effect]:
        """Note what a change from within has done to the document, and have it decided what follows."""
        delta = self.document.take_delta()
        if delta is None:
            return []
        return [self._persist(delta, delta, None), *self._settle(now, by=by)]

    @moved
    def carry_out(self, actor: Actor | None = None) -> list[Effect]:
        """Mirror in the document what the steward has decided, and have both stored together."""
        if not self._steward.decided:
            return []
        decided = self._steward.take()
        fenced = self._writers.fence(self.document, decided.released) if decided.released else []
        decided.records.writers.update((writer.client, writer) for writer in fenced)
        delta: bytes | None = None
        if decided.writes:
            _, delta = self.document.edit(lambda _: [write(self._view) for write in decided.writes], origin="steward")
        effects: list[Effect] = []
        if actor is not None:
            effects += [Violation(actor.principal, what) for what in decided.restored]
        effects += decided.unreadable
        for deed in decided.deeds:
            cancelled = deed.action == "run.cancel" and actor is not None and actor.rights.bound
            effects.append(replace(deed, principal=actor.principal) if cancelled and actor is not None else deed)
        if delta is not None or decided.records:
            effects.append(self._persist(delta or EMPTY_UPDATE, delta, None, decided.records))
            effects += [RunReady(run.id) for run in decided.records.runs.values() if run.ready]
            self._rules.check(self._noted(), None)  # from here on that is how it is
        if decided.evicted:  # seldom, and a session may have a thousand peers
            for peer_id, peer in self._peers.items():
                lease = peer.actor.lease
                if lease is not None and lease in decided.evicted:
                    effects.append(ClosePeer(peer_id, LeaseLost(run=lease[0])))
        return effects

    def _merge_untried(
        self, update: bytes, clocks: Mapping[int, int], author: PeerId | None, actor: Actor | None, now: Millis
    ) -> list[Effect]:
        """Take an update after which the document must have these *clocks* of its clients."""
        self._writers.check(self.document, update)
        bound: Sequence[Writer] = ()
        if actor is not None and actor.lease is not None:
            run, epoch = actor.lease
            bound = self._writers.bind(self.document, update, principal=actor.principal, run=run, epoch=epoch)
        elif actor is not None and actor.rights.bound:
            bound = self._writers.claim(self.document, update, actor.principal)
        records = Records(writers={writer.client: writer for writer in bound})
        before, update = self._pairs.mended(update)
        effects = self._make_way(before)
        try:
            delta = self._apply(self.document.apply, update)
        except MalformedUpdate as error:
            if not before:
                raise
            raise PanickedUpdate(size=len(update)) from error  # something of it is in memory, and nowhere else
        after = decode_state_vector(self.document.state_vector())
        if any(after.get(client, 0) != clock for client, clock in clocks.items()):
            self._panics.add(update)
            raise PanickedUpdate(size=len(update))  # the library did not integrate what the update says
        if delta is not None:
            effects.append(self._persist(update, delta, author, records))
        if not effects:
            return []  # an echo: it is stored already, or on its way
        return [*effects, *self._settle(now, actor=actor)]

    def _make_way(self, before: Sequence[bytes]) -> list[Effect]:
        """Apply what an update needs to be harmless, each in a transaction of its own, here and everywhere."""
        effects: list[Effect] = []
        for each in before:
            delta = self._apply(self.document.apply, each)
            effects.append(self._persist(each, delta, None))
            self._log.cut()
        return effects

    def _check_lineage(self, update: bytes) -> None:
        """Return if *update* does not bring the beginning of another session along. Elsewhere the sandbox looks."""
        theirs = lineage_in(update, self.all_there_is()[1])
        if theirs is not None and theirs != self._lineage:
            raise WrongLineage(session=self._session, theirs=theirs, ours=self._lineage)

    def _merge_passed(self, passed: Passed, author: PeerId | None, actor: Actor | None, now: Millis) -> list[Effect]:
        """Merge what a client put next to other text, which is most of what there ever is, or something new."""
        update, stream = passed.update, passed.stream
        records = self._bind((ClientId(passed.client),), actor)
        if stream is not None and stream.messages is not None and update not in self._panics:
            self.document.defer(stream.client, passed.clock, update, len(stream.expected))  # nobody needs it yet
            persist = self._persist(update, update, author, records, passed)
            self._changes.note_messages(stream.messages, self._log.head)
            return [persist]
        deletes = self._apply(self.document.append, update)
        persist = self._persist(update, update, author, records, passed)
        if deletes:
            self._inspector.forget_streams()
        touched = self._noted() if self.document.touched else _NOWHERE
        if passed.arrays is None and touched.only_text:  # about text there is nothing to be decided
            if stream is not None:
                self._inspector.learn(stream, tuple(touched.messages))
            return [persist]
        return [persist, *self._judge(touched, now, actor)]

    def _bind(self, found: Sequence[ClientId], actor: Actor | None) -> Records | None:
        """Check and note whose clients these are, by whom there is something new; return what goes on record.

        Raises:
            LeaseLost: one of them is fenced, or writes for another lease than *actor*.
            ForeignWriter: one of them is somebody else's.
        """
        self._writers.check_authors(found)
        bound: Sequence[Writer] = ()
        if actor is not None and actor.lease is not None:
            run, epoch = actor.lease
            bound = self._writers.bind_authors(found, principal=actor.principal, run=run, epoch=epoch)
        elif actor is not None and actor.rights.bound:
            bound = self._writers.claim_authors(found, actor.principal)
        return Records(writers={writer.client: writer for writer in bound}) if bound else None

    def _merge_harmless(
        self, verdict: Harmless, author: PeerId | None, actor: Actor | None, now: Millis
    ) -> list[Effect]:
        records = self._bind(verdict.authors, actor)
        effects = self._make_way(verdict.before)
        delta = self._apply(self.document.apply, verdict.delta) if verdict.delta is not None else None
        if verdict.delta is not None and delta is not None:
            # The sandbox's bytes, not the document's, which are other ones each time: keys of objects come in any
            # order.
            effects.append(self._persist(verdict.delta, delta, author, records))
        return [*effects, *self._settle(now, actor=actor)] if effects else []  # nothing: an echo

    def _apply(self, how: Callable[[bytes], Result], update: bytes) -> Result:
        if update in self._panics:
            raise MalformedUpdate(size=len(update))
        try:
            return how(update)
        except PanickedUpdate:
            self._panics.add(update)
            raise

    def _persist(
        self,
        update: bytes,
        delta: bytes | None,
        author: PeerId | None,
        records: Records | None = None,
        passed: Passed | None = None,
    ) -> Persist:
        self._size_bound += len(update)
        self._inspector.took(update, passed)
        return Persist(self._log.append(delta, author), update, records)

    def _settle(self, now: Millis, *, actor: Actor | None = None, by: Asker = NOBODY_KNOWN) -> list[Effect]:
        """Note what changed, put back what *actor* may not have written, and let the steward decide."""
        self._changes.note_elsewhere(self._log.head)
        return self._judge(self._noted(), now, actor, by) if self.document.touched else []

    def _noted(self) -> Touched:
        """Return what the document has been changed in, and note it for readers."""
        touched = self.document.take_touched()
        self._changes.note(touched, self._log.head)
        return touched

    @moved
    def _judge(self, touched: Touched, now: Millis, actor: Actor | None, by: Asker = NOBODY_KNOWN) -> list[Effect]:
        """Put back what *actor* may not have written, and let the steward decide about the rest."""
        effects: list[Effect] = self._put_back(touched, actor)
        if "title" in touched.meta:
            title = self.document.roots.meta.get("title")
            effects.append(Describe(title[:_MAX_TITLE] if isinstance(title, str) else None))
        if actor is not None:
            known = actor.rights.bound
            by = Asker(actor.principal, actor.rights.decide, actor.lease) if known else Asker(lease=actor.lease)
        self._steward.decide(touched, now, by)
        return effects + self.carry_out(actor)

    def _put_back(self, touched: Touched, actor: Actor | None) -> list[Effect]:
        writes, violated = self._rules.check(touched, actor)
        if actor is None or not violated:
            return []
        effects: list[Effect] = [Violation(actor.principal, what) for what in violated]
        _, delta = self.document.edit(lambda _: [write(self._view) for write in writes], origin="steward")
        if delta is not None:
            effects.append(self._persist(delta, delta, None))
            self._noted()
        return effects

    def _check_waiting(self, later: Later, author: PeerId | None, actor: Actor | None) -> None:
        """Return if something may wait.

        Raises:
            LeaseLost, ForeignWriter: it is by a client that is fenced, or somebody else's.
            TooMany: there is no room for more.
        """
        self._writers.check_authors(later.authors)
        if actor is not None and actor.rights.bound:
            self._writers.check_owners(later.authors, actor.principal)
        if author is not None:
            self._waiting.check_room(later, author)

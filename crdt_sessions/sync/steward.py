"""The steward: the part of the server that decides what a CRDT cannot.

What the document says, what is on record, now -> writes. Proposals are data that anyone may write, also
offline; decisions are written once, here. Layout 1, section "Who decides":

* a message's place in the session's order (``seq``), and who wrote it (``by``) where that is known, once;
* everything about runs (:mod:`crdt_sessions.sync.runs`);
* whose a suggestion is, and which decision about a piece of it counts (:mod:`crdt_sessions.sync.suggestions`);
* the keys of ``meta`` that belong to the server.

What a peer overwrites of it is restored in the next turn. What is not of layout 1 is left where it stands, nothing
follows from it, and that is said once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from crdt_sessions.ids import Millis
from crdt_sessions.model import MessageHead, Run, SessionView, Touched
from crdt_sessions.model.checks import NO_MAP
from crdt_sessions.model.layout import meta_flaw
from crdt_sessions.model.strings import ID_CHARACTERS, NOT_AN_ID, is_id
from crdt_sessions.sync.actor import NOBODY_KNOWN, Asker
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.records import Asked, Posted, Unreadable
from crdt_sessions.sync.runs import RunDecisions, RunSteward, Write
from crdt_sessions.sync.suggestions import SuggestionSteward

_MAX_TOLD = 1000
_MAX_WHY = 500


class Steward:
    """Decides for one session.

    Args:
        view: the session's document.
        meta: the keys of ``meta`` that belong to the server, with their values on record.
        runs: decides about runs.
        aside: what is not to be decided about.
    """

    def __init__(self, view: SessionView, meta: dict[str, Any], runs: RunSteward, aside: Aside | None = None) -> None:
        self._aside = aside or Aside()
        self._view = view
        self._meta = meta
        self._runs = runs
        self._suggestions = SuggestionSteward(view, self._aside)
        self._seqs: dict[str, int] = {}
        self._by: dict[str, str | None] = {}
        self._restored: list[str] = []
        self._unreadable: list[Unreadable] = []
        self._told: set[tuple[str, str]] = set()
        self._last_seq = 0
        self._writes: list[Write] = []

    def record_meta(self, key: str, value: Any) -> None:
        """Change the record of a key of ``meta``; the document follows with the next :meth:`take`."""
        self._meta[key] = value
        self._settle_meta([key])
        self._restored.clear()

    def recorded(self, key: str) -> Any:
        """Return the record of a key of ``meta``, whatever a peer has written there meanwhile."""
        return self._meta[key]

    def start(self, now: Millis) -> None:
        """Take on record what a loaded document has settled already, and decide what it left open."""
        open_messages: dict[str, set[str]] = {}
        for message_id in self._view.messages.ids():
            if self._aside.left("place", message_id):
                continue
            with self._aside.about("place", message_id):
                message = self._view.messages.find(message_id)
                seq = message.seq if message is not None else None
                by = message.by if message is not None else None
            if seq is None:
                open_messages[message_id] = {"*"}
            else:
                self._seqs[message_id] = seq
                self._by[message_id] = by
                self._last_seq = max(self._last_seq, seq)
        self._runs.start(now)
        self._suggestions.start()
        found = self._view.runs
        open_runs = {run_id for run_id, entry in found.entries() if not self._runs.is_settled(run_id, entry)}
        runs = (run for run_id in open_runs if (run := found.value(run_id)) is not None and not run.over)
        outputs: dict[str, set[str]] = {run.output: set() for run in runs if run.output is not None}
        proposed = set(self._view.suggestions.ids())
        touched = Touched(set(self._meta), outputs | open_messages, open_runs, proposed)
        self.decide(touched, now, Asker(decides=False))
        self._restored.clear()

    def decide(self, touched: Touched, now: Millis, by: Asker = NOBODY_KNOWN) -> None:
        """Decide what *touched* left unsettled; :meth:`take` has what follows from it.

        *by* is who touched it, as far as that is known.
        """
        self._settle_meta(touched.meta)
        self._settle_runs(touched.runs, now, by)
        self._settle_order(touched.messages, now, by)
        if touched.suggestions:
            writes, restored = self._suggestions.look_at(touched.suggestions, now, by)
            self._writes += writes
            self._restored += restored
        for message_id in touched.messages:
            if not self._aside.left("message", message_id):
                with self._aside.about("message", message_id):
                    self._runs.look_at_message(message_id, now)

    @property
    def decided(self) -> bool:
        """Whether :meth:`take` has something to tell."""
        return bool(self._writes or self._restored or self._unreadable) or self._runs.table.has_decided

    def take(self) -> RunDecisions:
        """Return what was decided since the last call."""
        decided = self._runs.table.take()
        for asked in decided.asked:
            self._last_seq += 1
            self._seqs[asked.head.id], self._by[asked.head.id] = self._last_seq, asked.by
            self._writes.append(_add_question(asked))
            self._write_place(asked.head.id)
        decided.writes[:0] = self._writes
        decided.restored += self._restored
        decided.unreadable += self._unreadable
        self._writes, self._restored, self._unreadable = [], [], []
        return decided

    def _settle_meta(self, keys: Collection[str]) -> None:
        if not keys:
            return
        for key, value in self._view.meta_values(keys).items():
            if (flaw := meta_flaw(key, value)) is not None:
                self._cannot_read(f"meta.{key}", "", [flaw])
            if key in self._meta and value != self._meta[key]:
                self._writes.append(_set_meta(key, self._meta[key]))
                self._restored.append(f"meta.{key}")

    def _cannot_read(self, where: str, id: str, flaws: list[str]) -> None:
        """Have it told once for each entry that it is not of layout 1; of a thousand, and then no more."""
        if flaws and (where, id) not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add((where, id))
            self._unreadable.append(Unreadable(where, id[:ID_CHARACTERS], "; ".join(flaws)[:_MAX_WHY]))

    def _settle_runs(self, run_ids: Iterable[str], now: Millis, by: Asker) -> None:
        runs: list[Run] = []
        for run_id in run_ids:
            if not self._aside.left("run", run_id):
                with self._aside.about("run", run_id):
                    runs.append(self._read_run(run_id))
        for run in sorted(runs, key=lambda run: (run.request.created_at if run.request is not None else 0, run.id)):
            with self._aside.about("run", run.id):
                self._runs.look_at_run(run, now, by)

    def _read_run(self, run_id: str) -> Run:
        run, flaws = self._view.runs.read(run_id)
        self._cannot_read("runs", run_id, flaws if is_id(run_id) else [f"the id is not one: {NOT_AN_ID}"])
        return run or Run(id=run_id)

    def _settle_order(self, touched: dict[str, set[str]], now: Millis, by: Asker) -> None:
        heads: list[MessageHead] = []
        foreign: set[str] = set()
        for message_id, keys in touched.items():
            if self._view.messages.is_beside(message_id):
                continue  # it has no place in the conversation
            if not self._aside.left("place", message_id):
                with self._aside.about("place", message_id):
                    self._look_at_place(message_id, keys, heads, foreign)
        for head in self._in_order(heads):
            self._last_seq += 1
            self._seqs[head.id] = self._last_seq
            self._by[head.id] = by.principal
            self._write_place(head.id)
            if head.role == "user" and head.id not in foreign and not head.imported:
                self._runs.table.decided.records.posted.append(Posted(head.id, head.author.id, now))
            if head.id not in foreign and not self._aside.left("question", head.id):
                with self._aside.about("question", head.id):
                    self._runs.answer(head, now, by)

    def _look_at_place(self, message_id: str, keys: set[str], heads: list[MessageHead], foreign: set[str]) -> None:
        """Restore a message's place, or note its head among those that have none yet."""
        settled = self._seqs.get(message_id)
        if settled is None:
            if (head := self._new_head(message_id)) is not None:
                heads.append(head)
                if self._view.messages[message_id].seq is not None:
                    foreign.add(message_id)  # it has a place in another session, where it was answered
            return
        message = self._view.messages.find(message_id)
        if message is None:
            return
        if "head" in keys:
            self._restored.append("head")  # written once; the overwriting is reported, and versions keep it
        if keys & {"*", "seq", "by"} and (message.seq, message.by) != (settled, self._by[message_id]):
            self._write_place(message_id)
            self._restored.append("seq" if message.seq != settled else "by")

    def _write_place(self, message_id: str) -> None:
        write = _set_place(message_id, self._seqs[message_id], self._by[message_id])
        self._writes.append(self._aside.blaming("place", message_id, write))

    def _in_order(self, heads: list[MessageHead]) -> list[MessageHead]:
        """Return new messages as they were written: by time, and as their client wrote them where that is the same.

        None stands in front of what it comes after or takes the place of, whatever clocks say.
        """
        if len(heads) < 2:
            return heads
        waiting = {head.id: head for head in sorted(heads, key=self._key)}
        ordered: list[MessageHead] = []
        for head in list(waiting.values()):
            path: list[MessageHead] = []
            next_up = waiting.pop(head.id, None)
            while next_up is not None:
                path.append(next_up)
                next_up = waiting.pop(next_up.parent or next_up.replaces or "", None)
            ordered += reversed(path)
        return ordered

    def _key(self, head: MessageHead) -> tuple[int, int, int, str]:
        return head.created_at, *self._view.messages[head.id].written, head.id

    def _new_head(self, message_id: str) -> MessageHead | None:
        """Return the head of a message that has no place yet; None if it has not come, or cannot be read."""
        message = self._view.messages.find(message_id)
        if message is None:
            if message_id in self._view.messages:
                self._cannot_read("messages", message_id, [NO_MAP])
            return None
        head = message.head
        self._cannot_read("messages", message_id, message.flaws() if head is None else message.part_flaws())
        return head


def _set_meta(key: str, value: Any) -> Write:
    def write(view: SessionView) -> None:
        view.document.roots.meta[key] = value

    return write


def _add_question(asked: Asked) -> Write:
    def write(view: SessionView) -> None:
        view.messages.add(asked.head, asked.parts)

    return write


def _set_place(message_id: str, seq: int, by: str | None) -> Write:
    def write(view: SessionView) -> None:
        view.messages[message_id].seq = seq
        view.messages[message_id].by = by

    return write

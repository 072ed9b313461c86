"""The steward: the part of the server that decides what a CRDT cannot.

What the document says, what is on record, now -> writes. Proposals are data that anyone may write, also
offline; decisions are written once, here. Layout 1, section "Who decides":

* a message's place in the session's order (``seq``), and who wrote it (``by``) where that is known, once;
* everything about runs (:mod:`crdt_sessions.sync.runs`);
* the keys of ``meta`` that belong to the server.

What a peer overwrites of it is restored in the next turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from crdt_sessions.ids import Millis
from crdt_sessions.model import MessageHead, Run, SessionView, Touched
from crdt_sessions.sync.runs import RunDecisions, RunSteward, Write


class Steward:
    """Decides for one session.

    Args:
        view: the session's document.
        meta: the keys of ``meta`` that belong to the server, with their values on record.
        runs: decides about runs.
    """

    def __init__(self, view: SessionView, meta: dict[str, Any], runs: RunSteward) -> None:
        self._view = view
        self._meta = meta
        self._runs = runs
        self._seqs: dict[str, int] = {}
        self._by: dict[str, str | None] = {}
        self._restored: list[str] = []
        self._last_seq = 0
        self._writes: list[Write] = []

    def record_meta(self, key: str, value: Any) -> None:
        """Change what is on record for a key of ``meta``; the document follows with the next :meth:`take`."""
        self._meta[key] = value
        self._settle_meta([key])
        self._restored.clear()

    def recorded(self, key: str) -> Any:
        """Return what is on record for a key of ``meta``, whatever a peer has written there meanwhile."""
        return self._meta[key]

    def start(self, now: Millis) -> None:
        """Take on record what a loaded document has settled already, and decide what it left open."""
        open_messages: dict[str, set[str]] = {}
        for message_id in self._view.messages.ids():
            message = self._view.messages.find(message_id)
            seq = message.seq if message is not None else None
            if seq is None:
                open_messages[message_id] = {"*"}
            else:
                self._seqs[message_id] = seq
                self._by[message_id] = message.by if message is not None else None
                self._last_seq = max(self._last_seq, seq)
        self._runs.start(now)
        runs = self._view.runs.all()
        outputs: dict[str, set[str]] = {run.output: set() for run in runs if run.output is not None and not run.over}
        self.decide(Touched(set(self._meta), outputs | open_messages, {run.id for run in runs}), now)
        self._restored.clear()

    def decide(self, touched: Touched, now: Millis, by: str | None = None) -> None:
        """Decide what *touched* left unsettled; :meth:`take` has what follows from it.

        *by* is the principal who touched it, if that is known.
        """
        self._settle_meta(touched.meta)
        self._settle_runs(touched.runs, now)
        self._settle_order(touched.messages, now, by)
        for message_id in touched.messages:
            self._runs.look_at_message(message_id, now)

    @property
    def decided(self) -> bool:
        """Whether :meth:`take` has something to tell."""
        return bool(self._writes or self._restored) or self._runs.decided

    def take(self) -> RunDecisions:
        """Return what was decided since the last call."""
        decided = self._runs.take()
        decided.writes[:0] = self._writes
        decided.restored += self._restored
        self._writes, self._restored = [], []
        return decided

    def _settle_meta(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self._meta and self._view.document.roots.meta.get(key) != self._meta[key]:
                self._writes.append(_set_meta(key, self._meta[key]))
                self._restored.append(f"meta.{key}")

    def _settle_runs(self, run_ids: Iterable[str], now: Millis) -> None:
        runs = [self._view.runs.value(run_id) or Run(id=run_id) for run_id in run_ids]
        for run in sorted(runs, key=lambda run: (run.request.created_at if run.request is not None else 0, run.id)):
            self._runs.look_at_run(run, now)

    def _settle_order(self, touched: dict[str, set[str]], now: Millis, by: str | None) -> None:
        heads: list[MessageHead] = []
        foreign: set[str] = set()
        for message_id, keys in touched.items():
            message = self._view.messages.find(message_id)
            if message is None:
                continue
            settled = self._seqs.get(message_id)
            if settled is None:
                if (head := message.head) is not None:  # else it may come in a transaction of its own
                    heads.append(head)
                    if message.seq is not None:  # it has a place in another session, where it was answered
                        foreign.add(message_id)
                continue
            if "head" in keys:
                self._restored.append("head")  # written once; whoever overwrote it is told of, and versions have it
            if keys & {"*", "seq", "by"} and (message.seq, message.by) != (settled, self._by[message_id]):
                self._writes.append(_set_place(message_id, settled, self._by[message_id]))
                self._restored.append("seq" if message.seq != settled else "by")
        for head in sorted(heads, key=lambda head: (head.created_at, head.id)):
            self._last_seq += 1
            self._seqs[head.id] = self._last_seq
            self._by[head.id] = by
            self._writes.append(_set_place(head.id, self._last_seq, by))
            if head.id not in foreign:
                self._runs.answer(head, now)


def _set_meta(key: str, value: Any) -> Write:
    def write(view: SessionView) -> None:
        view.document.roots.meta[key] = value

    return write


def _set_place(message_id: str, seq: int, by: str | None) -> Write:
    def write(view: SessionView) -> None:
        view.messages[message_id].seq = seq
        view.messages[message_id].by = by

    return write

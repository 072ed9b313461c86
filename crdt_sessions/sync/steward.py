"""The steward: the part of the server that decides what a CRDT cannot.

It is a pure function: what the document says, what is on record, now -> writes. Proposals are data that
anyone may write, also offline; decisions are written once, here. Layout 1, section "Who decides":

* a message's place in the session's order (``seq``), once;
* a run's status and outcome, from what was requested and what the agent reported (``result``);
  a terminal status is final;
* the keys of ``meta`` that belong to the server.

What a peer overwrites of it is restored in the next turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from crdt_sessions.ids import Millis
from crdt_sessions.model import (
    TERMINAL_STATUSES,
    MessageHead,
    Run,
    RunOutcome,
    SessionView,
    Touched,
)

Write = Callable[[SessionView], None]


class Steward:
    """Decides for one session.

    Args:
        meta: the keys of ``meta`` that belong to the server, with their values on record.
    """

    def __init__(self, meta: dict[str, Any]) -> None:
        self._meta = meta
        self._seqs: dict[str, int] = {}
        self._last_seq = 0
        self._runs: dict[str, Run] = {}

    def record_meta(self, key: str, value: Any) -> None:
        """Change what is on record for a key of ``meta``; the document follows in the next turn."""
        self._meta[key] = value

    def recorded(self, key: str) -> Any:
        """Return what is on record for a key of ``meta``, whatever a peer has written there meanwhile."""
        return self._meta[key]

    def read(self, view: SessionView) -> Touched:
        """Take on record what a loaded document has settled already; return what is to be looked at."""
        unsettled: dict[str, set[str]] = {}
        for message_id in view.messages.ids():
            message = view.messages.find(message_id)
            seq = message.seq if message is not None else None
            if seq is None:
                unsettled[message_id] = {"*"}
            else:
                self._seqs[message_id] = seq
                self._last_seq = max(self._last_seq, seq)
        for run in view.runs.all():
            if run.status in TERMINAL_STATUSES and run.outcome is not None:
                self._runs[run.id] = run
        return Touched(set(self._meta), unsettled, set(view.runs.ids()))

    def decide(self, view: SessionView, touched: Touched, now: Millis) -> list[Write]:
        """Return the writes that settle what *touched* left unsettled; none if all is well."""
        return [
            *self._settle_meta(view, touched.meta),
            *self._settle_order(view, touched.messages),
            *self._settle_runs(view, touched.runs, now),
        ]

    def _settle_meta(self, view: SessionView, keys: Iterable[str]) -> Iterable[Write]:
        for key in keys:
            if key in self._meta and view.document.roots.meta.get(key) != self._meta[key]:
                yield _set_meta(key, self._meta[key])

    def _settle_order(self, view: SessionView, touched: dict[str, set[str]]) -> Iterable[Write]:
        heads: list[MessageHead] = []
        for message_id, keys in touched.items():
            message = view.messages.find(message_id)
            if message is None:
                continue
            settled = self._seqs.get(message_id)
            if settled is None:
                if (head := message.head) is not None:  # else it may come in a transaction of its own
                    heads.append(head)
            elif keys & {"*", "seq"} and message.seq != settled:
                yield _set_seq(message_id, settled)
        for head in sorted(heads, key=lambda head: (head.created_at, head.id)):
            self._last_seq += 1
            self._seqs[head.id] = self._last_seq
            yield _set_seq(head.id, self._last_seq)

    def _settle_runs(self, view: SessionView, run_ids: Iterable[str], now: Millis) -> Iterable[Write]:
        for run_id in sorted(run_ids):
            run = view.runs.value(run_id)
            if run is None:
                continue
            settled = self._runs.get(run_id) or _settled(run, now)
            if settled.status in TERMINAL_STATUSES:
                self._runs[run_id] = settled
            if (run.status, run.outcome) != (settled.status, settled.outcome):
                yield _settle_run(settled)


def _settled(run: Run, now: Millis) -> Run:
    """Return *run* with the status and outcome that its request and its agent's report lead to."""
    result = run.result
    if result is None:
        return run.model_copy(update={"status": "queued", "outcome": None})
    if result.status not in TERMINAL_STATUSES:
        return run.model_copy(update={"status": result.status, "outcome": None})
    outcome = RunOutcome(reason=result.reason or result.status, error=result.error, ended_at=now)
    return run.model_copy(update={"status": result.status, "outcome": outcome})


def _set_meta(key: str, value: Any) -> Write:
    def write(view: SessionView) -> None:
        view.document.roots.meta[key] = value

    return write


def _set_seq(message_id: str, seq: int) -> Write:
    def write(view: SessionView) -> None:
        view.messages[message_id].seq = seq

    return write


def _settle_run(run: Run) -> Write:
    def write(view: SessionView) -> None:
        if run.status is not None:
            view.runs.settle(run.id, run.status, run.outcome)

    return write

"""Field rules: what stands in a document under somebody's name, or needs a right, is theirs or is taken back.

A CRDT takes whatever it is sent. So an update is applied first, and what its author may not write is put back in
the same turn, before anything is decided from it and before anybody else sees it alone:

* ``parts[i].decisions[<principal>]`` by anybody but that principal, or by one who may not decide,
  ``approvalRequest`` by anybody but the holder of the run's lease, and ``approval`` by anybody at all; of a decision
  that is put back it is said there why (``refused``);
* ``parts[i].offers[<device>]`` and ``results[<device>]`` in the name (``by``) of anybody but whoever writes it, and
  ``clientCall`` by anybody but the holder of the run's lease;
* ``runs[id].cancel`` and ``request`` by those who may not stop or ask; a ``request`` says who asks: the principal.
  The holder of a run's lease may ask for its children, which work for whom the run works for;
* ``runs[id].result`` and ``reported``, and ``superseded`` of the message that the run writes, by anybody but the
  holder of the lease;
* ``edits[id]`` by anybody but the principal whose client made the step (:mod:`crdt_sessions.sync.steps`).

What the server has settled (``seq``, ``status``, ``approval``, ...) the steward restores, whoever overwrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from crdt_sessions.ids import ClientId
from crdt_sessions.model import Decision, Question, Run, RunResult, SessionView, Touched, UsageReport
from crdt_sessions.sync.actor import Actor
from crdt_sessions.sync.approvals import refusal
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.runs import RunSteward
from crdt_sessions.sync.steps import StepRules

Write = Callable[[SessionView], None]
_BEGIN_ANEW = {"*", "superseded"}
"""Keys of a message with which ``superseded`` may have changed."""


class FieldRules:
    """The field rules of one session.

    Args:
        view: the session's document.
        runs: its runs on record.
        aside: what is not to be decided about; nothing follows from what is written there.
        owner: returns the principal whose a Yjs client is, if that is known.
    """

    def __init__(
        self, view: SessionView, runs: RunSteward, aside: Aside, owner: Callable[[ClientId], str | None]
    ) -> None:
        self._aside = aside
        self._steps = StepRules(view, owner)
        self._view = view
        self._runs = runs
        self._questions: dict[str, dict[str, Question]] = {}
        self._said: dict[str, tuple[RunResult | None, UsageReport | None]] = {}
        """What the holder of each run has said of it: how it goes on, and what it has cost."""
        self._superseded: dict[str, int] = {}

    def start(self) -> None:
        """Take what a loaded document says of unfinished runs as genuine: it was checked when it came."""
        self._steps.start()
        self._superseded = {each.id: gone for each in self._view.messages.all_views() if (gone := each.superseded)}
        for run in self._view.runs.unfinished():
            if not self._aside.left("run", run.id):
                with self._aside.about("run", run.id):
                    self._said[run.id] = (run.result, run.reported)
                    if run.output is not None:
                        self._questions[run.output] = self._asked(run.output)

    def check(self, touched: Touched, actor: Actor | None) -> tuple[list[Write], list[str]]:
        """Return what puts back what *actor* may not have written, and the names of those fields.

        Args:
            touched: where its update changed the document.
            actor: None for the server itself, and for those of whom nothing is known: they may do everything.
        """
        judged = actor if actor is not None and actor.rights.bound else None
        writes: list[Write] = []
        violated: list[str] = []
        for run_id in touched.runs:
            if not self._aside.left("run", run_id):
                with self._aside.about("run", run_id):
                    self._check_run(run_id, judged, writes, violated)
        for message_id, keys in touched.messages.items():
            writer = self._runs.table.writer_of(message_id)
            if keys & _BEGIN_ANEW:
                self._check_superseded(message_id, writer, judged, writes, violated)
            if writer is not None and not self._aside.left("message", message_id):
                with self._aside.about("message", message_id):
                    self._check_questions(message_id, writer, judged, writes, violated)
        if touched.edits:
            steps, forged = self._steps.check(touched.edits, judged)
            writes += steps
            violated += forged
        return writes, violated

    def _check_superseded(
        self, message_id: str, run_id: str | None, actor: Actor | None, writes: list[Write], violated: list[str]
    ) -> None:
        """See that nobody takes back what stands in a message but who writes it."""
        message, known = self._view.messages.find(message_id), self._superseded.get(message_id, 0)
        found = message.superseded if message is not None else known
        if found == known:
            return
        if actor is None or (run_id is not None and actor.lease is not None and actor.lease[0] == run_id):
            self._superseded[message_id] = found
            return
        writes.append(_supersede(message_id, known))
        violated.append("superseded")

    def _check_run(self, run_id: str, actor: Actor | None, writes: list[Write], violated: list[str]) -> None:
        run, record = self._view.runs.value(run_id) or Run(id=run_id), self._runs.table.record(run_id)
        if record is not None and record.over:
            self._said.pop(run_id, None)
            self._questions.pop(record.output, None)
            return
        known, found = self._said.get(run_id, (None, None)), (run.result, run.reported)
        if actor is not None:
            asked = run.request is not None and (record is None or record.request is None)
            stopped = run.cancel is not None and (record is None or record.cancel is None)
            asked = asked and not self._delegates(run, actor)
            if asked and run.parent is None and not actor.rights.ask:
                writes.append(_put(run_id, "request", None))
                violated.append("runs.request")
            elif asked and run.request is not None and run.request.by != actor.principal:
                writes.append(_asked_by(run_id, actor.principal))
                if run.request.by is not None:
                    violated.append("runs.request.by")
            if stopped and not actor.rights.cancel:
                writes.append(_put(run_id, "cancel", None))
                violated.append("runs.cancel")
            holds = record is not None and actor.lease == (run_id, record.epoch)
            if found != known and not holds:
                for key, before, now in zip(("result", "reported"), known, found, strict=True):
                    if before != now:
                        writes.append(_put(run_id, key, before.json_value() if before is not None else None))
                        violated.append(f"runs.{key}")
                return
        self._said[run_id] = found

    def _delegates(self, run: Run, actor: Actor) -> bool:
        """Whether the holder of a run's lease asks for a child, which works for whom the run works for.

        Anybody else's, which names a parent all the same, the steward refuses.
        """
        lease = actor.lease
        return lease is not None and lease[0] == run.parent and self._runs.table.holds(*lease)

    def _check_questions(
        self, message_id: str, run_id: str, actor: Actor | None, writes: list[Write], violated: list[str]
    ) -> None:
        known, found = self._questions.get(message_id), self._asked(message_id)
        if known is None:
            known = self._on_record(message_id, found)
        if known == found:
            self._questions[message_id] = found
            return
        if any(each.client_call is not None for each in found.values()):
            self._runs.calls.changed(run_id)
        if actor is not None:
            holds = actor.lease is not None and actor.lease[0] == run_id
            for call_id, now in found.items():
                before = known.get(call_id, Question())
                asker = now if holds else before
                allowed = Question(
                    asker.request,
                    _own(before, now, actor),
                    before.approval,
                    asker.client_call,
                    _of_own_devices(before.offers, now.offers, actor),
                    _of_own_devices(before.results, now.results, actor),
                )
                if allowed != now:
                    self._refuse(run_id, call_id, before, now, actor)
                    violated.append(_which(allowed, now))
                    writes.append(_put_back(message_id, call_id, allowed))
                    found[call_id] = allowed
        self._questions[message_id] = found

    def _refuse(self, run_id: str, call_id: str, before: Question, now: Question, actor: Actor) -> None:
        """Have it said where the question stands why a decision that is put back is none."""
        for who, said in now.decisions.items():
            own = who == actor.principal
            if said != before.decisions.get(who) and not (own and actor.rights.decide):
                why = "role" if not actor.rights.decide else "not-yours"
                with suppress(ValidationError):  # a value that is no decision needs no answer
                    decision = Decision.model_validate(said)
                    self._runs.questions.refuse(run_id, call_id, refusal(decision, by=actor.principal, why=why))

    def _on_record(self, message_id: str, found: dict[str, Question]) -> dict[str, Question]:
        """Return what is known of a message that an earlier run wrote and another one continues."""
        known = {
            call_id: Question(
                each.request.json_value(),
                approval=each.approval.json_value() if each.approval is not None else None,
            )
            for call_id, each in self._runs.table.approvals_of(message_id).items()
        }
        for call_id, call in self._runs.table.calls_of(message_id).items():
            now = found.get(call_id, Question())
            known[call_id] = replace(
                known.get(call_id, Question()),
                client_call=call.call.json_value(),
                offers=now.offers,
                results=now.results,
            )
        return known

    def _asked(self, message_id: str) -> dict[str, Question]:
        message = self._view.messages.find(message_id)
        found: dict[str, Question] = {}
        for tool in message.tools() if message is not None else []:
            found.setdefault(tool.call_id, tool.asked())  # the first one of an id is the one that counts
        return found


def _which(allowed: Question, now: Question) -> str:
    names = {
        "decisions": "decisions",
        "offers": "offers",
        "results": "results",
        "approval": "approval",
        "client_call": "clientCall",
    }
    found = (told for name, told in names.items() if getattr(allowed, name) != getattr(now, name))
    return next(found, "approvalRequest")


def _own(before: Question, now: Question, actor: Actor) -> dict[str, Any]:
    """Return the decisions as they were, but for what *actor* says under its own name."""
    allowed = dict(before.decisions)
    if actor.rights.decide:
        allowed.pop(actor.principal, None)
        if actor.principal in now.decisions:
            allowed[actor.principal] = now.decisions[actor.principal]
    return allowed


def _of_own_devices(before: dict[str, Any], now: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """Return what devices say as it was, but for what those of *actor* say."""
    allowed = dict(before)
    for device in before.keys() | now.keys():
        was, said = before.get(device), now.get(device)
        if was != said and all(each is None or _by(each) == actor.principal for each in (was, said)):
            allowed.pop(device, None)
            if said is not None:
                allowed[device] = said
    return allowed


def _by(said: Any) -> Any:
    return said.get("by") if isinstance(said, dict) else None


def _supersede(message_id: str, parts: int) -> Write:
    def write(view: SessionView) -> None:
        message = view.messages.find(message_id)
        if message is not None:
            message.put_back_superseded(parts)

    return write


def _put(run_id: str, key: str, value: Any) -> Write:
    return lambda view: view.runs.put_back(run_id, key, value)


def _asked_by(run_id: str, principal: str) -> Write:
    return lambda view: view.runs.ask_as(run_id, principal)


def _put_back(message_id: str, call_id: str, question: Question) -> Write:
    def write(view: SessionView) -> None:
        tool = view.messages.find_tool(message_id, call_id)
        if tool is not None:
            tool.put_back(question)

    return write

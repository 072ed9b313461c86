"""``runs``: what agents were asked for, who works on it, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pycrdt import Map
from pydantic import ValidationError

from crdt_sessions.errors import NotFound
from crdt_sessions.model.checks import NO_MAP, why_not
from crdt_sessions.model.children import CHILD_LIMITS, Orphans, checked_task, child_of, may_be_child
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.inputs import RunInput
from crdt_sessions.model.known_runs import Key, ReadRun
from crdt_sessions.model.run_values import TERMINAL_STATUSES, Run, RunCancel, RunRequest, RunResult
from crdt_sessions.model.spelling import spelled
from crdt_sessions.model.strings import AGENT_CHARACTERS, checked_id, derived
from crdt_sessions.model.usage import UsageReport


def answer_to(message_id: str) -> str:
    """Return the id of the run that answers a message, where nobody chose one. See docs/protocol.md, "Runs"."""
    return derived("run-", message_id)


def output_of(run_id: str) -> str:
    """Return the id of the message that a run writes, unless it goes on with another one."""
    return derived("", run_id, "-out")


def output_id(run: Run) -> str:
    """Return the id of the message that a run writes, or will write."""
    if run.output is not None:
        return run.output
    continues = run.request is not None and run.request.trigger == "continue"
    return run.request.message_id if run.request is not None and continues else output_of(run.id)


def child_request(
    parent: Run,
    key: str,
    agent: str,
    task: Any,
    *,
    now: int,
    deadline: int | None = None,
    input: RunInput | None = None,
    orphans: Orphans = "end",
) -> RunRequest:
    """Return the request for a child run of *parent*. See docs/protocol.md, "Child runs".

    Raises:
        BadId: *agent* or *key* cannot be one.
        BadValue, TooLarge: *task* cannot be one.
    """
    child_of(parent.id, key)
    return RunRequest(
        message_id=parent.output or output_of(parent.id),
        agent=checked_id(agent, "name of an agent", AGENT_CHARACTERS),
        created_at=now,
        deadline=deadline,
        input=input,
        parent=parent.id,
        key=key,
        task=checked_task(task),
        orphans=orphans,
    )


def child_order(child: Run) -> tuple[int, int, str]:
    """Return the key by which the children of a run are ordered: by time, and those of one time by their keys."""
    return child.request.created_at if child.request is not None else 0, len(child.id), child.id


def same_request(run: Run | None, request: RunRequest) -> bool:
    """Whether a run asks for the same as *request*; an input that was left out of either does not count."""
    found = run.request if run is not None else None
    return found == request or (found is not None and found.to_json() == request.to_json())


class Runs:
    """The runs of a session. Proposals are data that anyone may write; what they lead to is settled by the server."""

    def __init__(self, document: SessionDoc) -> None:
        self._document = document

    @property
    def _root(self) -> Map[Any]:
        return self._document.roots.runs

    def __contains__(self, run_id: object) -> bool:
        return isinstance(run_id, str) and run_id in self._root

    # -- proposals ---------------------------------------------------------------------------------------------

    def request(self, run_id: str, request: RunRequest) -> None:
        """Ask for a run; if the id is taken, the earlier request stands (ids are idempotency keys).

        Raises:
            BadId: *run_id* cannot be one.
        """
        entry = self._ensure(checked_id(run_id, "run id"))
        if "request" not in entry:
            entry["request"] = request.json_value()

    def delegate(self, request: RunRequest) -> str:
        """Ask for a child run; return its id. If its key is taken, the earlier request stands."""
        run_id = child_of(request.parent or "", request.key or "")
        self.request(run_id, request)
        return run_id

    def ask_as(self, run_id: str, principal: str) -> None:
        """Have the request say that *principal* asks, and all else as it stands. For the server only."""
        request = self._raw(run_id, "request")
        if isinstance(request, dict):
            self._ensure(run_id)["request"] = {**request, "by": principal}

    def cancel(self, run_id: str, cancel: RunCancel) -> None:
        """Ask for the run to be stopped, before or after it began; the first one to ask stands.

        Raises:
            BadId: *run_id* cannot be one.
        """
        entry = self._ensure(checked_id(run_id, "run id"))
        if "cancel" not in entry:
            entry["cancel"] = cancel.json_value()

    def report(self, run_id: str, result: RunResult) -> None:
        """Write what the holder of the lease says of its run; the server settles the status from it."""
        self._ensure(run_id)["result"] = result.json_value()

    def report_usage(self, run_id: str, report: UsageReport) -> None:
        """Write what the holder of the lease says that its attempt has cost; the server adds the attempts up."""
        self._ensure(run_id)["reported"] = report.json_value()

    def consume(self, run_id: str, message_id: str) -> None:
        """Record that the agent has taken up a steering message."""
        entry = self._ensure(run_id)
        if not isinstance(entry.get("steers"), Map):
            entry["steers"] = Map({})
        entry["steers"][message_id] = True

    def cancelled(self, run_id: str) -> bool:
        """Whether somebody has asked for the run to be stopped."""
        entry = self._root.get(run_id)
        return isinstance(entry, Map) and "cancel" in entry

    def put_back(self, run_id: str, key: str, value: Any) -> None:
        """Have *value* stand under a key of a run, or nothing if None. For the server only."""
        entry = self._ensure(run_id)
        if value is not None:
            entry[key] = value
        elif key in entry:
            del entry[key]

    # -- decisions ---------------------------------------------------------------------------------------------

    def settle(self, settled: Run) -> None:
        """Write what the server decided, where the document says something else. For the steward only."""
        asked = settled.request
        asks_else = asked is not None and not same_request(self.value(settled.id), asked)  # before it is forgotten
        entry = self._ensure(settled.id)
        if asked is not None and asks_else:
            entry["request"] = asked.json_value()
        if settled.cancel is not None and "cancel" not in entry:
            entry["cancel"] = settled.cancel.json_value()
        for key, value in settled.settled.items():
            if value is None and key in entry:
                del entry[key]
            elif value is not None and entry.get(key) != value:
                entry[key] = value

    # -- reading -----------------------------------------------------------------------------------------------

    def ids(self) -> list[str]:
        """Return the ids of all runs, in no order."""
        return list(self._root.keys())

    def value(self, run_id: str) -> Run | None:
        """Return a run in JSON form, or None if there is none. What layout 1 cannot describe of it is left out."""
        return self.read(run_id)[0]

    def read(self, run_id: str) -> tuple[Run | None, list[str]]:
        """Return a run as :meth:`value` does, and what was left out of it, with the reasons."""
        known = self._document.known_runs
        found = known.run(run_id)
        if found is None:
            found = self._read(run_id)
            known.keep_run(run_id, found)
        return found[0], list(found[1])

    def _read(self, run_id: str) -> ReadRun:
        entry = self._root.get(run_id)
        if not isinstance(entry, Map):
            return None, () if entry is None else (NO_MAP,)
        found = {key: value for key, value in spelled(entry).items() if value is not None}
        left_out: list[str] = []
        while True:
            try:
                run = Run.model_validate({**found, "id": run_id})
            except ValidationError as error:
                left_out += why_not(error)
                for problem in error.errors(include_url=False, include_context=False, include_input=False):
                    found.pop(str(problem["loc"][0]), None)
            else:
                if run.request is not None:
                    left_out += [f"request.{key}: {why}" for key, why in run.request.flaws.items()]
                return run, tuple(left_out)

    def entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield what stands under the id of each run, unchecked: shared types among it, nothing if it is no map.

        What the runs are found by is known afterwards.
        """
        known = self._document.known_runs
        known.unread(self.ids)
        for run_id, entry in self._root.items():
            found = dict(entry.items()) if isinstance(entry, Map) else None
            known.keep_keys(run_id, _keys(run_id, found) if found is not None else ())
            yield run_id, found or {}

    def _found_by(self, *keys: Key) -> list[str]:
        """Return the runs that are found by one of these keys. It costs what changed since somebody last asked."""
        known = self._document.known_runs
        found = dict.fromkeys(run_id for key in keys for run_id in known.found_by(key))
        for run_id in known.unread(self.ids):
            entry = self._root.get(run_id)
            own = _keys(run_id, {key: entry.get(key) for key in _FOUND_BY}) if isinstance(entry, Map) else ()
            known.keep_keys(run_id, own)
            if any(key in own for key in keys):
                found[run_id] = None
        return list(found)

    def _raw(self, run_id: str, key: str) -> Any:
        """Return what stands under a key of a run, unchecked; None if nothing."""
        entry = self._root.get(run_id)
        return entry.get(key) if isinstance(entry, Map) else None

    def all(self) -> list[Run]:
        """Return all runs, oldest request first."""
        return self.values(self.ids())

    def unfinished(self) -> list[Run]:
        """Return the runs without a terminal status, but for those that wait for their time to come."""
        return [run for run in self.values(self._found_by(_GOING)) if run.due is None]

    def answering(self) -> list[Run]:
        """Return the runs of :meth:`unfinished` that write answers of the conversation: all but child runs."""
        return [run for run in self.unfinished() if run.parent is None]

    def is_below(self, run_id: str, top: str) -> bool:
        """Whether a run is a child of another one, or of a child of that, and so on."""
        for _ in range(CHILD_LIMITS.max_depth):  # careless writers could make a circle
            run = self.value(run_id)
            if run is None or run.parent is None or run.parent == top:
                return run is not None and run.parent == top
            run_id = run.parent
        return False

    def top(self, run: Run) -> Run:
        """Return the run that is the parent of a run's parent, and so on; the run itself if it is no child."""
        for _ in range(CHILD_LIMITS.max_depth):
            above = self.value(run.parent) if run.parent is not None else None
            if above is None:
                break
            run = above
        return run

    def children(self, run_id: str) -> list[Run]:
        """Return the children of a run, those asked for first first."""
        found = self.values(self._found_by(("parent", run_id), _ODD))
        return sorted((run for run in found if run.parent == run_id and may_be_child(run.id)), key=child_order)

    def delegated(self) -> list[Run]:
        """Return all runs that are children of others, oldest request first."""
        return [run for run in self.values(self._found_by(_CHILD)) if run.parent is not None]

    def asked_of(self, message_id: str) -> list[Run]:
        """Return the runs that were asked for a message, oldest request first."""
        found = self.values(self._found_by(("asked", message_id), _ODD))
        return [run for run in found if run.request is not None and run.request.message_id == message_id]

    def writers_of(self, message_id: str) -> list[Run]:
        """Return the runs that write a message, or wrote it, or will; oldest request first."""
        found = self.values(self._found_by(("writes", message_id), _ODD))
        return [run for run in found if output_id(run) == message_id]

    def superseded_by(self, run_id: str) -> list[Run]:
        """Return the runs whose questions somebody let be when they asked for a run, oldest request first."""
        return self.values(self._found_by(("superseded by", run_id)))

    def find(self, run_id: str) -> Run:
        """Return a run in JSON form.

        Raises:
            NotFound: there is no such run.
        """
        run = self.value(run_id)
        if run is None:
            raise NotFound(what="run", id=run_id)
        return run

    def values(self, run_ids: Iterable[str]) -> list[Run]:
        """Return these runs, oldest request first; those that there are not are left out."""
        runs = [run for run in map(self.value, run_ids) if run is not None]
        return sorted(runs, key=lambda run: (run.request.created_at if run.request else 0, run.id))

    def _ensure(self, run_id: str) -> Map[Any]:
        """Return the map of a run, which there is afterwards, to write to it."""
        self._document.known_runs.forget((run_id,))
        if not isinstance(self._root.get(run_id), Map):
            self._root[run_id] = Map({})
        entry: Map[Any] = self._root[run_id]
        return entry


def _keys(run_id: str, entry: Mapping[str, Any]) -> tuple[Key, ...]:
    """Return what a run may be found by, of what stands in its entry, unchecked."""
    status, request, outcome, output = (entry.get(key) for key in _FOUND_BY)
    named: list[tuple[str, Any]] = [("writes", output), ("writes", output_of(run_id))]
    if isinstance(request, dict):
        asked = request.get("messageId")
        named += [("asked", asked), ("parent", request.get("parent"))]
        if request.get("trigger") == "continue":
            named.append(("writes", asked))
    if isinstance(outcome, dict):
        named.append(("superseded by", outcome.get("supersededBy")))
    keys = [(aspect, name) for aspect, name in dict.fromkeys(each for each in named if isinstance(each[1], str))]
    if not (isinstance(status, str) and status in TERMINAL_STATUSES):
        keys.append(_GOING)
    if may_be_child(run_id):
        keys.append(_CHILD)
    if request is not None and not isinstance(request, dict):
        keys.append(_ODD)
    return tuple(keys)


_FOUND_BY = ("status", "request", "outcome", "output")
_GOING: Key = ("going", "")
_CHILD: Key = ("child", "")
_ODD: Key = ("odd", "")
"""Its request is no JSON: what that says takes a closer look."""

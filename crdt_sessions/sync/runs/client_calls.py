"""Calls of runs that clients execute: which device has each, whether it is still there, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from crdt_sessions.ids import Millis
from crdt_sessions.limits import RunRules
from crdt_sessions.model import SessionView, ToolStream
from crdt_sessions.sync.client_calls import awaiting, considered, ended, lost, opened
from crdt_sessions.sync.records import CallRecord, RunRecord
from crdt_sessions.sync.runs.mirror import settle_client_call
from crdt_sessions.sync.runs.table import CALL_WAITING, RunTable


def _is_unheard(call: CallRecord, now: Millis) -> bool:
    """Whether no device has taken a call for so long that those who are absent should hear of it."""
    return call.outcome is None and call.tell_at is not None and now >= call.tell_at


class ClientCalls:
    """The calls of one session's runs that clients execute.

    Args:
        view: the session's document.
        table: the runs.
        rules: how long a device may be silent.
    """

    def __init__(self, view: SessionView, table: RunTable, rules: RunRules) -> None:
        self._view = view
        self._table = table
        self._rules = rules
        self._heard: dict[str, Millis] = {}
        """Signs of life of the devices that have a call. Not on record: a restart of ours is not their fault."""
        self._attached: set[str] = set()
        """Devices with a connection of their own, which is their sign of life."""
        self._changed: set[str] = set()

    def start(self, now: Millis) -> None:
        """Give the devices of a loaded session their full time again, since the silence was ours."""
        self._heard = dict.fromkeys(self.devices(), now)

    def devices(self) -> set[str]:
        """Return the devices that have a call."""
        return {call.taken.device for call in self._open_calls() if call.taken is not None}

    def _open_calls(self) -> Iterator[CallRecord]:
        return (call for record in self._table.active() for call in record.open_calls.values())

    @property
    def waiting(self) -> bool:
        """Whether a device has a call."""
        return bool(self._heard)

    def hear(self, devices: Collection[str], now: Millis) -> None:
        """Note signs of life of *devices*; those that have no call do not matter."""
        for device in self._heard:
            if device in devices:
                self._heard[device] = now

    def attach(self, device: str) -> None:
        """Take a connection of a device for its sign of life, until :meth:`detach`."""
        self._attached.add(device)

    def detach(self, device: str, now: Millis, *, grace: int | None = None) -> None:
        """Note that the connection of a device has ended: it has its time from now on, or *grace* milliseconds."""
        self._attached.discard(device)
        if device in self._heard:
            self._heard[device] = now if grace is None else self._heard_to_last(device, now, grace)

    def hurry(self, device: str, now: Millis, grace: int) -> None:
        """Leave a device without a connection *grace* milliseconds at most: it may be there again, as another one."""
        if device in self._heard and device not in self._attached:
            self._heard[device] = min(self._heard[device], self._heard_to_last(device, now, grace))

    def _heard_to_last(self, device: str, now: Millis, grace: int) -> Millis:
        """Return when a device would have been heard of last that has *grace* milliseconds from *now* on."""
        times = [call.taken.ttl for call in self._open_calls() if call.taken and call.taken.device == device]
        return Millis(now - max(0, max(times, default=0) - grace))

    def slept(self, pause: int, now: Millis) -> None:
        """Do not hold a pause of ours against the devices: their signs of life still wait to be read."""
        for device, heard in self._heard.items():
            self._heard[device] = min(now, Millis(heard + pause))

    # -- what the document says ------------------------------------------------------------------------------------

    def changed(self, run_id: str) -> None:
        """Note that something was said about a call of the message that a run writes."""
        self._changed.add(run_id)

    def concern(self, record: RunRecord) -> bool:
        """Whether a change of the message that a run writes, or did, may be one of such a call."""
        return bool(record.calls) or record.id in self._changed

    def due(self, record: RunRecord, now: Millis) -> bool:
        """Whether time has changed something: a deadline has passed, a device is not there any more, or none was."""
        return any(
            now >= (call.call.deadline or now + 1) or self._is_lost(call, now) or _is_unheard(call, now)
            for call in record.open_calls.values()
        )

    def consider(self, record: RunRecord, now: Millis) -> RunRecord:
        """Take what was called, offered and brought on record; what follows is written into the document."""
        self._changed.discard(record.id)
        message = self._view.messages.find(record.output)
        tools = {tool.call_id: tool for tool in reversed(message.tools())} if message is not None else {}
        calls = {**record.calls, **({} if record.over else self._new(record, tools))}
        for call_id, known in calls.items():
            heard = self._considered(record, call_id, known, tools.get(call_id), now)
            calls[call_id] = awaiting(record.calls.get(call_id), heard, now, int(self._rules.device_lease_s * 1000))
        unheard = [call_id for call_id, call in calls.items() if _is_unheard(call, now)]
        calls |= {call_id: calls[call_id].replace(tell_at=None) for call_id in unheard}
        if calls == record.calls:
            return record
        record = self._table.put(record.replace(calls=calls), shows=not record.over)
        if unheard:
            self._table.notify(CALL_WAITING, record, now)
        self._heard = {device: self._heard.get(device, now) for device in self.devices()}
        return record

    def _new(self, record: RunRecord, tools: dict[str, ToolStream]) -> dict[str, CallRecord]:
        found = {call_id: opened(tool) for call_id, tool in tools.items() if call_id not in record.calls}
        return {call_id: call for call_id, call in found.items() if call is not None}

    def _considered(
        self, record: RunRecord, call_id: str, known: CallRecord, tool: ToolStream | None, now: Millis
    ) -> CallRecord:
        offers, results = (tool.offers(), tool.results()) if tool is not None else ({}, {})
        heard, said = considered(known, offers, results, now, self._rules)
        if heard.outcome is None and self._is_lost(heard, now):
            heard, said = considered(lost(heard), offers, results, now, self._rules)
        decided = self._table.decided
        gone = [each.device for each in heard.former[len(known.former) :]]
        if gone or (heard.outcome, heard.late) != (known.outcome, known.late):
            decided.writes.append(settle_client_call(record.output, call_id, heard, said, gone=gone))
        elif tool is not None and not tool.shows_outcome(known.outcome, known.late):
            decided.restored.append("outcome")
            decided.writes.append(settle_client_call(record.output, call_id, known, again=True))
        return heard

    def _is_lost(self, call: CallRecord, now: Millis) -> bool:
        taken = call.taken
        if taken is None or taken.device in self._attached:
            return False
        return now >= self._heard.get(taken.device, taken.at) + taken.ttl

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self, record: RunRecord, now: Millis) -> RunRecord:
        """End the calls of a run that is over."""
        left = record.open_calls
        if not left:
            return record
        calls = {**record.calls, **{call_id: ended(call, "ended", now) for call_id, call in left.items()}}
        for call_id in left:
            self._table.decided.writes.append(settle_client_call(record.output, call_id, calls[call_id]))
        record = self._table.put(record.replace(calls=calls))
        self._heard = {device: self._heard.get(device, now) for device in self.devices()}
        return record

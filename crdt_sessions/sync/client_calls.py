"""What becomes of a call that a client executes: who is given it, who loses it, which result counts. Pure.

::

    open ──── an offer is accepted ────► taken ──── its device brings a result ────► done | failed | refused
     ▲                                     │
     └──── withdrawn, or no sign of life ──┴──── no device is left to try ────► gone
     └──── the deadline passes, taken or not ────► deadline

One device has it at a time. A result counts if it is from the one that has it, or, while nobody has it, from one that
had it: a device that was away may have done the work.
"""

from __future__ import annotations

from collections.abc import Mapping

from crdt_sessions.ids import Millis
from crdt_sessions.limits import RunRules
from crdt_sessions.model import CallOutcome, CallResult, LateResult, Offer, Taken, ToolStream
from crdt_sessions.model.client_calls import OutcomeCode
from crdt_sessions.sync.records import CallRecord

_MAX_LATE = 20
"""Of how many devices it is said that their results do not count: anybody may make up any number of devices."""


def opened(tool: ToolStream) -> CallRecord | None:
    """Return the record of a call that devices are asked to do; None if they are not, or it has ended."""
    call = tool.client_call
    if call is None or tool.state not in ("input-streaming", "input-available"):
        return None
    return CallRecord(call=call, tool_name=tool.name)


def considered(
    known: CallRecord, offers: Mapping[str, Offer], results: Mapping[str, CallResult], now: Millis, rules: RunRules
) -> tuple[CallRecord, CallResult | None]:
    """Return the record after what devices have offered and brought, and the result that counts from now on."""
    said: CallResult | None = None
    if known.outcome is None:
        known, said = _concluded(known, results, now)
    if known.outcome is None:
        if known.taken is not None and known.taken.device not in offers:
            known = lost(known)
        known = _given(known, offers, now, rules)
    return _with_late(known, results, said), said


def lost(known: CallRecord) -> CallRecord:
    """Return the record of a call whose device has gone."""
    if known.taken is None:
        return known
    return known.replace(taken=None, former=(*known.former, known.taken))


def ended(known: CallRecord, code: OutcomeCode, now: Millis) -> CallRecord:
    """Return the record of a call that no device did."""
    return known.replace(taken=None, outcome=CallOutcome(code=code, attempt=_attempts(known), at=now))


def awaiting(before: CallRecord | None, known: CallRecord, now: Millis, patience_ms: int) -> CallRecord:
    """Return the record with the time at which absent people are told of it: if no device has it for a while.

    Args:
        before: the record as it was; None if the call is new.
        known: the record as it is now.
        now: the time.
        patience_ms: how long devices that are there may take to offer themselves.
    """
    tell_at = known.tell_at
    if known.outcome is not None or known.taken is not None:
        tell_at = None
    elif before is None or before.taken is not None:
        tell_at = now + patience_ms
    return known if tell_at == known.tell_at else known.replace(tell_at=tell_at)


def _attempts(known: CallRecord) -> int:
    return len(known.former) + (known.taken is not None)


def _concluded(
    known: CallRecord, results: Mapping[str, CallResult], now: Millis
) -> tuple[CallRecord, CallResult | None]:
    """Settle the call if there is a result that counts, or its time is over."""
    having = [known.taken] if known.taken is not None else list(reversed(known.former))
    for taken in having:
        said = results.get(taken.device)
        if said is not None and said.by == taken.by:
            code: OutcomeCode = said.status
            outcome = CallOutcome(code=code, device=taken.device, by=taken.by or None, attempt=taken.attempt, at=now)
            return known.replace(taken=None, outcome=outcome), said
    if known.call.deadline is not None and now >= known.call.deadline:
        return ended(known, "deadline", now), None
    return known, None


def _given(known: CallRecord, offers: Mapping[str, Offer], now: Millis, rules: RunRules) -> CallRecord:
    """Give the call to the first device that offers itself, if nobody has it."""
    if known.taken is not None:
        return known
    if len(known.former) >= known.call.attempts:
        return ended(known, "gone", now)
    refused = {(each.device, each.offered_at) for each in known.former}
    open_offers = sorted((offer.at, device, offer) for device, offer in offers.items() if _may(known, offer))
    for at, device, offer in open_offers:
        if (device, at) not in refused:
            longest, usual = int(rules.longest_lease_s * 1000), int(rules.device_lease_s * 1000)
            taken = Taken(
                device=device,
                by=offer.by,
                attempt=len(known.former) + 1,
                at=now,
                ttl=min(usual if offer.ttl is None else offer.ttl, longest),
                offered_at=at,
            )
            return known.replace(taken=taken)
    return known


def _may(known: CallRecord, offer: Offer) -> bool:
    return known.call.takers is None or offer.by in known.call.takers


def _with_late(known: CallRecord, results: Mapping[str, CallResult], counted: CallResult | None) -> CallRecord:
    """Note which results do not count, of each device once."""
    had = {each.device for each in known.former} | ({known.taken.device} if known.taken is not None else set())
    told = {each.device for each in known.late}
    late = list(known.late)
    for device, said in sorted(results.items()):
        if said is counted or device in told or len(late) >= _MAX_LATE:
            continue
        its_own = known.outcome is not None and known.outcome.device == device
        if its_own or (known.outcome is None and device in had):
            continue
        had_it = device in had or its_own
        late.append(LateResult(device=device, by=said.by, why="late" if had_it else "not-the-taker", at=said.at))
    return known.replace(late=tuple(late)) if len(late) != len(known.late) else known

"""Which versions of a session are kept. Pure, so that every store keeps the same ones."""

from __future__ import annotations

from collections.abc import Iterable

from crdt_sessions.ids import Seq
from crdt_sessions.limits import Retention
from crdt_sessions.storage.stored import Version

_DAY_MS = 86_400_000


def kept(versions: Iterable[Version], retention: Retention) -> set[Seq]:
    """Return the numbers of the versions to keep: the newest always, and those with a name, if *retention* has them.

    What is newer is decided by number, never by time: a clock may have been set back. Days are counted by the
    versions that are there, so that a session that slept for a year keeps the days on which it lived.
    """
    newest_first = sorted(versions, key=lambda version: version.seq, reverse=True)
    keep = {version.seq for version in newest_first[: max(retention.last, 1)]}
    keep |= {version.seq for version in newest_first if version.name is not None and retention.named}
    days: dict[int, Seq] = {}
    for version in newest_first:
        days.setdefault(version.at // _DAY_MS, version.seq)
    latest = sorted(days, reverse=True)[: retention.dailies]
    return keep | {days[day] for day in latest}

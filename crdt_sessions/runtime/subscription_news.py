"""What a process knows of subscriptions: how each was last, and where something may be new."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from crdt_sessions.ids import Millis
from crdt_sessions.signals import Signal
from crdt_sessions.streams.subscriptions import Subscription

Key = tuple[str, str]
"""The tenant, and the subscription's id."""


class News:
    """The subscriptions that are known, and news of them. None of it is stored: the store has it all."""

    def __init__(self) -> None:
        self.changed = Signal()
        """Notified whenever something may be due that was not."""
        self._known: dict[str, dict[str, Subscription]] = {}
        self._news: dict[Key, dict[str, int]] = {}  # and the paths where something may be new, with when it was
        self._noted = 0

    # -- the subscriptions ---------------------------------------------------------------------------------------

    def of_tenant(self, tenant: str) -> Collection[str]:
        """Return the ids of a tenant's subscriptions."""
        return self._known.get(tenant, {}).keys()

    def __iter__(self) -> Iterator[Key]:
        return ((tenant, id) for tenant, ids in self._known.items() for id in ids)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and key[1] in self._known.get(key[0], {})

    def remember(self, key: Key, subscription: Subscription) -> None:
        """Know how a subscription is."""
        tenant, id = key
        before = self._known.setdefault(tenant, {}).get(id)
        self._known[tenant][id] = subscription
        if before is None or before.next_at != subscription.next_at:
            self.changed.notify_all()

    def forget(self, key: Key) -> None:
        """Know nothing of a subscription any more: there is none."""
        tenant, id = key
        known = self._known.get(tenant, {})
        known.pop(id, None)
        if not known:
            self._known.pop(tenant, None)
        self._news.pop(key, None)

    # -- what is new ---------------------------------------------------------------------------------------------

    def at(self, key: Key) -> Mapping[str, int]:
        """Return the paths where something may be new of a subscription, each with a number of when it was."""
        return self._news.get(key, {})

    def note(self, tenant: str, path: str) -> None:
        """Note that something may be new at a path."""
        for id, each in self._known.get(tenant, {}).items():
            if path in each.links or each.wanted.means(path):
                self.note_of((tenant, id), (path,))

    def note_of(self, key: Key, paths: Iterable[str]) -> None:
        """Note that something may be new of a subscription, at *paths* among others."""
        self._noted += 1
        self._news.setdefault(key, {}).update(dict.fromkeys(paths, self._noted))
        self.changed.notify_all()

    def looked_at(self, key: Key, seen: Mapping[str, int]) -> None:
        """Forget news that was *seen*, as :meth:`at` gave it, unless it came once more."""
        left = {path: at for path, at in self.at(key).items() if seen.get(path) != at}
        self._news.pop(key, None)
        if left:
            self._news[key] = left

    # -- what is due ---------------------------------------------------------------------------------------------

    def due(self, now: Millis, but: Collection[Key]) -> list[Key]:
        """Return the subscriptions of which the time has come, or something is new that is not waited for already.

        Args:
            now: the present instant.
            but: those whose time is looked at by others.
        """
        return [key for key in {*self._news, *self} if self._is_due(key, now, but)]

    def next_at(self, but: Collection[Key]) -> Millis | None:
        """Return when the next time comes of those that are not in *but*; None if none will."""
        times = (self._known[key[0]][key[1]].next_at for key in self if key not in but)
        return min((at for at in times if at is not None), default=None)

    def _is_due(self, key: Key, now: Millis, but: Collection[Key]) -> bool:
        found = self._known.get(key[0], {}).get(key[1])
        if found is None:
            return key in self._news
        if found.next_at is not None and found.next_at <= now and key not in but:
            return True
        news = self._news.get(key)
        return news is not None and (found.wake is None or not news.keys() <= found.links.keys())

"""How subscriptions are kept: each as a stream that has a state, changed in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Set
from dataclasses import replace

from crdt_sessions.clock import Clock
from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import SubscriptionNotFound
from crdt_sessions.runtime.subscription_news import Key, News
from crdt_sessions.storage import Decide, Stream, StreamChange, StreamFacts, StreamStore
from crdt_sessions.streams import subscriptions as rules
from crdt_sessions.streams.subscriptions import End, Ends, Subscription

RESERVED = "__ds"
"""The first segment of paths that are no streams."""
PREFIX = f"{RESERVED}/subscriptions/"
"""What the path of a subscription begins with."""
TYPE = "application/json"
"""Of what a subscription is kept as, and of what its workers are told."""
_PAGE = 500


class SubscriptionStore:
    """The subscriptions in a store.

    Args:
        store: where they are.
        clock: the only source of time.
        news: hears of what is read and changed.
    """

    def __init__(self, store: StreamStore, clock: Clock, news: News) -> None:
        self._store = store
        self._clock = clock
        self._news = news

    async def get(self, tenant: str, id: str) -> Subscription:
        """Return a subscription.

        Raises:
            SubscriptionNotFound: there is none.
        """
        found = await self._store.stream(tenant, PREFIX + id, now=self._clock.now())
        if found is None:
            self._news.forget((tenant, id))
            raise SubscriptionNotFound(subscription=id)
        return read_back(found)

    async def alter(
        self, key: Key, change: Callable[[Subscription, Ends], Subscription], paths: Iterable[str] = ()
    ) -> Subscription:
        """Change a subscription; return it once that is durable.

        Args:
            key: which one.
            change: is called with it, and with where the streams end that it follows, and those at *paths*.
            paths: of streams that it may not follow yet.

        Raises:
            SubscriptionNotFound: there is none.
        """
        return await to_the_end(self._alter(key, change, set(paths)))

    async def _alter(
        self, key: Key, change: Callable[[Subscription, Ends], Subscription], extra: Set[str]
    ) -> Subscription:
        tenant, id = key
        done: list[Subscription] = []
        while not done:
            found = await self.get(tenant, id)
            ends = await self.ends(tenant, {*found.links, *extra})
            decide = _deciding(id, found.links.keys(), change, ends, done)
            await self._store.alter_stream(tenant, PREFIX + id, decide, now=self._clock.now())
        self._news.remember(key, done[0])
        return done[0]

    async def ends(self, tenant: str, paths: Iterable[str]) -> dict[str, End]:
        """Return where the streams end that there are at *paths*."""
        found = await self._store.streams_at(tenant, sorted(paths), now=self._clock.now())
        return {stream.path: End(stream.id, stream.tail) for stream in found}

    async def meant(self, tenant: str, subscription: Subscription) -> dict[str, End]:
        """Return the streams there are that the subscription's pattern means."""
        found: dict[str, End] = {}
        after = ""
        while page := await self._store.streams(tenant, after=after, limit=_PAGE, now=self._clock.now()):
            found |= {
                stream.path: End(stream.id, stream.tail)
                for stream in page
                if stream.state is None and subscription.wanted.means(stream.path)
            }
            after = page[-1].path
        return found

    async def all(self) -> AsyncIterator[tuple[Key, Subscription]]:
        """Yield all subscriptions of all tenants."""
        after = 0
        while page := await self._store.stream_states(after=after, limit=_PAGE):
            for stream in page:
                if stream.path.startswith(PREFIX):
                    yield (stream.tenant, stream.path.removeprefix(PREFIX)), read_back(stream)
            after = page[-1].id


def read_back(stream: Stream) -> Subscription:
    """Return the subscription that is kept as a stream."""
    return rules.read_back(stream.state or "")


def _deciding(
    id: str,
    known: Set[str],
    change: Callable[[Subscription, Ends], Subscription],
    ends: Ends,
    done: list[Subscription],
) -> Decide:
    """Return what changes a subscription, and puts it into *done*; not if it follows others than those *known*."""

    def decide(facts: StreamFacts) -> StreamChange | None:
        if facts.stream is None:
            raise SubscriptionNotFound(subscription=id)
        before = read_back(facts.stream)
        done.clear()
        if not before.links.keys() <= known:
            return None
        after = change(before, ends)
        done.append(after)
        return None if after == before else StreamChange(replace(facts.stream, state=rules.spelled_out(after)))

    return decide

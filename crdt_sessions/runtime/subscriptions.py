"""Subscriptions of a process: they are kept as streams that have a state, and their workers are woken.

What is decided stands in :mod:`crdt_sessions.streams.subscriptions`, how it is stored beside this, in
``subscription_store``. Here it is done: a webhook is posted, or a line appended to the stream that workers read. All
of it is found again in the store, so whoever goes on after a crash, or another process that shares the store, does
what is left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from crdt_sessions.clock import Clock
from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import (
    CrdtSessionsError,
    SubscriptionExists,
    SubscriptionNotFound,
    TooMany,
)
from crdt_sessions.runtime.loops import logged
from crdt_sessions.runtime.streams import Streams
from crdt_sessions.runtime.subscription_news import Key, News
from crdt_sessions.runtime.subscription_store import PREFIX, TYPE, SubscriptionStore, read_back
from crdt_sessions.runtime.webhooks import ATTEMPT_S, Reply
from crdt_sessions.storage import Batch, Stream, StreamChange, StreamFacts, StreamStore
from crdt_sessions.streams import subscriptions as rules
from crdt_sessions.streams.changes import Append
from crdt_sessions.streams.subscriptions import Ends, Subscription, Wanted, Worker

_log = logging.getLogger("crdt_sessions.subscriptions")

Deliver = Callable[[str, bytes], Awaitable[Reply]]
"""Posts a body to a URL, signed; raises OSError or httpx.HTTPError."""

_MOST = 1000
"""A tenant has so many subscriptions at the most."""
_LOOK_EVERY_S = 5.0
"""Where others write to the store, too, it is looked at so often."""
_LOOK_ANEW = 12
"""Every so many times, also for streams that were made meanwhile."""
_LONGEST_WAIT_S = 3600.0
_AFTER_FAILURE_S = 1.0


class Subscriptions:
    """The subscriptions of a process.

    Args:
        streams: what is subscribed to.
        store: where all is kept.
        clock: the only source of time.
        deliver: how to post to webhooks.
        shared: whether other processes use the store, too.
        rng: source of names, secrets and jitter.
    """

    def __init__(
        self,
        streams: Streams,
        store: StreamStore,
        clock: Clock,
        deliver: Deliver,
        *,
        shared: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        self._streams = streams
        self._store = store
        self._clock = clock
        self._deliver = deliver
        self._shared = shared
        self._rng = rng or random.SystemRandom()
        self._news = News()
        self._kept = SubscriptionStore(store, clock, self._news)
        self._telling: dict[Key, asyncio.Task[None]] = {}
        streams.on_change = self._news.note

    # -- what is asked for ---------------------------------------------------------------------------------------

    async def put(self, tenant: str, id: str, wanted: Wanted, *, owner: str, url: str) -> tuple[Subscription, bool]:
        """Make a subscription; return it once it is durable, and whether it is new.

        Args:
            tenant: whose it is.
            id: its name.
            wanted: what is asked for.
            owner: the principal who asks.
            url: where it is, as they see it.

        Raises:
            SubscriptionExists: there is one of that name that asks for something else.
            BadStreamRequest: it follows too many streams.
            TooMany: the tenant has as many as it may have.
        """
        known = self._news.of_tenant(tenant)
        if len(known) >= _MOST and id not in known:
            raise TooMany(what="subscriptions of a tenant", limit=_MOST)
        now = self._clock.now()
        new = Subscription(id, wanted, self._name("s"), url, now)
        ends = await self._kept.ends(tenant, wanted.streams)
        if wanted.pattern is not None:
            ends |= await self._kept.meant(tenant, new)
        new = rules.backfilled(rules.followed(new, wanted.streams, ends), ends)
        made: list[tuple[Subscription, bool]] = []

        def decide(facts: StreamFacts) -> StreamChange | None:
            if facts.stream is None:
                made.append((new, True))
                state = rules.spelled_out(new)
                return StreamChange(Stream(tenant, PREFIX + id, TYPE, owner, now, now, state=state))
            found = read_back(facts.stream)
            if found.wanted != wanted:
                raise SubscriptionExists(subscription=id)
            made.append((found, False))
            return None

        async def write() -> None:
            await self._store.alter_stream(tenant, PREFIX + id, decide, now=now)
            found, is_new = made[-1]
            self._news.remember((tenant, id), found)
            if is_new:  # what was written meanwhile was not seen
                self._news.note_of(
                    (tenant, id), await self._kept.meant(tenant, found) if wanted.pattern is not None else ()
                )

        await to_the_end(write())
        return made[-1]

    async def get(self, tenant: str, id: str) -> Subscription:
        """Return a subscription.

        Raises:
            SubscriptionNotFound: there is none.
        """
        return await self._kept.get(tenant, id)

    async def delete(self, tenant: str, id: str) -> bool:
        """Delete a subscription; return whether there was one. What its workers say from now on is refused."""
        there: list[bool] = []

        def decide(facts: StreamFacts) -> StreamChange | None:
            there.append(facts.stream is not None)
            return StreamChange(None) if there[-1] else None

        async def write() -> None:
            await self._store.alter_stream(tenant, PREFIX + id, decide, now=self._clock.now())
            self._news.forget((tenant, id))

        await to_the_end(write())
        return there[-1]

    async def follow(self, tenant: str, id: str, paths: Sequence[str]) -> None:
        """Follow further streams, from where they end now.

        Raises:
            SubscriptionNotFound: there is no such subscription.
            BadStreamRequest: they are too many.
        """
        await self._kept.alter((tenant, id), lambda found, ends: rules.followed(found, paths, ends), paths)

    async def leave(self, tenant: str, id: str, path: str) -> None:
        """Follow a stream no more by its path.

        Raises:
            SubscriptionNotFound: there is no such subscription.
        """
        await self._kept.alter((tenant, id), lambda found, ends: rules.left(found, path))

    async def claim(self, tenant: str, id: str, worker: str) -> tuple[Subscription, list[dict[str, Any]]]:
        """Give a worker its turn; return the subscription, and what it is told of the streams.

        Raises:
            SubscriptionNotFound: there is no such subscription.
            BadStreamRequest, AlreadyClaimed, NoPendingWork: there is no turn for it.
        """
        wake, told = self._name("w"), list[dict[str, Any]]()

        def change(found: Subscription, ends: Ends) -> Subscription:
            now = self._clock.now()
            after = rules.claimed(rules.stepped(found, ends, now, wake), worker, now)
            told[:] = after.told(ends)
            return after

        return await self._kept.alter((tenant, id), change, self._news.at((tenant, id))), told

    async def ack(
        self,
        tenant: str,
        id: str,
        worker: Worker,
        acks: Sequence[tuple[str, str]],
        *,
        done: bool,
    ) -> bool:
        """Note how far a worker has come; return whether another one is to be woken.

        Args:
            tenant: whose subscription it is.
            id: its name.
            worker: what it shows.
            acks: paths, and the offsets up to which they were worked on.
            done: whether its turn is over; else it goes on as long again.

        Raises:
            SubscriptionNotFound, BadWakeToken, WakeFenced: it is not its turn.
            BadAck: it cannot have come there.
            BadStreamRequest: workers of this subscription are woken otherwise.
        """
        wake = self._name("w")

        def change(found: Subscription, ends: Ends) -> Subscription:
            rules.check_worker(found, worker)
            now = self._clock.now()
            after = rules.acked(found, acks, ends, now, done=done)
            return rules.stepped(after, ends, now, wake) if done else after

        after = await self._kept.alter((tenant, id), change, self._news.at((tenant, id)))
        return done and after.wake == wake

    async def check_token(self, tenant: str, id: str, token: str) -> None:
        """Return if a worker of a subscription was given that token, whether or not it is its turn still.

        Raises:
            SubscriptionNotFound: there is no such subscription.
            BadWakeToken: none was.
        """
        rules.generation_of(await self._kept.get(tenant, id), token)

    async def release(self, tenant: str, id: str, worker: Worker) -> None:
        """End a worker's turn, whatever it has done; if something is new still, another one is woken.

        Raises:
            SubscriptionNotFound, BadWakeToken, WakeFenced: it is not its turn.
            BadStreamRequest: workers that a webhook wakes release nothing.
        """
        wake = self._name("w")

        def change(found: Subscription, ends: Ends) -> Subscription:
            rules.check_worker(found, worker)
            return rules.stepped(rules.released(found), ends, self._clock.now(), wake)

        await self._kept.alter((tenant, id), change)

    # -- what is to be done --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Wake workers until cancelled."""
        looks = 0
        try:
            while True:
                seen = self._news.changed.count
                try:
                    if self._shared or not looks:
                        await self._look(anew=looks % _LOOK_ANEW == 0)
                        looks += 1
                    await self._step()
                    pause = self._pause_s()
                except CrdtSessionsError as error:
                    _log.error("subscriptions cannot be looked at: %s", error)
                    pause = _AFTER_FAILURE_S
                await self._wait(seen, pause)
        finally:
            for task in self._telling.values():
                task.cancel()
            await asyncio.gather(*self._telling.values(), return_exceptions=True)

    async def _look(self, *, anew: bool) -> None:
        """Read all subscriptions of the store; *anew*, or those not known yet, with the streams that they mean."""
        found = {key: each async for key, each in self._kept.all()}
        for key in [key for key in self._news if key not in found]:
            self._news.forget(key)
        for key, subscription in found.items():
            unseen = subscription.wanted.pattern is not None and (anew or key not in self._news)
            self._news.remember(key, subscription)
            self._news.note_of(key, await self._kept.meant(key[0], subscription) if unseen else ())

    async def _step(self) -> None:
        """Do what is due."""
        now = self._clock.now()
        for key in self._news.due(now, self._telling):
            seen = dict(self._news.at(key))
            try:
                found = await self._kept.alter(key, partial(rules.stepped, now=now, wake=self._name("w")), seen)
            except SubscriptionNotFound:
                continue
            self._news.looked_at(key, seen)
            if found.wake is not None and found.due_at is not None and found.due_at <= now:
                self._begin_telling(key, found)

    def _begin_telling(self, key: Key, subscription: Subscription) -> None:
        if key in self._telling:
            return  # it is about to be, or its end is looked at again
        task = asyncio.create_task(self._tell(key, subscription), name=f"wake {key[1]}")
        self._telling[key] = task

        def ended(task: asyncio.Task[None]) -> None:
            del self._telling[key]
            if not task.cancelled() and task.exception() is not None:
                _log.error("a worker of the subscription %s was not woken", key[1], exc_info=task.exception())
            self._news.changed.notify_all()

        task.add_done_callback(ended)

    async def _tell(self, key: Key, subscription: Subscription) -> None:
        """Tell a worker of a wake, and note what came of it."""
        import httpx  # not before: most services have no subscriptions

        wake = subscription.wake
        assert wake is not None
        try:
            if subscription.wanted.webhook is not None:
                await self._post(key, wake, subscription.wanted.webhook)
            else:
                await self._announce(key, subscription)
                await self._kept.alter(key, lambda found, ends: rules.told_of(found, wake))
        except SubscriptionNotFound:
            return  # it was deleted meanwhile
        except (OSError, httpx.HTTPError, httpx.InvalidURL, CrdtSessionsError) as error:
            _log.warning("a worker of the subscription %s cannot be woken: %s", key[1], error or "no answer in time")
            await self._note_failure(key, wake)
        except Exception as error:  # noqa: BLE001 - else it would be tried again at once, and for ever
            logged(error, f"waking a worker of the subscription {key[1]}")
            await self._note_failure(key, wake)

    async def _note_failure(self, key: Key, wake: str) -> None:
        jitter = self._rng.uniform(0.8, 1.2)
        now = self._clock.now()
        try:
            await self._kept.alter(key, lambda found, ends: rules.failed(found, wake, now, jitter))
        except CrdtSessionsError as error:
            _log.error("that cannot be noted: %s", error)  # its turn will be over, and then it is tried again

    async def _announce(self, key: Key, subscription: Subscription) -> None:
        """Tell those who read the wake stream; what is told twice is appended once."""
        event = {
            "type": "wake",
            "subscription_id": subscription.id,
            "stream": next(iter(subscription.pending_at_wake), ""),
            "generation": subscription.generation,
            "ts": self._clock.now(),
        }
        batch = Batch(f"{PREFIX}{subscription.id}/{subscription.origin}", subscription.generation, 0)
        stream = subscription.wanted.wake_stream or ""
        await self._streams.append(key[0], stream, Append(json.dumps(event).encode(), TYPE, batch=batch))

    async def _post(self, key: Key, wake: str, url: str) -> None:
        told: list[dict[str, Any]] = []
        ours: list[bool] = []
        now = self._clock.now()

        def change(found: Subscription, ends: Ends) -> Subscription:
            after = rules.posting(found, wake, now)
            told[:], ours[:] = found.told(ends), [after is not found]
            return after

        found = await self._kept.alter(key, change)
        if not ours[-1]:
            return  # another process tells of it, or it is over
        async with asyncio.timeout(ATTEMPT_S):
            reply = await self._deliver(url, json.dumps(_body(found, key[0], told)).encode())
        if not 200 <= reply.status < 300:
            raise OSError(f"HTTP {reply.status}")
        again = self._name("w")

        def heard(found: Subscription, ends: Ends) -> Subscription:
            after = rules.told_of(found, wake)
            if _says_done(reply):
                after = rules.stepped(rules.finished(after, wake), ends, self._clock.now(), again)
            return after

        await self._kept.alter(key, heard, self._news.at(key))

    def _name(self, kind: str) -> str:
        return f"{kind}_{self._rng.getrandbits(128):032x}"

    # -- waiting -------------------------------------------------------------------------------------------------

    def _pause_s(self) -> float:
        """Return after how many seconds something is due."""
        next_at = self._news.next_at(self._telling)
        most = _LOOK_EVERY_S if self._shared else _LONGEST_WAIT_S
        if next_at is None:
            return most
        return min(most, max(0.0, (next_at - self._clock.now()) / 1000))

    async def _wait(self, seen: int, seconds: float) -> None:
        """Wait until something has changed since it was *seen*, or for so long."""
        changed = self._news.changed
        await changed.wait_within(lambda: changed.count != seen, self._clock.sleep(seconds))


def worker_token(tenant: str, subscription: Subscription) -> str:
    """Return what the worker of a wake shows: whose the subscription is, too, since it has no other token."""
    return f"{tenant.encode().hex()}.{subscription.token()}"


def _body(subscription: Subscription, tenant: str, told: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "subscription_id": subscription.id,
        "wake_id": subscription.wake,
        "generation": subscription.generation,
        "streams": told,
        "callback_url": f"{subscription.url}/callback",
        "callback_token": worker_token(tenant, subscription),
    }


def _says_done(reply: Reply) -> bool:
    try:
        answered = json.loads(reply.body)
    except ValueError:
        return False
    return isinstance(answered, dict) and answered.get("done") is True

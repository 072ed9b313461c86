"""Subscriptions: who is to be woken when something is new in streams, how far they have come, and whose turn it is.

Sections 6 and 7 of the protocol. Each function returns the subscription as it is afterwards; nothing else is known of
it. A subscription has one wake at a time. It lasts until the worker says that it is done, or until its lease is over;
its generation fences workers of earlier ones.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

from crdt_sessions.errors import AlreadyClaimed, BadAck, BadStreamRequest, BadWakeToken, NoPendingWork, WakeFenced
from crdt_sessions.ids import Millis
from crdt_sessions.streams.offsets import START, place, spelled
from crdt_sessions.streams.patterns import matches

MOST_LINKS = 1000
"""A subscription follows so many streams at the most."""
_FIRST_RETRY_MS = 1000
_LONGEST_RETRY_MS = 60_000


class End(NamedTuple):
    """Where a stream ends."""

    stream: int
    """Its id: another stream at the same path has another one."""
    tail: int


Ends = Mapping[str, End]
"""Path to where the stream there ends; what is missing is not there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for.

    Args:
        type: how workers are woken.
        pattern: paths of streams that are followed, also those that are made later.
        streams: further paths.
        webhook: where to post; for ``webhook`` only.
        wake_stream: the stream that workers read; for ``pull-wake`` only.
        lease_ms: for how long a worker has its turn, unless it says that it goes on.
        description: for people.
    """

    type: Literal["webhook", "pull-wake"]
    pattern: str | None = None
    streams: tuple[str, ...] = ()
    webhook: str | None = None
    wake_stream: str | None = None
    lease_ms: int = 30_000
    description: str | None = None

    def means(self, path: str) -> bool:
        """Whether the pattern means *path*; the stream by which workers are woken wakes nobody."""
        return self.pattern is not None and path != self.wake_stream and matches(self.pattern, path)


@dataclass(frozen=True, slots=True)
class Link:
    """A stream that is followed.

    Args:
        stream: its id; 0 if there was none yet.
        acked: up to where workers have come.
        explicit: whether it was asked for by its path; else the pattern means it.
    """

    stream: int
    acked: int
    explicit: bool


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription.

    Args:
        id: its name.
        wanted: what was asked for.
        secret: its own; tokens of workers are made with it.
        url: where it is, as whoever made it sees it.
        created_at: when it was made.
        links: path to what is followed.
        generation: how many wakes there were.
        wake: the one there is; None if nobody is to be woken, or was.
        snapshot: path to where the streams ended when it began.
        holder: the worker that has claimed it.
        lease_until: when the worker's turn is over.
        attempts: how often the worker could not be told.
        due_at: when it is to be told; None if it was, or there is nothing to tell.
    """

    id: str
    wanted: Wanted
    secret: str
    url: str
    created_at: Millis
    links: Mapping[str, Link] = field(default_factory=dict)
    generation: int = 0
    wake: str | None = None
    snapshot: Mapping[str, int] = field(default_factory=dict)
    holder: str | None = None
    lease_until: Millis | None = None
    attempts: int = 0
    due_at: Millis | None = None

    @property
    def next_at(self) -> Millis | None:
        """When there is something to do; None if it does not depend on the time."""
        return min((at for at in (self.lease_until, self.due_at) if at is not None), default=None)

    def token(self) -> str:
        """Return what the worker of this wake shows."""
        return f"{self.generation}.{self.signed(self.generation)}"

    def signed(self, generation: int) -> str:
        """Return what makes a token of a generation good."""
        return hmac.new(self.secret.encode(), f"{self.id}/{generation}".encode(), hashlib.sha256).hexdigest()

    @property
    def origin(self) -> str:
        """Tells it from an earlier one of its name."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:16]

    @property
    def pending_at_wake(self) -> list[str]:
        """The paths of the streams in which something was new when the wake began."""
        return [path for path, link in self.links.items() if self.snapshot.get(path, 0) > link.acked]

    def pending(self, ends: Ends) -> list[str]:
        """Return the paths of the streams in which something is new."""
        return [path for path, link in self.links.items() if _tail(ends, path) > link.acked]

    def told(self, ends: Ends) -> list[dict[str, Any]]:
        """Return what workers are told of the streams."""
        return [
            {
                "path": path,
                "link_type": "explicit" if link.explicit else "glob",
                "acked_offset": spelled(link.acked),
                "tail_offset": spelled(_tail(ends, path)),
                "has_pending": _tail(ends, path) > link.acked,
            }
            for path, link in self.links.items()
        ]


class Worker(NamedTuple):
    """What a worker shows."""

    type: Literal["webhook", "pull-wake"]
    """How it says that it was woken."""
    token: str
    wake: str
    generation: int


def check_worker(subscription: Subscription, worker: Worker) -> None:
    """Return if it is this worker's turn.

    Raises:
        BadStreamRequest: workers of this subscription are woken otherwise.
        BadWakeToken: the token is none of this subscription's.
        WakeFenced: it was, and is not any more.
    """
    if worker.type != subscription.wanted.type:
        raise BadStreamRequest(why=f"workers of this subscription are woken by {subscription.wanted.type}")
    generation = generation_of(subscription, worker.token)
    now = (subscription.generation, subscription.generation, subscription.wake)
    if (generation, worker.generation, worker.wake) != now:
        raise WakeFenced(subscription=subscription.id, generation=subscription.generation)


def generation_of(subscription: Subscription, token: str) -> int:
    """Return the wake, by its number, whose worker was given a token. It may be over.

    Raises:
        BadWakeToken: the token is none of this subscription's.
    """
    number, _, signed = token.partition(".")
    good = number.isascii() and number.isdigit() and len(number) < len(str(2**53))
    if not good or not hmac.compare_digest(signed.encode(), subscription.signed(int(number)).encode()):
        raise BadWakeToken(subscription=subscription.id)
    return int(number)


def spelled_out(subscription: Subscription) -> str:
    """Return a subscription as it is stored."""
    return json.dumps(asdict(subscription))


def read_back(stored: str) -> Subscription:
    """Return what :func:`spelled_out` was given."""
    found = json.loads(stored)
    wanted = Wanted(**{**found["wanted"], "streams": tuple(found["wanted"]["streams"])})
    links = {path: Link(**link) for path, link in found["links"].items()}
    return Subscription(**{**found, "wanted": wanted, "links": links})


# -- what is followed ------------------------------------------------------------------------------------------------


def followed(subscription: Subscription, paths: Iterable[str], ends: Ends) -> Subscription:
    """Follow further streams by their paths, from where they end.

    Raises:
        BadStreamRequest: they are too many.
    """
    links = dict(subscription.links)
    for path in paths:
        if path in links:
            links[path] = replace(links[path], explicit=True)
        else:
            links[path] = Link(*ends.get(path, End(0, 0)), explicit=True)
    return replace(subscription, links=_bounded(links))


def backfilled(subscription: Subscription, ends: Ends) -> Subscription:
    """Follow the streams that the pattern means and that are there already, from where they end.

    Raises:
        BadStreamRequest: they are too many.
    """
    found = {path: Link(*end, explicit=False) for path, end in ends.items() if subscription.wanted.means(path)}
    return replace(subscription, links=_bounded({**found, **subscription.links}))


def left(subscription: Subscription, path: str) -> Subscription:
    """Follow a stream no more by its path; the pattern may still mean it."""
    link = subscription.links.get(path)
    if link is None or not link.explicit:
        return subscription
    if subscription.wanted.means(path):
        return replace(subscription, links={**subscription.links, path: replace(link, explicit=False)})
    return replace(subscription, links={each: link for each, link in subscription.links.items() if each != path})


def _bounded(links: dict[str, Link]) -> dict[str, Link]:
    if len(links) > MOST_LINKS:
        raise BadStreamRequest(why=f"a subscription follows at most {MOST_LINKS} streams, and this are {len(links)}")
    return links


def _seen(subscription: Subscription, ends: Ends) -> Subscription:
    """Follow what the pattern means by now, from its beginning, and other streams that are at the same paths."""
    links = {path: link for path, link in subscription.links.items() if link.explicit or path in ends}
    for path, end in ends.items():
        link = links.get(path)
        if link is not None and link.stream != end.stream:
            links[path] = replace(link, stream=end.stream, acked=0)
        elif link is None and subscription.wanted.means(path) and len(links) < MOST_LINKS:
            links[path] = Link(end.stream, 0, explicit=False)
    return subscription if links == subscription.links else replace(subscription, links=links)


# -- wakes -----------------------------------------------------------------------------------------------------------


def stepped(subscription: Subscription, ends: Ends, now: Millis, wake: str) -> Subscription:
    """Do what is to be done by *now*: end a worker's turn, and have one woken if something is new.

    Args:
        subscription: as it was.
        ends: where the streams end that it follows, and those that are new.
        now: the time.
        wake: the name of the wake, if there is to be one.
    """
    found = _seen(subscription, ends)
    if found.lease_until is not None and found.lease_until <= now:
        found = _over(found)
    if found.wake is not None or not found.pending(ends):
        return found
    snapshot = {path: _tail(ends, path) for path in found.links}
    return replace(
        found, generation=found.generation + 1, wake=wake, snapshot=snapshot, attempts=0, due_at=now, holder=None
    )


def posting(subscription: Subscription, wake: str, now: Millis) -> Subscription:
    """Begin the turn of a worker that is told of a wake by a webhook, if that is due.

    Whoever is the first to say so posts. If nothing is heard of it any more, the turn is over as any other.
    """
    if subscription.wake != wake or subscription.due_at is None or subscription.due_at > now:
        return subscription
    return replace(subscription, due_at=None, lease_until=Millis(now + subscription.wanted.lease_ms))


def failed(subscription: Subscription, wake: str, now: Millis, jitter: float) -> Subscription:
    """Tell the worker later of a wake: it could not be told now. *jitter* is a factor, about 1."""
    if subscription.wake != wake:
        return subscription
    pause = min(_LONGEST_RETRY_MS, _FIRST_RETRY_MS * 2 ** min(subscription.attempts, 10)) * jitter
    return replace(
        subscription, attempts=subscription.attempts + 1, due_at=Millis(now + int(pause)), lease_until=None
    )


def told_of(subscription: Subscription, wake: str) -> Subscription:
    """Note that a worker was told of a wake."""
    return replace(subscription, attempts=0, due_at=None) if subscription.wake == wake else subscription


def claimed(subscription: Subscription, worker: str, now: Millis) -> Subscription:
    """Give a worker its turn.

    Raises:
        BadStreamRequest: workers of this subscription do not claim.
        AlreadyClaimed: another one has it.
        NoPendingWork: nothing is new.
    """
    if subscription.wanted.type != "pull-wake":
        raise BadStreamRequest(why="workers of this subscription are woken by a webhook, and claim nothing")
    if subscription.holder is not None:
        raise AlreadyClaimed(
            subscription=subscription.id, current_holder=subscription.holder, generation=subscription.generation
        )
    if subscription.wake is None:
        raise NoPendingWork(subscription=subscription.id)
    return replace(subscription, holder=worker, lease_until=Millis(now + subscription.wanted.lease_ms), due_at=None)


def acked(
    subscription: Subscription, acks: Iterable[tuple[str, str]], ends: Ends, now: Millis, *, done: bool
) -> Subscription:
    """Note how far the worker has come, and let it go on, or end its turn.

    Raises:
        BadAck: it cannot have come there.
    """
    links = dict(subscription.links)
    for path, offset in acks:
        links[path] = replace(_link(links, path, offset), acked=_ack(links, path, offset, ends))
    found = replace(subscription, links=links)
    return _over(found) if done else replace(found, lease_until=Millis(now + found.wanted.lease_ms))


def finished(subscription: Subscription, wake: str) -> Subscription:
    """Note that the worker has come to where the streams ended when it was woken."""
    if subscription.wake != wake:
        return subscription
    links = {
        path: replace(link, acked=max(link.acked, subscription.snapshot.get(path, 0)))
        for path, link in subscription.links.items()
    }
    return _over(replace(subscription, links=links))


def released(subscription: Subscription) -> Subscription:
    """End the worker's turn, whatever it has done."""
    return _over(subscription)


def _over(subscription: Subscription) -> Subscription:
    return replace(subscription, wake=None, snapshot={}, holder=None, lease_until=None, due_at=None, attempts=0)


def _link(links: Mapping[str, Link], path: str, offset: str) -> Link:
    if path not in links:
        raise BadAck(stream=path, offset=offset, why="is one of a stream that the subscription does not follow")
    return links[path]


def _ack(links: Mapping[str, Link], path: str, offset: str, ends: Ends) -> int:
    try:
        at = place(offset) if offset != START else -1
    except BadStreamRequest:
        at = -1
    if at < 0:
        raise BadAck(stream=path, offset=offset, why="was never handed out")
    if at < links[path].acked:
        raise BadAck(
            stream=path, offset=offset, why=f"is before {spelled(links[path].acked)}, which was acked already"
        )
    if at > _tail(ends, path):
        raise BadAck(stream=path, offset=offset, why=f"is beyond {spelled(_tail(ends, path))}, where the stream ends")
    return at


def _tail(ends: Ends, path: str) -> int:
    return ends[path].tail if path in ends else 0

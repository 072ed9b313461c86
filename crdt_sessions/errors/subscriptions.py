"""Errors of subscriptions to durable streams; each has the word by which clients of the protocol tell it."""

from __future__ import annotations

from typing import ClassVar

from crdt_sessions.errors.streams import StreamError


class SubscriptionError(StreamError):
    """A subscription that does not do what was asked of it."""

    code: ClassVar[str] = "INVALID_REQUEST"


class SubscriptionNotFound(SubscriptionError):
    """There is no such subscription."""

    code = "SUBSCRIPTION_NOT_FOUND"

    def __init__(self, *, subscription: str) -> None:
        super().__init__(f"there is no subscription {subscription!r}")
        self.subscription = subscription


class SubscriptionExists(SubscriptionError):
    """There is a subscription of that name, and it was made otherwise."""

    code = "SUBSCRIPTION_ALREADY_EXISTS"

    def __init__(self, *, subscription: str) -> None:
        super().__init__(f"the subscription {subscription!r} exists already, and asks for something else")
        self.subscription = subscription


class WebhookRefused(SubscriptionError):
    """The service does not post to that URL."""

    code = "WEBHOOK_URL_REJECTED"

    def __init__(self, *, url: str, why: str) -> None:
        super().__init__(f"{url!r} is no URL to wake workers at: {why}")
        self.url = url


class BadWakeToken(SubscriptionError):
    """The token is none of this subscription's."""

    code = "TOKEN_INVALID"

    def __init__(self, *, subscription: str) -> None:
        super().__init__(f"the token is none that a worker of the subscription {subscription!r} was given")
        self.subscription = subscription


class WakeFenced(SubscriptionError):
    """The worker was woken by an earlier wake: its time is over, or it said already that it was done."""

    code = "FENCED"

    def __init__(self, *, subscription: str, generation: int) -> None:
        super().__init__(f"the subscription {subscription!r} has gone on to generation {generation}")
        self.subscription = subscription
        self.generation = generation


class AlreadyClaimed(SubscriptionError):
    """Another worker has the subscription."""

    code = "ALREADY_CLAIMED"

    def __init__(self, *, subscription: str, current_holder: str, generation: int) -> None:
        super().__init__(f"the worker {current_holder!r} has the subscription {subscription!r}")
        self.subscription = subscription
        self.current_holder = current_holder
        self.generation = generation


class NoPendingWork(SubscriptionError):
    """There is nothing new in the streams of the subscription."""

    code = "NO_PENDING_WORK"

    def __init__(self, *, subscription: str) -> None:
        super().__init__(f"nothing is new in the streams of the subscription {subscription!r}")
        self.subscription = subscription


class BadAck(SubscriptionError):
    """A worker says that it has come to where it cannot be."""

    code = "INVALID_OFFSET"

    def __init__(self, *, stream: str, offset: str, why: str) -> None:
        super().__init__(f"the offset {offset!r} of the stream {stream!r} {why}")
        self.stream = stream
        self.offset = offset

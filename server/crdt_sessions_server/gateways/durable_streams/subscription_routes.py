"""The methods of subscriptions to streams: sections 6 and 7 of the protocol."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Literal

from quart import Blueprint, Response, request

from crdt_sessions import errors
from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import AccessDenied, BadStreamRequest, BadWakeToken
from crdt_sessions.ids import Millis
from crdt_sessions.runtime import SessionRegistry, Subscriptions
from crdt_sessions.runtime.subscriptions import worker_token
from crdt_sessions.streams.subscriptions import Subscription, Wanted, Worker
from crdt_sessions_server.asgi import http_token
from crdt_sessions_server.auth import Principal, current_principal
from crdt_sessions_server.gateways.durable_streams.headers import as_the_protocol_says
from crdt_sessions_server.gateways.durable_streams.paths import NAME, check_own, here
from crdt_sessions_server.gateways.durable_streams.signing import SigningKey
from crdt_sessions_server.gateways.durable_streams.subscription_models import (
    Asked,
    AskedAck,
    AskedClaim,
    AskedRelease,
    AskedStreams,
    ToldAck,
    ToldClaim,
    ToldSubscription,
)
from crdt_sessions_server.gateways.durable_streams.webhook_urls import check_webhook
from crdt_sessions_server.http.describing import answers, refuses, tag
from crdt_sessions_server.http.schemas import JSON
from crdt_sessions_server.http.validation import validate_request

_JWKS = "application/jwk-set+json"
_OF_WORKERS = (errors.SubscriptionNotFound, errors.BadStreamRequest, errors.BadWakeToken, errors.WakeFenced)


def blueprint(
    registry: SessionRegistry, *, subscriptions: Subscriptions, key: SigningKey, private: bool
) -> Blueprint:
    """Return the routes of subscriptions.

    Args:
        registry: takes notes for the audit log.
        subscriptions: what there is.
        key: signs webhooks.
        private: whether webhooks may go to this machine and to private networks.
    """
    routes = Blueprint("subscriptions", __name__, url_prefix="/v1/streams/__ds")
    as_the_protocol_says(routes)
    _making(routes, registry, subscriptions, key, private=private)
    _deleting(routes, registry, subscriptions)
    _following(routes, subscriptions)
    _of_workers(routes, registry, subscriptions)

    @routes.get("/jwks.json")
    @tag(["streams"])
    @answers(200, {_JWKS: {"type": "object"}}, "A JSON Web Key Set.")
    async def read_keys() -> Response:
        """Read the public keys with which webhooks of subscriptions are signed."""
        response = Response(json.dumps({"keys": [await key.public()]}), content_type=_JWKS)
        response.headers["Cache-Control"] = "public, max-age=300"
        return response

    return routes


def _making(
    routes: Blueprint, registry: SessionRegistry, subscriptions: Subscriptions, key: SigningKey, *, private: bool
) -> None:
    @routes.put("/subscriptions/<subscription>")
    @tag(["streams"])
    @validate_request(Asked)
    @answers(200, {JSON: ToldSubscription}, "It is there already, and asks for the same.")
    @answers(201, {JSON: ToldSubscription}, "It is made.")
    @refuses(errors.BadStreamRequest, errors.SubscriptionExists, errors.WebhookRefused, errors.TooMany)
    async def put_subscription(subscription: str, data: Asked) -> Response:
        """Have workers woken when something is new in streams, from where these end now."""
        principal = current_principal()
        wanted = _wanted(data, private=private)
        if NAME.fullmatch(subscription) is None:
            raise BadStreamRequest(why="a subscription's name has 1 to 200 characters, no control characters")
        paths = (*wanted.streams, *filter(None, (wanted.wake_stream,)))
        for path in paths:
            check_own(path)
        _require(principal, wanted.pattern, paths)
        tenant, url = principal.tenant, here()

        async def make() -> tuple[Subscription, bool]:
            found, new = await subscriptions.put(tenant, subscription, wanted, owner=principal.id, url=url)
            if new:
                registry.audit.note("subscription.create", principal.id, tenant=tenant, subscription=subscription)
            return found, new

        found, new = await to_the_end(make())
        return _answer(await _told(subscriptions, principal.tenant, found, key), 201 if new else 200)

    @routes.get("/subscriptions/<subscription>")
    @tag(["streams"])
    @answers(200, {JSON: ToldSubscription}, "How it is.")
    @refuses(errors.SubscriptionNotFound)
    async def get_subscription(subscription: str) -> Response:
        """Look at a subscription: what it follows, and how far its workers have come."""
        found = await _entered(subscriptions, subscription)
        return _answer(await _told(subscriptions, current_principal().tenant, found, key))


def _deleting(routes: Blueprint, registry: SessionRegistry, subscriptions: Subscriptions) -> None:
    @routes.delete("/subscriptions/<subscription>")
    @tag(["streams"])
    @answers(204, {}, "It is gone; what its workers say from now on is refused.")
    async def delete_subscription(subscription: str) -> Response:
        """Delete a subscription, if there is one."""
        principal = current_principal()
        try:
            await _entered(subscriptions, subscription)
        except errors.SubscriptionNotFound:
            return Response(b"", 204)

        async def delete() -> None:
            if await subscriptions.delete(principal.tenant, subscription):
                registry.audit.note(
                    "subscription.delete", principal.id, tenant=principal.tenant, subscription=subscription
                )

        await to_the_end(delete())
        return Response(b"", 204)


def _following(routes: Blueprint, subscriptions: Subscriptions) -> None:
    @routes.post("/subscriptions/<subscription>/streams")
    @tag(["streams"])
    @validate_request(AskedStreams)
    @answers(204, {}, "They are followed.")
    @refuses(errors.SubscriptionNotFound, errors.BadStreamRequest)
    async def add_streams(subscription: str, data: AskedStreams) -> Response:
        """Follow further streams, from where they end now."""
        await _entered(subscriptions, subscription)
        for path in data.streams:
            check_own(path)
        _require(current_principal(), None, tuple(data.streams))
        await subscriptions.follow(current_principal().tenant, subscription, data.streams)
        return Response(b"", 204)

    @routes.delete("/subscriptions/<subscription>/streams/<path:path>")
    @tag(["streams"])
    @answers(204, {}, "It is followed no more, unless the pattern means it.")
    @refuses(errors.SubscriptionNotFound)
    async def remove_stream(subscription: str, path: str) -> Response:
        """Follow a stream no more by its path."""
        await _entered(subscriptions, subscription)
        await subscriptions.leave(current_principal().tenant, subscription, path)
        return Response(b"", 204)

    @routes.post("/subscriptions/<subscription>/claim")
    @tag(["streams"])
    @validate_request(AskedClaim)
    @answers(200, {JSON: ToldClaim}, "It is this worker's turn.")
    @refuses(errors.SubscriptionNotFound, errors.BadStreamRequest, errors.AlreadyClaimed, errors.NoPendingWork)
    async def claim_subscription(subscription: str, data: AskedClaim) -> Response:
        """Ask for the turn, as a worker of a `pull-wake` subscription."""
        await _entered(subscriptions, subscription)
        tenant = current_principal().tenant
        found, streams = await subscriptions.claim(tenant, subscription, data.worker)
        return _answer(
            {
                "wake_id": found.wake,
                "generation": found.generation,
                "token": worker_token(tenant, found),
                "streams": streams,
                "lease_ttl_ms": found.wanted.lease_ms,
            }
        )


def _of_workers(routes: Blueprint, registry: SessionRegistry, subscriptions: Subscriptions) -> None:
    """Add the routes whose token is the one that a worker was given with its turn."""

    def known(function: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
        """Look at the token first: the bodies of strangers are not read."""

        @wraps(function)
        async def wrapper(subscription: str) -> Response:
            registry.capacity.check_lag()
            await subscriptions.check_token(*_shown(subscription))
            return await function(subscription)

        return wrapper

    async def ack(subscription: str, data: AskedAck, by: Literal["webhook", "pull-wake"]) -> Response:
        tenant, worker = _worker(subscription, data, by)
        acks = [(each.stream, each.offset) for each in data.acks]
        woken = await subscriptions.ack(tenant, subscription, worker, acks, done=data.done)
        return _answer({"ok": True, "next_wake": woken})

    @routes.post("/subscriptions/<subscription>/callback")
    @tag(["streams"])
    @known
    @validate_request(AskedAck)
    @answers(200, {JSON: ToldAck}, "It is noted.")
    @refuses(*_OF_WORKERS, errors.BadAck)
    async def call_back(subscription: str, data: AskedAck) -> Response:
        """Say how far one has come, as a worker that a webhook woke; with the token that it brought."""
        return await ack(subscription, data, "webhook")

    @routes.post("/subscriptions/<subscription>/ack")
    @tag(["streams"])
    @known
    @validate_request(AskedAck)
    @answers(200, {JSON: ToldAck}, "It is noted.")
    @refuses(*_OF_WORKERS, errors.BadAck)
    async def ack_wake(subscription: str, data: AskedAck) -> Response:
        """Say how far one has come, as a worker that has claimed; with the token of the claim."""
        return await ack(subscription, data, "pull-wake")

    @routes.post("/subscriptions/<subscription>/release")
    @tag(["streams"])
    @known
    @validate_request(AskedRelease)
    @answers(204, {}, "The turn is over.")
    @refuses(*_OF_WORKERS)
    async def release_claim(subscription: str, data: AskedRelease) -> Response:
        """Give the turn back, with the token of the claim; what is new still wakes another worker."""
        tenant, worker = _worker(subscription, data, "pull-wake")
        await subscriptions.release(tenant, subscription, worker)
        return Response(b"", 204)


def _wanted(data: Asked, *, private: bool) -> Wanted:
    """Return what is asked for.

    Raises:
        BadStreamRequest: something is missing.
        WebhookRefused: webhooks do not go there.
    """
    if data.pattern is None and not data.streams:
        raise BadStreamRequest(why="a subscription needs a pattern of paths, or streams, or both")
    webhook = data.webhook.url if data.webhook is not None and data.type == "webhook" else None
    wake_stream = data.wake_stream if data.type == "pull-wake" else None
    if data.type == "webhook":
        if webhook is None:
            raise BadStreamRequest(why="a subscription of the type webhook needs webhook.url")
        check_webhook(webhook, private=private)
    elif wake_stream is None:
        raise BadStreamRequest(why="a subscription of the type pull-wake needs wake_stream")
    return Wanted(
        data.type,
        None if data.pattern is None else data.pattern.strip("/"),
        tuple(sorted({path.strip("/") for path in data.streams})),
        webhook,
        None if wake_stream is None else wake_stream.strip("/"),
        data.lease_ttl_ms,
        data.description,
    )


def _require(principal: Principal, pattern: str | None, paths: tuple[str, ...]) -> None:
    """Return if they may use all streams that are followed.

    Raises:
        AccessDenied: they may not.
    """
    if (pattern is not None and not principal.may_enter_all) or not all(map(principal.may_enter, paths)):
        raise AccessDenied(what="this token is not for all of those streams")


async def _entered(subscriptions: Subscriptions, id: str) -> Subscription:
    principal = current_principal()
    found = await subscriptions.get(principal.tenant, id)
    _require(principal, found.wanted.pattern, tuple(found.links))
    return found


def _shown(id: str) -> tuple[str, str, str]:
    """Return the tenant of a worker as its token says, the subscription *id*, and the token that it was given for it.

    Raises:
        BadWakeToken: it shows none.
    """
    whose, _, token = (http_token(dict(request.scope)) or "").partition(".")
    try:
        return bytes.fromhex(whose).decode(), id, token
    except ValueError:
        raise BadWakeToken(subscription=id) from None


def _worker(id: str, data: AskedRelease, by: Literal["webhook", "pull-wake"]) -> tuple[str, Worker]:
    """Return the tenant of a worker, and what it shows.

    Raises:
        BadWakeToken: it shows no token.
    """
    tenant, _, token = _shown(id)
    return tenant, Worker(by, token, data.wake_id, data.generation)


async def _told(subscriptions: Subscriptions, tenant: str, found: Subscription, key: SigningKey) -> dict[str, Any]:
    wanted, webhook = found.wanted, None
    if wanted.webhook is not None:
        root = found.url.rpartition("/subscriptions/")[0]
        signing = {"alg": "ed25519", "kid": (await key.public())["kid"], "jwks_url": f"{root}/jwks.json"}
        webhook = {"url": wanted.webhook, "signing": signing}
    streams = [
        {"path": each["path"], "link_type": each["link_type"], "acked_offset": each["acked_offset"]}
        for each in found.told({})
    ]
    return {
        "id": found.id,
        "subscription_id": found.id,
        "type": wanted.type,
        "pattern": wanted.pattern,
        "streams": streams,
        "webhook": webhook,
        "wake_stream": wanted.wake_stream,
        "lease_ttl_ms": wanted.lease_ms,
        "created_at": _time(found.created_at),
        "status": "failed" if found.attempts else "active",
        "description": wanted.description,
    }


def _time(at: Millis) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _answer(body: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(body), status, content_type=JSON, headers={"Cache-Control": "no-store"})

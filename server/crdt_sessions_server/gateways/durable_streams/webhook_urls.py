"""Where webhooks of subscriptions may go: anybody who may make a subscription says where."""

from __future__ import annotations

import ipaddress

from crdt_sessions.errors import WebhookRefused
from crdt_sessions.runtime import has_host, is_public


def check_webhook(url: str, *, private: bool) -> None:
    """Return if workers may be woken at *url*. What its name stands for is looked at when something is posted.

    Args:
        url: as it was asked for.
        private: whether webhooks may go to this machine, then also over ``http``, and to private networks.

    Raises:
        WebhookRefused: they may not.
    """
    import httpx  # not before: most services have no subscriptions

    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise WebhookRefused(url=url[:200], why=f"it cannot be read: {error}") from None
    local = target.host == "localhost" or target.host.startswith("127.")
    if not target.host or target.scheme not in ("http", "https"):
        raise WebhookRefused(url=url[:200], why="it should begin with https:// and a host")
    if not has_host(url):
        raise WebhookRefused(url=url[:200], why="no host can be looked up that is called so")
    if target.scheme == "http" and not (private and local):
        raise WebhookRefused(url=url[:200], why="it should be https; http is for this machine, where that is allowed")
    if not private and (target.host == "localhost" or not _may_be_public(target.host)):
        raise WebhookRefused(url=url[:200], why="it is this machine, or one of a private network")


def _may_be_public(host: str) -> bool:
    try:
        return is_public(ipaddress.ip_address(host))
    except ValueError:
        return True  # a name

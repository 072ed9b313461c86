"""The end of a connection, when more than one wants it."""

import asyncio

import pytest

from crdt_sessions.testing import settle
from crdt_sessions.wire import Closing

from .conftest import Peer

CLOSING = Closing(1012, "the service restarts")


@pytest.mark.parametrize("order", [("cancel", "close"), ("close", "cancel"), ("close", "close", "cancel")])
async def test_who_cancels_a_connection_that_is_closed_in_the_same_turn_is_obeyed(registry, order):
    async with Peer(registry) as other:
        peer = Peer(registry)
        await peer.__aenter__()
        (session,) = registry.live
        for each in order:
            if each == "cancel":
                peer.serving.cancel("by the outer one")
            else:
                session.close_peers(CLOSING)
        with pytest.raises(asyncio.CancelledError):
            await peer.serving
        assert peer.serving.cancelled()
        peer.reading.cancel()
        await settle()
        assert session.peers == 0, "and the other was closed"
        assert other.serving.result() == CLOSING


async def test_one_that_is_only_closed_is_not_cancelled(registry):
    async with Peer(registry) as peer:
        (session,) = registry.live
        session.close_peers(CLOSING)
        assert await peer.serving == CLOSING
        assert peer.serving.cancelling() == 0

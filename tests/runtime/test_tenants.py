"""Tenants: names of their own, and limits of their own."""

import asyncio

import pytest

from crdt_sessions.errors import BadSessionId, BadTenant, SessionNotFound, TooMany
from crdt_sessions.ids import SessionId, name_of, session_id, tenant_of
from crdt_sessions.limits import Limits
from crdt_sessions.model import Author, MessageHead, RunRequest, TextPart
from crdt_sessions.runtime import Access, Dispatcher, SessionRegistry
from crdt_sessions.testing import MemoryChannel, settle
from tests.processes import PATIENCE
from tests.runtime.conftest import Peer

ACME, UMBRELLA = session_id("room", "acme"), session_id("room", "umbrella")


def test_a_session_belongs_to_a_tenant_by_its_id():
    assert (tenant_of(ACME), name_of(ACME)) == ("acme", "room")
    assert (tenant_of(session_id("room")), name_of(session_id("room"))) == ("", "room")
    assert len({ACME, UMBRELLA, session_id("room")}) == 3
    for wrong in ("a/b", "-a", "a b", "x" * 65, "ä"):
        with pytest.raises(BadTenant):
            session_id("room", wrong)


async def test_tenants_have_sessions_of_the_same_name(registry):
    for each in (ACME, UMBRELLA, session_id("room")):
        await registry.create(each)
        async with registry.open(each) as session:
            assert session.view.meta.session_id == "room", "a document says nothing of tenants"
            tenant = tenant_of(each)
            await session.edit(lambda view, tenant=tenant: view.set_title(tenant))
    async with registry.open(ACME) as session:
        assert session.view.meta.title == "acme"
    for tenant, expected in (("acme", [ACME]), ("umbrella", [UMBRELLA]), ("", [session_id("room")])):
        assert [each.id for each in await registry.store.sessions(after=None, limit=9, tenant=tenant)] == expected
        assert await registry.store.count(tenant) == 1
    await registry.delete(ACME)
    with pytest.raises(SessionNotFound, match="'room' was deleted"):
        async with registry.open(ACME):
            pass
    async with registry.open(UMBRELLA) as session:
        assert session.view.meta.title == "umbrella"


async def test_a_claim_is_for_runs_of_one_tenant_and_of_sessions_one_may_use(registry):
    for each in (ACME, UMBRELLA):
        await registry.create(each)
        async with registry.open(each) as session:

            def ask(view):
                head = MessageHead(id="q", role="user", author=Author(id="ann"), created_at=1)
                view.messages.add(head, [TextPart(type="text", text="?")])
                view.runs.request("r", RunRequest(message_id="q", agent="writer", created_at=1))

            await session.edit(ask)
    dispatcher = Dispatcher(registry)
    assert await dispatcher.claim(["writer"], owner="w", tenant="nobody") is None
    assert await dispatcher.claim(["writer"], owner="w", tenant="acme", wants=lambda _: False) is None
    claim = await dispatcher.claim(["writer"], owner="w", tenant="umbrella")
    assert claim.session.id == UMBRELLA
    assert await dispatcher.claim(["writer"], owner="w", tenant="umbrella") is None
    assert (await dispatcher.claim(["writer"], owner="w")).session.id == ACME


async def test_runs_of_others_do_not_hide_ones_own(registry):
    rooms = [session_id(f"r{n:03}", "acme") for n in range(50)]
    for each in rooms:
        async with registry.open(each, create=True) as session:
            await session.edit(
                lambda view: view.runs.request("r", RunRequest(message_id="q", agent="writer", created_at=1))
            )
    claim = await Dispatcher(registry).claim(["writer"], owner="w", tenant="acme", wants=lambda s: s == rooms[-1])
    assert claim.session.id == rooms[-1]


async def test_a_tenant_has_limits_of_its_own(store, clock):
    limits = Limits(max_connections_per_tenant=1, max_sessions_per_tenant=2)
    async with SessionRegistry(store, clock=clock, limits=limits) as registry:
        async with Peer(registry, ACME, access=Access("ann")):
            channel, far = MemoryChannel.pair()
            closing = await registry.serve(ACME, far, access=Access("bob"))
            assert (closing.code, closing.reason) == (1013, "more than 1 connections of a tenant; come back later")
            channel.close()
            async with Peer(registry, UMBRELLA, access=Access("ann")) as other:
                await settle()
                assert other.closing is None
        await registry.create(session_id("b", "acme"))
        with pytest.raises(TooMany, match="sessions of a tenant"):
            await registry.create(session_id("c", "acme"))
        channel, far = MemoryChannel.pair()
        assert (await asyncio.wait_for(registry.serve(session_id("c", "acme"), far), PATIENCE)).code == 1013
        channel.close()
        await registry.create(session_id("c", "umbrella"))
        await registry.delete(session_id("b", "acme"))
        await registry.create(session_id("c", "acme"))


async def test_rights_change_while_a_connection_lasts(registry):
    access = Access("ann")
    async with Peer(registry, access=access) as ann:
        await ann.edit(lambda view: view.set_title("one"))
        access.change(access.rights.__class__(write=False))
        await ann.edit(lambda view: view.set_title("two"))
        await settle()
        assert "read-only" in ann.replica.denied
        assert not ann.serving.done(), "it can still read"
    async with registry.open(session_id("room")) as session:
        assert session.view.meta.title == "one"


async def test_access_that_was_taken_away_before_it_began_ends_at_once(registry):
    access = Access("ann")
    access.end(TooMany(what="tests", limit=0))
    async with Peer(registry, access=access) as ann:
        await settle()
        assert ann.serving.done()
    assert ann.closing.code == 1013


async def test_a_name_that_is_taken_for_an_id_is_refused(registry):
    """Else an embedding application and REST clients would mean two sessions by one name."""
    for wrong in ("a b", "ä", "acme/a b", "%zz", "a%2fb"):
        with pytest.raises(BadSessionId, match="ids are made of names"):
            await registry.create(SessionId(wrong))
        channel, far = MemoryChannel.pair()
        assert (await asyncio.wait_for(registry.serve(SessionId(wrong), far), 5)).code == 4400
        channel.close()
    for name in ("a b", "ä", "a/b/c", "%zz"):
        await registry.create(session_id(name))

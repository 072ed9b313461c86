"""Who may do what over /v1/hocuspocus: a token for each document, renewed, refused and taken away one by one."""

import asyncio

import httpx
import pytest

from crdt_sessions.wire.varint import string
from crdt_sessions_server.auth import PERMISSIONS, Permission, Role
from tests.access.conftest import TOKENS, bearer, token
from tests.hocuspocus import AUTHENTICATED, DENIED, WANTED, hocuspocus
from tests.processes import PATIENCE
from tests.sync.test_engine import letters


@pytest.fixture
async def made(service, room):
    async with httpx.AsyncClient(base_url=service.url, headers=bearer("b", "service"), timeout=PATIENCE) as http:
        assert (await http.post("/v1/sessions", json={"id": room})).status_code == 201
        yield http


def news(client_id=51):
    return letters("x", client_id)[0]


async def written(client, address, update):
    await client.write(address, update)
    return await client.until(address, "status")


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_may_do_what_the_table_says(service, made, room, role):
    writes = Permission.WRITE in PERMISSIONS[role]
    async with hocuspocus(service.url) as looks, hocuspocus(service.url) as client:
        await looks.synced(room, token("looks", "owner"))
        await client.begin(room, TOKENS[role])
        assert await client.until(room, AUTHENTICATED) == ("read-write" if writes else "readonly")
        await client.until(room, "SyncStep2")
        await client.send(room, b"\x00\x01\x02\x00\x00")
        assert await client.until(room, "status") == 1, "there is nothing new in it"
        assert await written(client, room, news()) == writes
        if writes:
            assert b"x" in await looks.until(room, "Update")
        await looks.write(room, news(52))
        await client.until(room, "Update")  # everybody reads, also who was refused something


@pytest.mark.parametrize("bad", ["", "nonsense"])
async def test_nobody_comes_in_without_a_token_or_with_a_bad_one(service, made, room, bad):
    async with hocuspocus(service.url) as client:
        await client.begin(room, bad)
        assert (await client.until(room, DENIED)).startswith("4401 ")
        await client.write(room, news())  # it goes on for a while, and nobody is there
        await client.synced(room, TOKENS[Role.EDITOR])  # the same socket, another token
        assert await written(client, room, news(52)) == 1


async def test_a_document_that_is_refused_leaves_the_others_alone(service, made, room):
    mine = token("ann", "editor", sessions=[f"{room}*"])
    async with hocuspocus(service.url) as client:
        await client.synced(room, mine)
        await client.begin("elsewhere", mine)
        assert await client.until("elsewhere", DENIED) == "4403 not allowed: this token is not for that session"
        assert await written(client, room, news()) == 1
    async with hocuspocus(service.url) as client:
        await client.begin(room, token("eve", "viewer", tenant="umbrella"))
        assert (await client.until(room, DENIED)).startswith("4404 ")


async def test_the_token_of_the_socket_counts_where_a_document_has_none(service, made, room):
    offered = {"additional_headers": bearer("ann", "editor")}
    async with hocuspocus(service.url, **offered) as client:
        await client.synced(room, version=None)
        assert await written(client, room, news()) == 1


async def test_rights_that_change_are_told_and_felt(service, made, room):
    async with hocuspocus(service.url) as client:
        await client.synced(room, token("ann", "editor"))
        assert await written(client, room, news()) == 1
        await made.put(f"/v1/sessions/{room}/members/ann", json={"role": "viewer"})
        assert await client.until(room, AUTHENTICATED) == "readonly"
        assert await written(client, room, news(52)) == 0
        await made.put(f"/v1/sessions/{room}/members/ann", json={"role": "editor"})
        assert await client.until(room, AUTHENTICATED) == "read-write"
        assert await written(client, room, news(52)) == 1, "what was refused is taken now"


async def test_a_closed_session_refuses_changes_and_is_read(service, made, room):
    async with hocuspocus(service.url) as client:
        await client.synced(room, token("ann", "editor"))
        await made.patch(f"/v1/sessions/{room}", json={"status": "closed"})
        assert await written(client, room, news()) == 0
        await made.patch(f"/v1/sessions/{room}", json={"status": "active"})
        assert await written(client, room, news()) == 1


async def test_somebody_elses_client_is_refused_and_ones_own_is_not(service, made, room):
    async with hocuspocus(service.url) as ann, hocuspocus(service.url) as bob:
        await ann.synced(room, token("ann", "editor"))
        await bob.synced(room, token("bob", "editor"))
        first, second = letters("ab", 51)
        assert await written(ann, room, first) == 1
        assert await written(bob, room, second) == 0
        assert await written(bob, room, letters("c", 52)[0]) == 1


async def test_a_token_that_is_revoked_ends_what_it_opened(service, made, room):
    async with hocuspocus(service.url) as client:
        await client.synced(room, token("rita", "editor"))
        await client.synced(f"{room}-2", token("otto", "editor"))
        await made.post("/v1/revocations", json={"principal": "rita"})
        assert (await client.until(room, DENIED)).startswith("4401 ")
        assert await client.until(room, "close")
        assert await written(client, f"{room}-2", news()) == 1


async def test_a_session_that_is_deleted_is_gone(service, made, room):
    async with hocuspocus(service.url) as client:
        await client.synced(room, token("ann", "editor"))
        await made.delete(f"/v1/sessions/{room}")
        assert (await client.until(room, DENIED)).startswith("4404 ")
        await client.begin(room, token("ann", "editor"))
        assert (await client.until(room, DENIED)).startswith("4404 ")


async def test_a_token_is_asked_for_in_time_and_a_new_one_counts(service, made, room):
    async with hocuspocus(service.url) as client:
        await client.synced(room, token("ann", "editor", ttl_s=4))
        await client.until(room, WANTED)
        await client.send(room, b"\x02\x00" + string(token("ann", "viewer")))
        assert await client.until(room, AUTHENTICATED) == "readonly"
        await client.send(room, b"\x02\x00" + string(token("ann", "editor")))
        assert await client.until(room, AUTHENTICATED) == "read-write"
        await asyncio.sleep(4)  # the first one has ended
        assert await written(client, room, news()) == 1


async def test_a_token_that_is_not_renewed_ends(service, made, room):
    async with hocuspocus(service.url) as client:
        brief = token("ann", "editor", ttl_s=2)
        await client.synced(room, brief)
        await client.until(room, WANTED)
        await client.send(room, b"\x02\x00" + string(brief))
        assert (await client.closed())[0] == 4501, "a provider comes back, and asks for its token again"


@pytest.mark.parametrize(("other", "reason"), [(token("eve", "editor"), "somebody else"), ("nonsense", "4401")])
async def test_a_token_is_not_renewed_by_a_bad_one_or_somebody_elses(service, made, room, other, reason):
    async with hocuspocus(service.url) as client:
        await client.synced(room, token("ann", "editor"))
        await client.send(room, b"\x02\x00" + string(other))
        assert reason in await client.until(room, DENIED)
        await client.synced(room, token("ann", "editor"))


async def test_a_page_of_another_origin_gets_nowhere(service, made, room):
    async with hocuspocus(service.url, origin="https://evil.example") as client:
        assert (await client.closed())[0] == 4403


async def test_a_page_that_may_comes_in(service, made, room):
    async with hocuspocus(service.url, origin=service.url) as client:
        await client.synced(room, token("ann", "editor"))

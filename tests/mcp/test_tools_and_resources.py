"""Clients of the package ``mcp`` list, read, post, search, ask and follow, in both versions of the protocol."""

import asyncio
import json

import httpx
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourcesListChanged
from mcp.types import ResourceListChangedNotification, ResourceUpdatedNotification

from crdt_sessions.client.service import ServiceClient
from crdt_sessions.errors import BadParameter, RequestRefused
from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.http.inside import Inside
from crdt_sessions_server.mcp import subscriptions
from crdt_sessions_server.mcp.api import Api, path_of
from crdt_sessions_server.mcp.search import PIECE, search
from crdt_sessions_server.mcp.server import build
from crdt_sessions_server.mcp.subscriptions import Followed, list_changes
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.mcp.conftest import VERSIONS, client
from tests.processes import PATIENCE


async def test_a_client_speaks_the_version_it_wants(service, version):
    async with client(service.url, VERSIONS[version]) as mcp:
        assert mcp.protocol_version == version
        assert mcp.server_info.name == "crdt-sessions"
        assert {"ask", "search", "read_presence"} <= {tool.name for tool in (await mcp.list_tools()).tools}


async def test_an_answer_is_waited_for_and_everything_can_be_read(service, version, room):
    async with client(service.url, VERSIONS[version]) as mcp:
        answer = await mcp.call_tool("ask", {"session": room, "text": "say 3"})
        assert (answer.is_error, answer.structured_content["status"]) == (False, "completed")
        assert answer.content[0].text == answer.structured_content["text"] == "naïve café 😀 "
        told = await mcp.call_tool("post_message", {"session": room, "text": "needle in hay", "id": "n"})
        assert told.structured_content["message"]["id"] == "n"
        listed = (await mcp.call_tool("list_sessions", {})).structured_content["sessions"]
        assert room in [each["id"] for each in listed]
        read = (await mcp.call_tool("read_session", {"session": room})).structured_content
        assert [message["role"] for message in read["messages"]][:3] == ["user", "assistant", "user"]
        for where in ({}, {"session": room}):
            found = (await mcp.call_tool("search", {"text": "NEEDLE", **where})).structured_content["found"]
            assert (room, "n") in [(each["session"], each.get("message")) for each in found]
        here = (await mcp.call_tool("read_presence", {"session": room})).structured_content["present"]
        assert {each["state"]["user"]["name"] for each in here} <= {"writer"}, "which answers what was posted"

        assert f"session://{room}" in [each.uri for each in (await mcp.list_resources()).resources]
        templates = [each.uri_template for each in (await mcp.list_resource_templates()).resource_templates]
        assert "session://{session}/messages{?after}" in templates
        for what in ("", "/runs", f"/runs/{answer.structured_content['run']}", "/state", "/presence"):
            found = await mcp.read_resource(f"session://{room}{what}")
            json.loads(found.contents[0].text)
        async with httpx.AsyncClient(base_url=service.url) as http:
            await http.post(
                f"/v1/sessions/{room}/artifacts", json={"id": "a", "content": "# Plan", "mediaType": "text/markdown"}
            )
        plan = (await mcp.read_resource(f"session://{room}/artifacts/a")).contents[0]
        assert (plan.mime_type, plan.text) == ("text/markdown", "# Plan")
        page = json.loads((await mcp.read_resource(f"session://{room}/messages?after=2")).contents[0].text)
        assert page["messages"][0]["id"] == "n"


@pytest.mark.slow
async def test_a_search_goes_on_by_its_cursor_until_everything_was_looked_at():
    async with Service(Settings(default_agent=""), store=MemoryStore()) as service:
        api = Api(ServiceClient("http://localhost", None, transport=Inside(service.app.asgi_app, "127.0.0.1")))
        wanted = []
        for number in range(2 * PIECE + 3):
            name = f"s{number}"
            await api.post("/v1/sessions", {"id": name, "title": f"Needle {number}" if number % 10 == 0 else "Hay"})
            for message in range(3 if number % 7 == 0 else 0):
                posted = await api.post(path_of(name, "messages"), {"text": f"a NEEDLE {message}"})
                wanted.append((name, posted["id"]))
        wanted += [(f"s{number}", None) for number in range(0, 2 * PIECE + 3, 10)]
        for limit, session in ((1, None), (2, None), (100, None), (2, "s7")):
            found, cursor, calls = [], None, 0
            while calls == 0 or cursor is not None:
                page = await search(api, "needle", session=session, cursor=cursor, limit=limit)
                found += [(each["session"], each.get("message")) for each in page["found"]]
                cursor, calls = page.get("nextCursor"), calls + 1
            assert sorted(found, key=str) == sorted(
                (each for each in wanted if session is None or (each[0] == session and each[1])), key=str
            )
        with pytest.raises(BadParameter):
            await search(api, "needle", session=None, cursor="made up", limit=1)


async def test_a_run_that_takes_longer_is_named_and_can_be_waited_for_or_stopped(service, version, room):
    async with client(service.url, VERSIONS[version]) as mcp:
        begun = await mcp.call_tool("ask", {"session": room, "text": "say 2; heed", "wait": 0})
        run = begun.structured_content["run"]
        assert begun.structured_content["status"] != "completed"
        assert "wait_for_answer" in begun.content[0].text
        stopped = await mcp.call_tool("cancel_run", {"session": room, "run": run, "reason": "enough"})
        assert stopped.structured_content["run"]["cancel"]["reason"] == "enough"
        over = await mcp.call_tool("wait_for_answer", {"session": room, "run": run})
        assert over.structured_content["status"] == "cancelled"


async def test_whoever_waits_hears_of_progress(service, version, room):
    heard = []

    async def progress(done, total, message):
        heard.append(message)

    async with client(service.url, VERSIONS[version]) as mcp:
        await mcp.call_tool("ask", {"session": room, "text": "say 3 20"}, progress_callback=progress)
    assert any("running" in message for message in heard)


@pytest.mark.parametrize(
    ("tool", "given", "why"),
    [
        ("ask", {"text": "?"}, "session is missing"),
        ("ask", {"session": "s", "text": "?", "waits": 1}, "waits is no field of this"),
        ("read_session", {"session": "nobody-made-this"}, "there is no session"),
        ("wait_for_answer", {"session": "nobody-made-this", "run": "r"}, "there is no session"),
        ("post_message", {"session": "a\x00b", "text": "?"}, "control"),
        ("list_sessions", {"cursor": "nonsense"}, "cursor"),
    ],
)
async def test_a_call_that_cannot_be_is_told_to_the_model(service, version, tool, given, why):
    async with client(service.url, VERSIONS[version]) as mcp:
        answer = await mcp.call_tool(tool, given)
        assert answer.is_error
        assert why in answer.content[0].text


async def test_a_failed_run_is_an_error(service, version, room):
    async with client(service.url, VERSIONS[version]) as mcp:
        answer = await mcp.call_tool("ask", {"session": room, "text": "say 1; fail out of paper"})
        assert answer.is_error
        assert "out of paper" in answer.content[0].text


@pytest.mark.parametrize(
    "uri", ["session://nobody-made-this", "session://s/nothing", "http://example.org/", "session:"]
)
async def test_a_resource_that_is_not_there_is_an_error_of_the_protocol(service, version, uri):
    async with client(service.url, VERSIONS[version]) as mcp:
        with pytest.raises(MCPError) as caught:
            await mcp.read_resource(uri)
        missing = uri == "session://nobody-made-this"
        assert caught.value.code == (-32002 if missing and version == "2025-11-25" else -32602)


async def test_a_tool_that_is_not_there_is_an_error_of_the_protocol(service, version):
    async with client(service.url, VERSIONS[version]) as mcp:
        with pytest.raises(MCPError, match="there is no tool"):
            await mcp.call_tool("destroy", {})


async def test_subscribers_hear_of_changes_and_of_nothing_else(service, room):
    async with client(service.url) as mcp:
        await mcp.call_tool("post_message", {"session": room, "text": "one"})
        async with httpx.AsyncClient(base_url=service.url) as http:
            await http.post(f"/v1/sessions/{room}/artifacts", json={"id": "a", "content": "one"})
        wanted = [
            f"session://{room}",
            f"session://{room}/state",
            f"session://{room}/artifacts/a",
            "session://nobody-made-this",
        ]
        async with asyncio.timeout(PATIENCE), mcp.listen(resource_subscriptions=wanted) as heard:
            assert heard.honored.resource_subscriptions == wanted[:3]
            await mcp.call_tool("post_message", {"session": room, "text": "two"})
            assert (await anext(heard)).uri == wanted[0]
            async with httpx.AsyncClient(base_url=service.url) as http:
                patch = [{"op": "add", "path": "/k", "value": 1}]
                await http.patch(
                    f"/v1/sessions/{room}/state", json=patch, headers={"Content-Type": "application/json-patch+json"}
                )
            while (await anext(heard)).uri != wanted[1]:
                pass
            async with httpx.AsyncClient(base_url=service.url) as http:
                await http.put(f"/v1/sessions/{room}/artifacts/a", json={"content": "two"})
            while (await anext(heard)).uri != wanted[2]:
                pass


@pytest.mark.filterwarnings("ignore:resources/:mcp.shared.exceptions.MCPDeprecationWarning")
async def test_subscribers_of_the_older_protocol_hear_of_changes_until_they_leave(service, room):
    heard = asyncio.Queue()

    async def take(message):
        if isinstance(message, ResourceUpdatedNotification):
            heard.put_nowait(message.params.uri)

    uri = f"session://{room}"
    async with client(service.url, "legacy", message_handler=take) as mcp:
        with pytest.raises(MCPError, match="there is no session"):
            await mcp.subscribe_resource(uri)
        await mcp.call_tool("post_message", {"session": room, "text": "one"})
        await mcp.subscribe_resource(uri)
        await mcp.call_tool("post_message", {"session": room, "text": "two"})
        async with asyncio.timeout(PATIENCE):
            assert await heard.get() == uri
        await mcp.unsubscribe_resource(uri)


async def test_in_one_process_no_socket_is_needed():
    async with Service(Settings(default_agent=""), store=MemoryStore()) as service:
        api = Api(ServiceClient("http://localhost", None, transport=Inside(service.app.asgi_app, "127.0.0.1")))
        async with Client(build(lambda _: api), cache=None) as mcp:
            await mcp.call_tool("post_message", {"session": "s", "text": "hello"})
            read = await mcp.call_tool("read_session", {"session": "s"})
            assert read.structured_content["messages"][0]["parts"][0]["text"] == "hello"


async def quiet():
    """Something that never changes."""
    yield
    await asyncio.get_running_loop().create_future()


async def test_one_client_is_told_of_so_many_resources():
    followed = Followed(lambda uri: asyncio.sleep(0))
    try:
        for number in range(100):
            await followed.follow(f"session://s{number}", quiet())
        await followed.follow("session://s0", quiet())
        with pytest.raises(MCPError, match="100 resources"):
            await followed.follow("session://more", quiet())
        followed.leave("session://s0")
        await followed.follow("session://more", quiet())
    finally:
        await followed.close()


async def test_many_requests_for_one_resource_at_once_follow_it_once():
    begun, gate = [], asyncio.Event()
    ended = asyncio.Event()

    async def slow():
        begun.append(1)
        try:
            await gate.wait()
            yield None
            await asyncio.Event().wait()
        finally:
            ended.set()

    followed = Followed(lambda uri: asyncio.sleep(0))
    requests = [asyncio.create_task(followed.follow("session://s", slow())) for _ in range(200)]
    await asyncio.sleep(0)
    gate.set()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*requests)
        await followed.close()
    assert begun == [1]
    assert ended.is_set()


async def test_requests_at_once_do_not_get_more_resources_than_one_may_have():
    gate = asyncio.Event()

    async def slow():
        await gate.wait()
        yield None
        await asyncio.Event().wait()

    followed = Followed(lambda uri: asyncio.sleep(0))
    requests = [asyncio.create_task(followed.follow(f"session://s{number}", slow())) for number in range(150)]
    await asyncio.sleep(0)
    gate.set()
    try:
        async with asyncio.timeout(PATIENCE):
            done = await asyncio.gather(*requests, return_exceptions=True)
        assert [type(each) for each in done if each is not None] == [MCPError] * 50
    finally:
        await followed.close()


async def test_all_who_ask_at_once_for_a_resource_that_is_not_there_are_told():
    async def none():
        await asyncio.sleep(0)
        raise BadParameter(name="uri", text="nowhere")
        yield

    followed = Followed(lambda uri: asyncio.sleep(0))
    for _ in range(51):  # what failed takes no place
        done = await asyncio.gather(
            *(followed.follow(f"session://{number}", none()) for number in (1, 1, 2)), return_exceptions=True
        )
        assert [type(each) for each in done] == [BadParameter] * 3


async def test_a_resource_that_has_ended_can_be_asked_for_again():
    async with Service(Settings(default_agent=""), store=MemoryStore()) as service:
        inside = Inside(service.app.asgi_app, "127.0.0.1")
        api, told = Api(ServiceClient("http://localhost", None, transport=inside)), asyncio.Queue()
        followed = Followed(told.put)
        async with (
            httpx.AsyncClient(base_url="http://localhost", transport=inside) as http,
            asyncio.timeout(PATIENCE),
        ):
            for _ in range(2):
                await http.post("/v1/sessions", json={"id": "s"})
                await followed.follow("s", subscriptions.changes(api, "session://s"))
                await http.delete("/v1/sessions/s")
                assert await told.get()
                await followed.over()
                with pytest.raises(RequestRefused):
                    await followed.follow("s", subscriptions.changes(api, "session://s"))
        await followed.close()


async def test_listeners_hear_of_new_sessions_and_titles_and_not_of_what_is_said(service, room):
    async with client(service.url) as mcp, httpx.AsyncClient(base_url=service.url) as http:
        async with (
            asyncio.timeout(PATIENCE),
            mcp.listen(resources_list_changed=True, tools_list_changed=True) as heard,
        ):
            assert (heard.honored.resources_list_changed, heard.honored.tools_list_changed) == (True, True)
            for change in (
                http.post("/v1/sessions", json={"id": room}),
                http.patch(f"/v1/sessions/{room}", json={"title": "Plans"}),
                http.delete(f"/v1/sessions/{room}"),
            ):
                assert (await change).is_success
                assert await anext(heard) == ResourcesListChanged()


@pytest.mark.filterwarnings("ignore:resources/:mcp.shared.exceptions.MCPDeprecationWarning")
async def test_clients_of_the_older_protocol_that_have_listed_sessions_hear_of_new_ones(monkeypatch):
    monkeypatch.setattr(subscriptions, "_SELDOM_S", 0.02)
    heard = asyncio.Queue()

    async def take(message):
        if isinstance(message, ResourceListChangedNotification):
            heard.put_nowait(message)

    async with Service(Settings(default_agent=""), store=MemoryStore()) as service:
        api = Api(ServiceClient("http://localhost", None, transport=Inside(service.app.asgi_app, "127.0.0.1")))
        async with Client(build(lambda _: api), mode="legacy", cache=None, message_handler=take) as mcp:
            assert mcp.server_capabilities.resources.list_changed
            await api.post("/v1/sessions", {"id": "before"})
            assert [each.name for each in (await mcp.list_resources()).resources] == ["before"]
            await api.post("/v1/sessions/before/messages", {"text": "that is no change of the list"})
            await api.post("/v1/sessions", {"id": "new"})
            async with asyncio.timeout(PATIENCE):
                await heard.get()
            assert {each.name for each in (await mcp.list_resources()).resources} == {"before", "new"}
            assert heard.empty()


async def test_what_is_said_changes_no_list():
    pages = asyncio.Queue()

    class Sessions:
        async def changed_sessions(self, every_s):
            while True:
                yield await pages.get()

    told = list_changes(Sessions())
    for page, differs in (
        ([{"id": "a", "title": "t", "deleted": False}], False),
        ([{"id": "a", "title": "t", "deleted": False}], False),
        ([{"id": "a", "title": "u", "deleted": False}], True),
        ([{"id": "b", "deleted": True}], False),
        ([{"id": "b", "deleted": False}], True),
        ([{"id": "b", "deleted": True}], True),
        ([], False),
    ):
        pages.put_nowait(page)
        assert await anext(told) is differs, page
    await told.aclose()

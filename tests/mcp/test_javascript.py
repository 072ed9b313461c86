"""The JavaScript SDKs' clients, and all kinds of clients on one session."""

import asyncio

import httpx
import pytest

from crdt_sessions import connect
from crdt_sessions.model import ArtifactHead
from tests.gateways.conftest import JS as GATEWAYS
from tests.interop.node import NodePeers
from tests.mcp.conftest import client
from tests.mcp.test_asks_and_tasks import Tasks
from tests.mcp.test_conformance import JS, needs_node
from tests.processes import PATIENCE

pytestmark = [pytest.mark.interop, needs_node]


@pytest.fixture(scope="module")
def node():
    peers = NodePeers(JS / "clients.mjs")
    yield peers
    peers.close()


@pytest.mark.parametrize("kind", ["sdk", "client"])
def test_a_javascript_client_lists_asks_is_asked_and_follows(service, node, room, kind):
    assert node("open", name=room, url=service.url, kind=kind, said=[{"answer": "Oslo"}]) == "crdt-sessions"
    assert {"ask", "search"} <= set(node("tools", name=room))
    answer = node("call", name=room, tool="ask", given={"session": room, "text": "choose; say 1"})
    assert answer["structuredContent"]["text"] == "to Oslo naïve "
    assert len(node("state", name=room)["asked"]) == 1
    uri = f"session://{room}"
    assert uri in node("resources", name=room)
    node("follow", name=room, uri=uri)
    assert not node("call", name=room, tool="post_message", given={"session": room, "text": "hello"}).get("isError")
    node.until(lambda state: uri in state["heard"], command="state", name=room)
    assert '"text": "hello"' in node("read", name=room, uri=f"{uri}/messages?after=2")
    refused = node("call", name=room, tool="ask", given={"session": room})
    assert refused["isError"]
    node("close", name=room)


async def test_an_mcp_client_a_chat_and_an_editor_share_a_session(service, node, room):
    """The client waits for a task and is asked; useChat shows that, and an editor with Yjs writes meanwhile."""
    chats, editors = NodePeers(GATEWAYS / "clients.mjs"), NodePeers()
    tasks = Tasks({})
    try:
        async with (
            client(service.url, extensions=[tasks]) as mcp,
            connect(service.url, room, name="Ann") as ann,
        ):
            ann.edit(lambda view: view.artifacts.add(ArtifactHead(id="plan", title="", created_at=1), "Plan: "))
            await ann.durable()
            editors("open", peer="e", url=service.ws, room=room)
            listed = (await mcp.call_tool("list_sessions", {})).structured_content["sessions"]
            assert room in [each["id"] for each in listed]
            question = {"session": room, "text": "say 3; ask pay; say 2"}
            asking = asyncio.create_task(mcp.call_tool("ask", question))
            await asyncio.to_thread(
                editors.until, lambda text: text == "Plan: ", command="text", peer="e", artifact="plan"
            )
            editors("write", peer="e", artifact="plan", index=6, text="go 😀")
            answer = await asyncio.wait_for(asking, PATIENCE)
            await ann.until(lambda: "go" in str(ann.view.artifacts.text("plan")))
            assert answer.structured_content["status"] == "completed"
            assert "input_required" in tasks.seen
            said = answer.structured_content["text"]
            chats("ai.open", name=room, id=room, url=service.url, messages=await shown(service, room))
            state = await chats.ask("ai.send", name=room, text="say 1")
            parts = state["messages"][1]["parts"]
            assert "".join(part["text"] for part in parts if part["type"] == "text") == said
            assert [part["approval"]["approved"] for part in parts if part["type"] == "tool-pay"] == [True]
            assert "go 😀" in (await mcp.read_resource(f"session://{room}/artifacts/plan")).contents[0].text
        await node.ask("open", name=room, url=service.url, kind="client")
        found = await node.ask("call", name=room, tool="read_session", given={"session": room})
        assert [each["role"] for each in found["structuredContent"]["messages"]] == ["user", "assistant"] * 2
        await node.ask("close", name=room)
    finally:
        chats.close()
        editors.close()


async def shown(service, room):
    async with httpx.AsyncClient(base_url=service.url) as http:
        return (await http.get(f"/v1/gateways/ai-sdk/chat/{room}/messages")).json()["messages"]

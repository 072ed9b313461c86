"""Agents that clients name and that are not there: those that never were, and those that may come back."""

import pytest

from crdt_sessions.errors import AgentAway
from crdt_sessions.ids import session_id
from crdt_sessions.runtime import until_taken
from tests.gateways.in_process import served

OPENAI = "/v1/gateways/openai/chat/completions"
ASKED = [{"role": "user", "content": "?"}]


async def test_an_unknown_model_is_refused_with_the_known_ones():
    async with served() as client:
        await client.claim("writer")
        for body in ({"model": "wirter"}, {"model": "wirter", "stream": True}):
            status, answer, _ = await client.post(OPENAI, {**body, "messages": ASKED}, **{"X-Session-Id": "s"})
            assert (status, answer["error"]["code"]) == (404, "model_not_found")
            assert answer["error"]["message"].startswith("there is no model 'wirter'; there are 'writer'")
        assert (await client.get("/v1/sessions"))["sessions"] == [], "nothing is kept of it"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_absent_agent_is_waited_for_and_then_answered_with_503(stream):
    async with served() as client:
        await client.claim("writer")
        body, headers = {"model": "writer", "messages": ASKED}, {"X-Session-Id": "s"}
        status, answer, sent = await client.post(OPENAI, {**body, "stream": stream}, **headers)
        assert (status, sent["Retry-After"], answer["error"]["code"]) == (503, "5", "agent_away")
        assert "the agent 'writer' is not there, and none came within 0.05 s" in answer["error"]["message"]
        claim = await client.claim("writer")
        assert claim is not None, "what was asked is kept"
        await client.answer(claim, "Here I am.")
        headers["X-Stainless-Retry-Count"] = "1"  # so OpenAI's clients do by themselves after a 503
        status, answer, _ = await client.post(OPENAI, body, **headers)
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "Here I am.")
        assert len((await client.get("/v1/sessions/s/runs"))["runs"]) == 1, "it was asked once"


async def test_a_request_where_no_agent_ever_was_is_answered_with_503():
    async with served() as client:
        status, answer, _ = await client.post(OPENAI, {"messages": ASKED})
        assert (status, answer["error"]["message"].split(",")[0]) == (503, "no agent is there")


async def test_the_default_agent_is_known_before_it_ever_connects():
    async with served(default_agent="writer") as client:
        assert (await client.post(OPENAI, {"model": "writer", "messages": ASKED}))[0] == 503


async def test_an_agent_that_is_busy_elsewhere_is_not_absent():
    """A stream begins at once then, and says that it goes on."""
    async with served(agent_wait_s=0) as client:
        await client.post("/v1/sessions/other/messages", {"text": "?", "agent": "writer"})
        claim = await client.claim("writer")
        _, message, _ = await client.post("/v1/sessions/s/messages", {"id": "q", "text": "?", "agent": "writer"})
        async with client.registry.open(session_id("s")) as session:
            await until_taken(client.registry, session, "run-q", or_busy=True)
            await client.answer(claim, "done")
            with pytest.raises(AgentAway):
                await until_taken(client.registry, session, "run-q", or_busy=True)
        assert message["seq"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/gateways/ai-sdk/chat",
            {
                "id": "s",
                "agent": "wirter",
                "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "?"}]}],
            },
        ),
        (
            "/v1/gateways/ag-ui",
            {
                "threadId": "s",
                "runId": "r",
                "state": {},
                "tools": [],
                "context": [],
                "messages": [{"id": "u", "role": "user", "content": "?"}],
                "forwardedProps": {"agent": "wirter"},
            },
        ),
    ],
)
async def test_other_gateways_refuse_an_agent_that_does_not_exist(path, body):
    async with served() as client:
        await client.claim("writer")
        response = await client._client.post(path, json=body, headers={"Host": "localhost"})
        assert response.status_code == 404
        assert "there is no agent 'wirter'; there are 'writer'" in await response.get_data(as_text=True)
        assert (await client.get("/v1/sessions"))["sessions"] == []

"""OpenAI's own client against the service: it takes the agents of a session for models."""

import json

import httpx
import openai
import pytest

from crdt_sessions import connect


@pytest.fixture
def client(service):
    with openai.OpenAI(base_url=f"{service.url}/v1/gateways/openai", api_key="none", max_retries=0) as client:
        yield client


def asked(text):
    return [{"role": "user", "content": text}]


def test_a_completion_whole_and_in_chunks(client, room):
    headers = {"X-Session-Id": room}
    text = "think 3; say 6; tool weather"
    whole = client.chat.completions.create(model="writer", messages=asked(text), extra_headers=headers)
    message = whole.choices[0].message
    assert (message.content, whole.choices[0].finish_reason) == ("naïve café 😀 streams are durable. ", "stop")
    assert message.reasoning_content == "naïve café 😀 "
    assert message.tool_calls is None, "the agent has called it itself"
    chunks = list(
        client.chat.completions.create(model="writer", messages=asked(text), stream=True, extra_headers=headers)
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == message.reasoning_content
    assert not any(delta.tool_calls for delta in deltas)
    assert deltas[0].role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_conversation_continues_however_much_of_it_is_sent_again(service, client, room):
    headers = {"X-Session-Id": room}
    history = [{"role": "system", "content": "Be brief."}, *asked("say 2")]
    answer = client.chat.completions.create(model="*", messages=history, extra_headers=headers)
    history += [{"role": "assistant", "content": answer.choices[0].message.content}, *asked("echo")]
    answer = client.chat.completions.create(model="*", messages=history, extra_headers=headers)
    assert "Be brief." in answer.choices[0].message.content
    assert answer.choices[0].message.content.count("say 2") == 1
    async with connect(service.url, room) as peer:
        assert [message.role for message in peer.messages.all()] == [
            "system",
            "user",
            "assistant",
            "user",
            "assistant",
        ]


def test_a_session_is_made_if_none_is_named_and_a_retry_is_not_another_question(client):
    key = {"Idempotency-Key": "once"}
    first = client.chat.completions.with_raw_response.create(
        model="writer", messages=asked("say 3"), extra_headers=key
    )
    session = first.headers["x-session-id"]
    again = client.chat.completions.with_raw_response.create(
        model="writer", messages=asked("say 3"), extra_headers=key | {"X-Session-Id": session}
    )
    assert again.headers["x-run-id"] == first.headers["x-run-id"]
    assert again.parse().id == first.parse().id


def test_failures_are_openai_errors(service, client, room):
    headers = {"X-Session-Id": room}
    with pytest.raises(openai.InternalServerError, match="out of tokens"):
        client.chat.completions.create(model="writer", messages=asked("fail out of tokens"), extra_headers=headers)
    with pytest.raises(openai.APIError, match="out of tokens"):
        list(
            client.chat.completions.create(
                model="writer", messages=asked("say 1; fail out of tokens"), stream=True, extra_headers=headers
            )
        )
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="writer", messages=[], extra_headers=headers)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(
            model="writer", messages=[{"role": "assistant", "content": "x"}], extra_headers=headers
        )


def test_a_history_comes_along_in_its_order_and_is_asked_once(service, client):
    messages = [{"role": "system", "content": "be brief"}]
    for number in range(6):
        messages += [*asked(f"say 1 q{number}"), {"role": "assistant", "content": f"a{number}"}]
    messages += asked("echo")
    answer = client.chat.completions.with_raw_response.create(model="writer", messages=messages)
    assert json.loads(answer.parse().choices[0].message.content) == messages
    session = answer.headers["x-session-id"]
    with httpx.Client(base_url=service.url) as http:
        runs = http.get(f"/v1/sessions/{session}/runs").json()["runs"]
    assert [run["status"] for run in runs] == ["completed"]


def test_a_repeated_request_asks_once_even_if_the_client_never_got_the_sessions_name(service, room):
    """It gives up waiting, twice."""
    with openai.OpenAI(
        base_url=f"{service.url}/v1/gateways/openai", api_key="none", max_retries=9, timeout=1
    ) as client:
        text = f"say 60 40 {room}"
        answer = client.chat.completions.with_raw_response.create(model="writer", messages=asked(text))
    assert len(answer.parse().choices[0].message.content.split()) == 60
    assert answer.retries_taken > 0
    with httpx.Client(base_url=service.url) as http:
        names = [each["id"] for each in http.get("/v1/sessions", params={"limit": 500}).json()["sessions"]]
        session = answer.headers["x-session-id"]
        assert [name for name in names if name.startswith(session[:29])] == [session]
        assert len(http.get(f"/v1/sessions/{session}/runs").json()["runs"]) == 1


def test_a_run_that_failed_is_not_repeated(service, room):
    with openai.OpenAI(base_url=f"{service.url}/v1/gateways/openai", api_key="none", max_retries=3) as client:
        with pytest.raises(openai.InternalServerError) as failed:
            client.chat.completions.create(
                model="writer", messages=asked("fail"), extra_headers={"X-Session-Id": room}
            )
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert failed.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_what_the_agent_says_that_it_has_used_is_told(client):
    answer = client.chat.completions.create(model="writer", messages=asked("spend 10 3; say 2; spend 5 1"))
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (15, 4, 19)
    assert usage.prompt_tokens_details.cached_tokens == 8
    *_, last = client.chat.completions.create(
        model="writer", messages=asked("say 2; spend 7 2"), stream=True, stream_options={"include_usage": True}
    )
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (7, 2, 9)


def test_usage_comes_in_a_last_chunk_if_it_is_wanted(client):
    chunks = list(
        client.chat.completions.create(
            model="writer", messages=asked("say 2"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 0)
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "stop"


PLACE = {"type": "function", "function": {"name": "place", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_a_clients_tools_are_called_by_it_and_the_agent_goes_on(client, room, named, stream):
    messages = asked("say 1; client place; tool weather; client place; say 3")
    options = {"model": "writer", "tools": [PLACE], "extra_headers": {"X-Session-Id": room} if named else {}}
    heard = []
    for _ in range(4):
        if stream:
            with client.chat.completions.stream(messages=messages, **options) as events:
                answer = events.get_final_completion()
        else:
            answer = client.chat.completions.create(messages=messages, **options)
        message, finish = answer.choices[0].message, answer.choices[0].finish_reason
        heard.append((message.content or "", [call.function.name for call in message.tool_calls or []], finish))
        messages = [*messages, message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})]
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            assert json.loads(call.function.arguments) == {"question": "where"}
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "Oslo"})
    assert heard == [
        ("naïve ", ["place"], "tool_calls"), ("", ["place"], "tool_calls"), ("naïve café 😀 ", [], "stop"),
    ]  # fmt: skip
    answer = client.chat.completions.create(messages=[*messages, *asked("echo")], **options)
    told = json.loads(answer.choices[0].message.content)
    assert [each["content"] for each in told if each["role"] == "tool"].count("Oslo") == 2
    assert told[-1] == asked("echo")[0]


@pytest.mark.interop
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.sampled(2)
async def test_run_tools_of_the_javascript_client_calls_the_tool_and_gets_the_answer(
    service, clients, room, named, stream
):
    text = "say 1; client place; tool weather; client place; say 3"
    state = await clients.ask("oa.tools", url=service.url, session=room if named else None, text=text, stream=stream)
    assert (state["said"], state["called"]) == ("naïve café 😀 ", [{"question": "where"}] * 2)
    assert [message["role"] for message in state["messages"]] == [
        "user", "assistant", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip


def test_models_are_agents(service, client):
    assert [model.id for model in client.models.list()] == ["writer", "*"]
    assert client.models.retrieve("writer").id == "writer"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("org/somebody")
    assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "chat/completions", {"messages": "x"}, 422),
        ("POST", "chat/completions", None, 422),
        ("POST", "chat/completions", {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, 404),
        ("GET", "models/unknown", None, 404),
        ("POST", "embeddings", {}, 404),
        ("DELETE", "models", None, 405),
    ],
)
def test_a_refused_request_gets_an_openai_error(service, method, path, body, status):
    with httpx.Client(base_url=f"{service.url}/v1/gateways/openai/") as http:
        answer = http.request(method, path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], bool(error["message"])) == ("invalid_request_error", True)


def test_a_stop_from_elsewhere_ends_the_stream(service, client, room):
    headers = {"X-Session-Id": room}
    stream = client.chat.completions.create(
        model="writer", messages=asked("say 500 10"), stream=True, extra_headers=headers
    )
    next(iter(stream))
    with httpx.Client(base_url=service.url) as http:
        assert http.post(f"/v1/gateways/ai-sdk/chat/{room}/stop").json()["stopped"]
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "stop"

"""OpenAI's own client against the service: it takes the agents of a session for models."""

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
    assert message.tool_calls[0].function.arguments == '{"city": "Oslo"}'
    chunks = list(
        client.chat.completions.create(model="writer", messages=asked(text), stream=True, extra_headers=headers)
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == message.reasoning_content
    pieces = [call.function.arguments for delta in deltas for call in delta.tool_calls or []]
    assert "".join(pieces) == '{"city": "Oslo"}'
    assert deltas[0].role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_conversation_goes_on_in_the_session_whatever_of_it_is_sent_again(service, client, room):
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


def test_errors_are_errors(service, client, room):
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


def test_models_are_agents(client):
    assert [model.id for model in client.models.list()] == ["writer", "*"]


def test_a_stop_from_elsewhere_ends_the_stream(service, client, room):
    headers = {"X-Session-Id": room}
    stream = client.chat.completions.create(
        model="writer", messages=asked("say 500 10"), stream=True, extra_headers=headers
    )
    next(iter(stream))
    with httpx.Client(base_url=service.url) as http:
        assert http.post(f"/v1/gateways/ai-sdk/chat/{room}/stop").json()["stopped"]
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "stop"

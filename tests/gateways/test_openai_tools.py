"""Tools that run in OpenAI's clients, Python's and JavaScript's: with ``runTools`` and by hand, whatever becomes of them."""

import asyncio

import openai
import pytest

from tests.processes import PATIENCE

pytestmark = pytest.mark.interop

TOOL = {"type": "function", "function": {"name": "place", "parameters": {"type": "object", "properties": {}}}}
OSLO = 'it says "Oslo" done '


@pytest.mark.parametrize("stream", [True, False])
async def test_the_client_executes_the_tool_and_the_answer_goes_on(patient, clients, room, stream):
    text = "say 2; device place; say 3"
    state = await clients.ask("oa.tools", url=patient.url, session=room, text=text, stream=stream)
    assert state["said"] == f"{OSLO}naïve café 😀 "
    assert state["called"] == [{"question": "where"}]


@pytest.mark.parametrize("stream", [True, False])
async def test_of_two_clients_with_one_question_one_executes_the_tool(patient, clients, room, stream):
    text = "say 60 10; device place; say 3"
    asked = {"url": patient.url, "session": room, "text": text, "stream": stream}
    states = await asyncio.gather(*(clients.ask("oa.tools", **asked) for _ in range(2)))
    assert sum(len(state["called"]) for state in states) == 1
    assert {state["said"] for state in states if not state["called"]} <= {
        "naïve café 😀 streams are durable. " * 10 + f"{OSLO}naïve café 😀 "
    }
    assert all(state["said"].endswith(f"{OSLO}naïve café 😀 ") for state in states)


class Chat:
    """A conversation in which a program calls the tools itself.

    Args:
        service: the service.
        room: the session.
        clients: JavaScript's clients, or None for Python's.
        page: how the program calls itself, if it does.
    """

    def __init__(self, service, room, text, clients=None, page=None, stream=True):
        self._url, self._clients, self._stream = service.url, clients, stream
        self._headers = {"X-Session-Id": room} | ({"X-Device-Id": page} if page else {})
        self.messages = [{"role": "user", "content": text}]

    def again(self):
        """The same, after a restart: nothing of the answer is left."""
        found = Chat.__new__(Chat)
        vars(found).update(vars(self) | {"messages": self.messages[:1]})
        return found

    async def ask(self):
        """Return what is said, and the calls that are left to the program."""
        body = {"model": "writer", "messages": self.messages, "tools": [TOOL], "stream": self._stream}
        if self._clients is not None:
            answer = await self._clients.ask("oa.complete", url=self._url, headers=self._headers, **body)
            content, calls, finish = answer["content"], answer["calls"], answer["finish"]
        else:
            content, calls, finish = await self._ask_in_python(body)
        assert finish == ("tool_calls" if calls else "stop")
        made = [{"id": call, "type": "function", "function": {"name": "place", "arguments": "{}"}} for call in calls]
        self.messages.append({"role": "assistant", "content": content} | ({"tool_calls": made} if made else {}))
        return content, calls

    async def _ask_in_python(self, body):
        async with openai.AsyncOpenAI(
            base_url=f"{self._url}/v1/gateways/openai", api_key="none", max_retries=0, timeout=PATIENCE
        ) as client:
            if body.pop("stream"):
                async with client.chat.completions.stream(**body, extra_headers=self._headers) as events:
                    answer = await events.get_final_completion()
            else:
                answer = await client.chat.completions.create(**body, extra_headers=self._headers)
        (choice,) = answer.choices
        return (
            choice.message.content or "",
            [call.id for call in choice.message.tool_calls or ()],
            choice.finish_reason,
        )

    async def bring(self, call, output="Oslo"):
        self.messages.append({"role": "tool", "tool_call_id": call, "content": output})
        return await self.ask()


@pytest.fixture(params=["python", "javascript"])
def chat(request):
    """Return a function that makes a conversation with one of the clients; one streams, one gets answers whole."""
    node = request.getfixturevalue("clients") if request.param == "javascript" else None
    stream = request.param == "javascript"
    return lambda service, room, text, **more: Chat(service, room, text, node, stream=stream, **more)


def told(service, room):
    """The tool call as the session shows it."""
    with service.http() as http:
        parts = http.get(f"/v1/sessions/{room}/messages").json()["messages"][1]["parts"]
    (call,) = [part for part in parts if part["type"] == "tool"]
    return call


@pytest.mark.parametrize("page", [None, "tab"])
@pytest.mark.sampled(3)
async def test_a_program_that_is_started_again_between_call_and_result_is_given_the_call_again(
    patient, chat, room, page
):
    before = chat(patient, room, "say 2; device place; say 1", page=page)
    _, (call,) = await before.ask()
    after = before.again()
    assert await after.ask() == ("naïve café ", [call])
    assert await after.bring(call) == (f"{OSLO}naïve ", [])
    assert told(patient, room)["outcome"]["attempt"] == 2
    assert await before.bring(call, "Bergen") == (f"{OSLO}naïve ", []), "what came first counts"
    assert [each["why"] for each in told(patient, room)["lateResults"]] == ["not-the-taker"]


@pytest.mark.sampled(2)
async def test_a_program_that_dies_with_the_call_is_followed_by_one_that_waits(impatient, chat, room):
    dying = chat(impatient, room, "device place; say 1")
    other = dying.again()
    _, (call,) = await dying.ask()
    assert await asyncio.wait_for(other.ask(), PATIENCE) == ("", [call])
    assert await other.bring(call) == (f"{OSLO}naïve ", [])


@pytest.mark.sampled(2)
async def test_a_call_that_nobody_answers_ends_at_its_deadline(patient, chat, room):
    dying = chat(patient, room, "device place within 1")
    await dying.ask()
    other = dying.again()
    said, calls = await asyncio.wait_for(other.ask(), PATIENCE)
    while calls:  # it was given the call meanwhile, and does not answer either
        said, calls = await asyncio.wait_for(other.again().ask(), PATIENCE)
    assert said == "it says null deadline "
    assert await dying.bring(told(patient, room)["toolCallId"]) == ("it says null deadline ", [])
    assert told(patient, room)["outcome"]["code"] == "deadline"


async def test_of_two_programs_that_answer_the_same_call_one_counts_and_both_hear_which(patient, chat, room):
    first = chat(patient, room, "device place; say 1")
    _, (call,) = await first.ask()
    second = first.again()
    second.messages = [*first.messages]
    said = await asyncio.gather(first.bring(call, "Oslo"), second.bring(call, "Bergen"))
    assert said[0] == said[1]
    shown = told(patient, room)
    assert said[0] == (f'it says "{shown["output"]}" done naïve ', [])
    assert shown["outcome"]["attempt"] == 1
    assert len(shown["lateResults"]) == 1


async def test_run_tools_that_is_started_again_in_mid_tool_calls_it_again(patient, clients, room):
    asked = {"url": patient.url, "session": room, "text": "device place; say 1"}
    state = await clients.ask("oa.tools", **asked, stream=True, dies=True)
    assert len(state["called"]) == 1
    state = await clients.ask("oa.tools", **asked, stream=False, headers={})
    assert (state["said"], len(state["called"])) == (f"{OSLO}naïve ", 1)

"""Messages that say nothing are refused at every door; one that is in the document has a place, and costs no run."""

import pytest

from crdt_sessions.errors import EmptyMessage
from crdt_sessions.model import Author, MessageHead, RunRequest, TextPart, ValuePart, say_nothing
from crdt_sessions_server.gateways.conversation import steer
from crdt_sessions_server.gateways.transcript import IncomingMessage
from tests.gateways.desk import ANN, desk

NOTHING = ["", " \n\t", "\u00a0\u2003\u200b\ufeff"]


def text(words):
    return TextPart(type="text", text=words)


def test_parts_without_visible_text_say_nothing():
    assert all(say_nothing([text(words)]) for words in NOTHING)
    assert say_nothing([])
    assert say_nothing([text(""), TextPart(type="reasoning", text=" "), ValuePart(type="audio")])
    assert not say_nothing([text(" "), ValuePart(type="file", value={"url": "data:,"})])
    assert not say_nothing([text("\u200d?")])
    assert not say_nothing([ValuePart(type="audio", transcript="hm")])


async def by_ai_sdk(found, words):
    await found.ai_sdk([{"id": "u", "role": "user", "parts": [{"type": "text", "text": words}]}])


async def by_ag_ui(found, words):
    await found.ag_ui([{"id": "u", "role": "user", "content": words}], "r")


async def by_openai(found, words):
    await found.openai([{"role": "user", "content": words}])


async def by_steering(found, words):
    await steer(found.session, IncomingMessage("u", "user", [text(words)]), ANN, found.registry.clock.now())


@pytest.mark.parametrize("words", NOTHING)
@pytest.mark.parametrize("ask", [by_ai_sdk, by_ag_ui, by_openai, by_steering])
async def test_a_gateway_refuses_an_empty_message(ask, words):
    async with desk() as found:
        with pytest.raises(EmptyMessage, match="says nothing: give it text"):
            await ask(found, words)
        assert (found.view.messages.ids(), found.view.runs.ids()) == ([], [])


async def test_a_history_may_hold_empty_messages():
    """A model that only called tools has said nothing, and so may people have on other services."""
    async with desk() as found:
        history = [("user", "?"), ("assistant", ""), ("user", "and?")]
        parts = [
            {"id": f"m{at}", "role": role, "parts": [{"type": "text", "text": words}]}
            for at, (role, words) in enumerate(history)
        ]
        assert (await found.ai_sdk(parts)).request.message_id == "m2"


def written(found, id, parts, **request):
    def change(view):
        now = found.registry.clock.now()
        view.messages.add(MessageHead(id=id, role="user", author=Author(id="ann"), created_at=now), parts)
        if request:
            view.runs.request("r", RunRequest(message_id=id, created_at=now, **request))

    return found.session.edit(change)


@pytest.mark.parametrize("parts", [[], [text(" ")]])
async def test_an_empty_message_of_a_yjs_client_gets_a_place_and_no_run(parts):
    async with desk() as found:
        await written(found, "m", parts)
        assert found.view.messages["m"].seq == 1
        assert found.view.runs.ids() == []
        await found.session.edit(lambda view: view.messages["m"].add_part(text("Now it says something")))
        assert found.runs() == ["m"], "as soon as there is something to answer"


async def test_a_run_for_an_empty_message_ends_with_the_reason():
    async with desk() as found:
        await written(found, "m", [text("\n")], agent="writer")
        run = found.view.runs.find("r")
        assert (run.status, run.outcome.reason) == ("cancelled", "there is nothing to answer: the message is empty")
        await written(found, "n", [text("?")])
        assert (await found.answer("!")).request.message_id == "n", "nobody waits behind it"

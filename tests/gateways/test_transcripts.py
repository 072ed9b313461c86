"""What clients bring along: written down once, in its order, and asked once."""

import asyncio

import pytest

from crdt_sessions.errors import BadValue, NotFound, TooLarge
from crdt_sessions.model import Author, MessageHead, TextPart
from crdt_sessions_server.auth import Principal
from crdt_sessions_server.gateways import transcript
from tests.gateways.desk import desk

CHAT = [("u1", "user", "one"), ("a1", "assistant", "first"), ("u2", "user", "two"), ("a2", "assistant", "second")]


@pytest.fixture
async def room():
    async with desk() as found:
        yield found


def ui(id, role, text):
    return {"id": id, "role": role, "parts": [{"type": "text", "text": text}]}


def plain(id, role, text):
    return {"id": id, "role": role, "content": text}


def said(chat):
    return [(role, text) for _, role, text in chat]


class UseChat:
    """Sends as ``useChat`` does."""

    def __init__(self, desk):
        self.desk = desk

    async def send(self, chat, **more):
        return await self.desk.ai_sdk([ui(*each) for each in chat], **more)


class HttpAgent:
    """Sends as AG-UI's client and TanStack's do."""

    def __init__(self, desk):
        self.desk = desk

    async def send(self, chat, **more):
        return await self.desk.ag_ui([plain(*each) for each in chat], f"r-{chat[-1][0]}", **more)


class Completions:
    """Sends as OpenAI's clients do."""

    def __init__(self, desk):
        self.desk = desk

    async def send(self, chat, **more):
        return await self.desk.openai([{"role": role, "content": text} for _, role, text in chat], **more)


@pytest.fixture(params=[UseChat, HttpAgent, Completions])
def any_client(request, room):
    return request.param(room)


@pytest.fixture(params=[UseChat, HttpAgent])
def client(request, room):
    return request.param(room)


async def test_a_history_that_a_client_brings_is_written_down_in_its_order_and_asked_once(room, any_client):
    chat = [("s", "system", "be brief"), *CHAT, ("u3", "user", "three")]
    run = await any_client.send(chat)
    assert room.runs() == [run.request.message_id]
    assert room.seen(run) == room.conversation() == said(chat)
    assert [message.text for message in room.view.messages.ordered()] == [text for _, _, text in chat]
    await room.answer("third")
    assert await room.answer() is None, "nobody else is asked, then or later"


async def test_a_transcript_that_arrives_several_times_at_once_is_one_import(room, any_client):
    chat = [*CHAT, ("u3", "user", "three")]
    runs = await asyncio.gather(*(any_client.send(chat) for _ in range(3)))
    assert len({run.id for run in runs}) == len(room.runs()) == 1
    assert room.seen(runs[0]) == room.conversation() == said(chat)


async def test_two_questions_that_are_sent_at_once_are_told_in_order_and_answered_once(room, any_client):
    first = await any_client.send(CHAT[:1])
    await room.answer("first")
    chat = [CHAT[0], (first.output, "assistant", "first"), ("z", "user", "lost on its way"), ("b", "user", "again")]
    run = await any_client.send(chat)
    assert room.seen(run) == said(chat)
    assert room.runs() == [first.request.message_id, run.request.message_id]


async def test_imported_messages_name_their_importer(room, client):
    await client.send([*CHAT, ("u3", "user", "three")])
    messages = {message.id: message for message in room.view.messages.ordered()}
    assert {id: message.imported for id, message in messages.items()} == {
        "u1": True, "a1": True, "u2": True, "a2": True, "u3": None,
    }  # fmt: skip
    assert {(message.by, message.author.id, message.author.kind) for message in messages.values()} == {
        ("ann", "ann", "human")
    }
    assert (messages["a2"].reply_to, messages["a2"].parent, messages["a2"].run_id) == ("u2", "u2", None)


async def test_a_transcript_that_is_repeated_or_has_grown_adds_what_is_new(room, any_client):
    for length in (1, 1, 3, 3, 5):
        chat = [*CHAT, ("u3", "user", "three")][:length]
        run = await any_client.send(chat)
        assert room.seen(run) == said(chat)
    assert len(room.runs()) == len(set(room.runs())) == 3
    assert len(room.view.messages) == 5


async def test_the_part_of_a_history_that_a_session_lacks_stands_where_the_client_shows_it(room, any_client):
    window = [*CHAT[2:], ("u3", "user", "three")]
    await any_client.send(window)
    await room.answer("third")
    chat = [*CHAT, ("u3", "user", "three"), ("x", "assistant", "brought"), ("u4", "user", "four")]
    run = await any_client.send(chat)
    seen = room.seen(run)
    assert seen[:5] == said(chat)[:5]
    assert [each for each in seen if each != ("assistant", "third")] == said(chat)
    assert room.conversation() == seen


async def test_a_client_that_sends_only_its_last_messages_goes_on_with_all_there_is(room, client):
    await client.send([*CHAT, ("u3", "user", "three")])
    await room.answer("third")
    run = await client.send([("u3", "user", "three"), ("run-u3-out", "assistant", "third"), ("u4", "user", "four")])
    assert ("user", "one") in room.seen(run)
    assert room.seen(run)[-1] == ("user", "four")


async def test_messages_that_others_sent_meanwhile_stay_and_are_told(room, client):
    await client.send(CHAT[:1])
    await room.answer("first")
    head = MessageHead(id="other", role="user", author=Author(id="bob"), created_at=room.registry.clock.now())
    await room.session.edit(lambda view: view.messages.add(head, [TextPart(type="text", text="from a phone")]))
    run = await client.send([CHAT[0], ("u2", "user", "two")])
    assert room.seen(run) == [("user", "one"), ("assistant", "first"), ("user", "from a phone"), ("user", "two")]


async def test_an_answer_that_failed_before_it_began_is_not_brought_back_as_history(room, client):
    run = await client.send(CHAT[:1])
    chat = [CHAT[0], (run.output, "assistant", "what the client may have shown"), ("u2", "user", "two")]
    await client.send(chat)
    assert [message.id for message in room.view.messages.ordered()] == ["u1", "u2"]
    await room.answer("first")
    assert room.view.messages.value(run.output).imported is None


async def test_a_refused_transcript_writes_nothing(room, monkeypatch):
    client = UseChat(room)
    deep = value = []
    for _ in range(2000):
        value.append([])
        value = value[0]
    bad = {"id": "b", "role": "assistant", "parts": [{"type": "data-x", "data": deep}]}
    for messages, error in (
        ([ui(*CHAT[0]), bad, ui("u2", "user", "two")], BadValue),
        ([ui(*CHAT[0]), ui(*CHAT[1])], NotFound),
    ):
        with pytest.raises(error):
            await room.ai_sdk(messages)
        assert len(room.view.messages) == 0
    monkeypatch.setattr(transcript, "MAX_BROUGHT", 3)
    with pytest.raises(TooLarge, match="5 exceeds the limit of 3 messages that are new"):
        await client.send([*CHAT, ("u3", "user", "three")])
    assert len(room.view.messages) == 0
    await client.send(CHAT[:3])
    await client.send([*CHAT, ("u3", "user", "three")])


async def test_a_history_for_which_the_document_has_no_room_is_refused(room, monkeypatch):
    merger = room.session.engine._merger
    monkeypatch.setattr(merger, "_limits", merger._limits.__class__(max_document_bytes=5000))
    with pytest.raises(TooLarge, match="the document"):
        await room.ai_sdk([ui("u1", "user", "x" * 6000)])
    assert len(room.view.messages) == 0


# -- tools and thoughts ------------------------------------------------------------------------------------------------


async def test_tool_calls_of_a_history_are_told_to_the_agent_and_wait_for_nobody(room):
    call = {"toolCallId": "c", "input": {"city": "Oslo"}}
    parts = [
        {"type": "reasoning", "text": "hm"},
        {"type": "tool-weather", **call, "state": "output-available", "output": {"degrees": -3}},
        {"type": "dynamic-tool", "toolName": "pay", "toolCallId": "d", "input": {}, "state": "approval-responded",
         "approval": {"id": "d", "approved": True}},
        {"type": "text", "text": "cold"},
    ]  # fmt: skip
    run = await room.ai_sdk(
        [ui("u", "user", "?"), {"id": "a", "role": "assistant", "parts": parts}, ui("v", "user", "!")]
    )
    thought, weather, pay, text = room.view.messages.value("a").parts
    assert (thought.text, text.text) == ("hm", "cold")
    assert (weather.input, weather.output, weather.state) == ({"city": "Oslo"}, {"degrees": -3}, "output-available")
    assert (pay.tool_name, pay.state, pay.approval, pay.approval_request) == ("pay", "output-error", None, None)
    assert [role for role, _ in room.seen(run)] == ["user", "assistant", "tool", "tool", "assistant", "user"]


def ag_call(id, name="weather", arguments='{"city": "Oslo"}'):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


async def test_answers_of_ag_ui_are_kept_with_their_thoughts_and_tools(room):
    chat = [
        plain("u", "user", "?"),
        {"id": "t", "role": "reasoning", "content": "hm"},
        {"id": "a", "role": "assistant", "content": "let me see", "toolCalls": [ag_call("c"), ag_call("d", "pay")]},
        {"id": "r", "role": "tool", "toolCallId": "c", "content": "-3"},
        plain("b", "assistant", "cold"),
        plain("v", "user", "!"),
    ]
    run = await room.ag_ui(chat, "r1")
    assert [message.id for message in room.view.messages.ordered()] == ["u", "a", "b", "v"]
    thought, text, weather, pay = room.view.messages.value("a").parts
    assert (thought.type, thought.text, text.text) == ("reasoning", "hm", "let me see")
    assert (weather.output, pay.state, pay.error_text) == ("-3", "output-error", "it was not answered")
    assert [role for role, _ in room.seen(run)] == ["user", "assistant", "tool", "tool", "assistant", "user"]


async def test_the_pieces_of_a_message_in_ag_ui_are_recognised(room):
    run = await room.ag_ui([plain("u", "user", "?")], "r1")
    await room.answer("first", tools=[("c", "weather", "-3")])
    view = room.view
    before = len(view.messages)
    chat = [
        plain("u", "user", "?"),
        {"id": f"{run.output}-0-reasoning", "role": "reasoning", "content": "hm"},
        {"id": run.output, "role": "assistant", "content": "first", "toolCalls": [ag_call("c")]},
        {"id": "c-result", "role": "tool", "toolCallId": "c", "content": "-3"},
        plain(f"{run.output}-2", "assistant", "cold"),
        plain("v", "user", "!"),
    ]
    await room.ag_ui(chat, "r2")
    assert len(view.messages) == before + 1


@pytest.mark.parametrize("kind", ["ai", "ag"])
async def test_an_imported_answer_that_waits_for_its_tool_is_continued(room, kind):
    for attempt in range(2):  # again changes nothing
        if kind == "ai":
            part = {
                "type": "tool-place",
                "toolCallId": "c",
                "input": {},
                "state": "output-available",
                "output": "Oslo",
            }
            run = await room.ai_sdk([ui("u", "user", "?"), {"id": "a", "role": "assistant", "parts": [part]}])
        else:
            call = {"id": "a", "role": "assistant", "toolCalls": [ag_call("c", "place")]}
            result = {"id": "t", "role": "tool", "toolCallId": "c", "content": "Oslo"}
            run = await room.ag_ui([plain("u", "user", "?"), call, result], "r1")
        assert (len(room.view.runs.ids()), run.output, run.request.trigger) == (1, "a", "continue"), attempt
    assert room.seen(run)[-1] == ("tool", "Oslo")
    await room.answer("there")
    assert [part.type for part in room.view.messages.value("a").parts] == ["tool", "text"]


# -- other answers and other questions ---------------------------------------------------------------------------------


async def test_another_answer_to_a_question_of_a_history_takes_the_place_of_the_one_brought(room):
    run = await room.ai_sdk([ui(*each) for each in CHAT[:3]], trigger="regenerate-message")
    assert (run.request.message_id, run.request.trigger) == ("u2", "regenerate")
    await room.answer("better")
    assert room.conversation() == [*said(CHAT[:3]), ("assistant", "better")]
    brought = [("u9", "user", "nine"), ("a9", "assistant", "ninth"), ("u10", "user", "ten")]
    await room.ai_sdk([ui(*each) for each in [*CHAT[:3], (run.output, "assistant", "better"), *brought]])
    again = await room.ai_sdk(
        [ui(*each) for each in [*CHAT[:3], (run.output, "assistant", "better"), brought[0]]],
        trigger="regenerate-message", messageId="a9",
    )  # fmt: skip
    assert again.request.message_id == "u9"
    assert ("assistant", "ninth") not in room.conversation()


async def test_a_question_of_a_history_can_be_edited(room):
    await room.ai_sdk([ui(*each) for each in [*CHAT, ("u3", "user", "three")]])
    await room.answer("third")
    run = await room.ai_sdk([ui(*CHAT[0]), ui(*CHAT[1]), ui("u2", "user", "2")], messageId="u2")
    assert room.seen(run) == room.conversation() == [*said(CHAT[:2]), ("user", "2")]
    assert isinstance(room.view.messages.value("a2").parts[0], TextPart), "what was there stays in the session"


async def test_an_edit_whose_answer_was_lost_is_what_the_next_question_comes_after(room, client):
    await client.send(CHAT[:1])
    await room.answer("first")
    edited = ("u1", "user", "1")
    if isinstance(client, UseChat):
        await client.send([edited], messageId="u1")
    await room.answer("lost on its way")
    run = await client.send([edited, ("u2", "user", "two")])
    told = [each for each in room.seen(run) if each != ("assistant", "lost on its way")]
    assert told == [("user", "1"), ("user", "two")]
    assert [each for each in room.conversation() if each != ("assistant", "lost on its way")] == told
    again = await client.send([edited, ("u2", "user", "two")])
    assert (again.id, len(room.view.messages)) == (run.id, len(room.view.messages))


async def test_a_question_lost_after_an_edit_comes_after_the_edit(room):
    """The client sent only its last message for a while."""
    await room.ai_sdk([ui("u", "user", "first")])
    await room.ai_sdk([ui("u", "user", "edited")], messageId="u")
    await room.ai_sdk([ui("w", "user", "third")])
    while (run := await room.answer("yes")) is not None:
        known = run.output
    chat = [
        ui("u", "user", "edited"),
        ui("v", "user", "lost"),
        ui("w", "user", "third"),
        ui(known, "assistant", "yes"),
    ]
    run = await room.ai_sdk([*chat, ui("x", "user", "fourth")])
    said = [content for role, content in room.seen(run) if role == "user"]
    assert said == ["edited", "lost", "third", "fourth"]


async def test_an_edit_back_to_the_first_text_is_one_more_version(room):
    for text in ("one", "1", "one"):
        await room.ai_sdk([ui("u1", "user", text)], messageId="u1")
        await room.answer(f"to {text}")
        assert room.conversation() == [("user", text), ("assistant", f"to {text}")]


async def test_a_history_before_an_edited_question_keeps_its_place(room, client):
    await client.send(CHAT[2:3])
    await room.answer("second")
    edited = [*CHAT[:2], ("u2", "user", "2")]
    run = await (client.send(edited, messageId="u2") if isinstance(client, UseChat) else room.ag_ui(
        [plain(*each) for each in edited], "again"
    ))  # fmt: skip
    assert room.seen(run) == room.conversation() == said(edited)


# -- OpenAI's clients --------------------------------------------------------------------------------------------------


def asked(*texts):
    """Messages of a user, with answers in between."""
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


async def test_a_question_that_is_asked_again_while_it_is_answered_is_the_same(room):
    first = await room.openai(asked("buy one"))
    assert (await room.openai(asked("buy one"))).id == first.id
    assert (await room.openai(asked("buy one"), again=True)).id == first.id
    await room.answer("bought")
    assert (await room.openai(asked("buy one"), again=True)).id == first.id, "its client got no answer"
    assert len(room.runs()) == 1


async def test_a_client_that_sends_only_what_is_new_may_say_the_same_twice(room):
    for number in range(3):
        run = await room.openai([{"role": "system", "content": "be brief"}, *asked("yes")])
        await room.answer("shall I?")
        assert room.conversation() == [
            ("system", "be brief"), *[("user", "yes"), ("assistant", "shall I?")] * (number + 1)
        ]  # fmt: skip
        assert room.seen(run)[-1] == ("user", "yes")


async def test_the_same_words_twice_are_two_questions_though_the_first_is_still_answered(room):
    first = await room.openai(asked("go on"))
    twice = [*asked("go on"), *asked("go on")]
    second = await room.openai(twice)
    assert (await room.openai(twice)).id == (await room.openai(twice, again=True)).id == second.id != first.id
    assert room.conversation() == [("user", "go on")] * 2
    assert len(room.runs()) == 2


async def test_a_question_whose_answer_failed_is_asked_anew_but_not_by_a_client_that_repeats_itself(room):
    chat = asked("one", "first", "two")
    await room.openai(chat)
    await room.answer("par", status="failed")
    failed = room.view.runs.all()[-1]
    assert (await room.openai(chat, again=True)).id == failed.id
    again = await room.openai(chat)
    assert again.id != failed.id
    await room.answer("second")
    assert room.conversation() == [*((m["role"], m["content"]) for m in chat), ("assistant", "second")]


async def test_a_question_after_a_failure_is_told_with_the_failed_one(room):
    await room.openai(asked("one"))
    await room.answer("par", status="failed")
    run = await room.openai([*asked("one"), *asked("two")])
    assert [text for role, text in room.seen(run) if role == "user"] == ["one", "two"]
    assert [message.text for message in room.view.messages.ordered()] == ["one", "par", "two"]


async def test_a_key_tells_requests_apart_whatever_they_say(room):
    chat = asked("one", "first", "two")
    first = await room.openai(chat, key="a")
    assert (await room.openai(chat, key="a")).id == first.id
    await room.answer("second")
    assert (await room.openai(chat, key="a")).id == first.id
    other = await room.openai(chat, key="b")
    assert (other.request.trigger, other.request.message_id) == ("regenerate", first.request.message_id)
    assert (await room.openai(chat, key="b")).id == other.id
    await room.answer("2")
    assert room.conversation() == [("user", "one"), ("assistant", "first"), ("user", "two"), ("assistant", "2")]
    for key in ("c", "d", "d"):
        await room.openai(asked("yes"), key=key)
    assert [text for _, text in room.conversation()].count("yes") == 2


async def test_a_prompt_that_changes_is_told_as_it_is_now(room):
    def prompted(time, *texts):
        return [{"role": "developer", "content": f"it is {time}"}, *asked(*texts)]

    await room.openai(prompted("one o'clock", "one"))
    await room.answer("first")
    chat = prompted("two o'clock", "one", "first", "two")
    run = await room.openai(chat)
    assert room.seen(run) == [("system", "it is two o'clock"), *((m["role"], m["content"]) for m in chat[1:])]
    assert (await room.openai(chat)).id == run.id
    bob = Principal("bob")
    await room.answer("second")
    run = await room.openai(prompted("three", "one", "first", "two", "second", "three"), by=bob)
    assert ("system", "it is two o'clock") in room.seen(run), "what somebody else has brought stays"


async def test_an_answer_is_known_by_any_of_its_choices_and_with_its_tools(room):
    run = await room.openai(asked("one"))
    await room.answer("first", tools=[("c", "weather", "-3")])
    await room.session.edit(lambda view: view.messages[run.output].open_text().append(" cold"))
    await room.session.edit(lambda view: view.messages[run.output].open_text(choice=1).append("or warm"))
    for answer in ("first cold", "or warm", " cold"):
        before = len(room.view.messages)
        await room.openai(asked("one", answer, f"after {answer}"))
        assert len(room.view.messages) == before + 1
        await room.answer("!")


def calling(*ids, content=None):
    calls = [{"id": id, "type": "function", "function": {"name": "place", "arguments": "{}"}} for id in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(id, text):
    return {"role": "tool", "tool_call_id": id, "content": text}


async def test_the_results_of_a_clients_tools_are_taken_and_the_run_goes_on(room):
    first = await room.openai(asked("where?"))
    await room.answer("let me see", tools=[("c", "place", None), ("d", "place", None)], reason="tool_calls")
    chat = [*asked("where?"), calling("c", "d", content="let me see"), result("c", "Oslo"), result("d", "Bergen")]
    run = await room.openai(chat)
    assert (run.request.trigger, run.output) == ("continue", first.output)
    assert [text for role, text in room.seen(run) if role == "tool"] == ["Oslo", "Bergen"]
    assert (await room.openai(chat)).id == run.id
    await room.answer("there")
    assert (await room.openai(chat)).id == run.id
    grown = [*chat, {"role": "assistant", "content": "there"}, *asked("and now?")]
    before = len(room.view.messages)
    run = await room.openai(grown)
    assert len(room.view.messages) == before + 1
    assert [role for role, _ in room.seen(run)] == ["user", "assistant", "tool", "tool", "assistant", "user"]


async def test_tool_results_continue_an_answer_that_the_session_lacks(room):
    chat = [*asked("where?"), calling("c"), result("c", "Oslo")]
    run = await room.openai(chat)
    assert run.request.trigger == "continue"
    assert [role for role, _ in room.seen(run)] == ["user", "assistant", "tool"]
    assert (await room.openai(chat)).id == run.id
    with pytest.raises(NotFound):
        await room.openai([result("x", "?")])


async def test_a_tool_result_alone_is_enough_but_not_for_an_agents_own_call(room):
    run = await room.openai(asked("where?"))
    await room.answer(tools=[("c", "place", None), ("d", "mine", "mine")])
    await room.openai([result("c", "Oslo")])
    await room.openai([*asked("where?"), calling("c", "d"), result("c", "Bergen"), result("d", "theirs")])
    assert [part.output for part in room.view.messages.value(run.output).parts] == ["Oslo", "mine"]


async def test_a_second_tab_with_the_output_of_the_same_tool_follows_the_run_that_goes_on(room):
    """Both tabs show the call, both run the tool, both send what it returned in the same moment."""
    chat = UseChat(room)
    asked = await chat.send([("u", "user", "where am I?")])
    await room.answer("Let me see.", tools=[("c", "where", None)])
    output = {
        "type": "tool-where",
        "toolCallId": "c",
        "state": "output-available",
        "input": {"n": 1},
        "output": "Oslo",
    }
    message = {"id": room.view.runs.find(asked.id).output, "role": "assistant", "parts": [output]}
    first, second = [await room.ai_sdk([ui("u", "user", "where am I?"), message]) for _ in range(2)]
    assert first.id != asked.id
    assert second.id == first.id
    assert len(room.view.runs.all()) == 2

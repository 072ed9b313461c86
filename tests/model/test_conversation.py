"""Threads through a tree of messages, and conversations in the shapes of providers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import WrongOffset
from crdt_sessions.model import (
    Author,
    Message,
    MessageHead,
    Run,
    RunRequest,
    SessionDoc,
    SessionView,
    TextPart,
    Threads,
    ToolPart,
    ValuePart,
    arranged,
    authors,
    conversation,
    extent_of,
    json_text,
    merge,
    shaped,
    system_text,
    with_ended_calls,
    writes_as,
)
from crdt_sessions.model.decisions import Approval


def message(id, text="", role="user", parts=None, **head):
    said = [TextPart(type="text", text=text)] if text else []
    return Message(id=id, role=role, author=Author(id="x"), created_at=1, parts=(parts or []) + said, **head)


def ids(messages):
    return [each.id for each in messages]


# -- threads -----------------------------------------------------------------------------------------------------------


def test_without_parents_a_conversation_is_a_line():
    threads = Threads([message("a"), message("b"), message("c")])
    assert ids(threads.thread("c")) == ["a", "b", "c"]
    assert threads.thread("unknown") == []


def test_versions_of_a_message_are_branches():
    threads = Threads(
        [
            message("q1"),
            message("a1", role="assistant", parent="q1"),
            message("q2"),
            message("a2", role="assistant", parent="q2"),
            message("q2b", replaces="q2"),
            message("a2b", role="assistant", parent="q2b"),
            message("q3"),
            message("q1b", replaces="q1"),
        ]
    )
    assert ids(threads.thread("a2")) == ["q1", "a1", "q2", "a2"]
    assert ids(threads.thread("a2b")) == ["q1", "a1", "q2b", "a2b"]
    assert ids(threads.thread("q3")) == ["q1", "a1", "q2b", "a2b", "q3"], "a new question follows the latest branch"
    assert ids(threads.thread("q1b")) == ["q1b"]
    assert ids(threads.siblings("q2")) == ["q2", "q2b"]
    assert ids(threads.siblings("q1b")) == ["q1", "q1b"]
    assert threads.siblings("unknown") == []


def test_alternatives_of_an_answer_are_siblings():
    threads = Threads([message("q"), *(message(f"a{n}", role="assistant", parent="q") for n in range(3))])
    assert ids(threads.siblings("a1")) == ["a0", "a1", "a2"]
    assert ids(threads.thread("a1")) == ["q", "a1"]


@given(st.lists(st.tuples(st.integers(0, 5) | st.none(), st.integers(0, 5) | st.none()), max_size=6))
def test_a_circle_of_parents_ends(links):
    def name(number):
        return None if number is None else f"m{number}"

    messages = [
        message(f"m{n}", parent=name(parent), replaces=name(replaces)) for n, (parent, replaces) in enumerate(links)
    ]
    threads = Threads(messages)
    for each in messages:
        path = ids(threads.thread(each.id))
        assert path[-1] == each.id
        assert len(set(path)) == len(path)
        threads.siblings(each.id)


# -- the conversation --------------------------------------------------------------------------------------------------


def answer(id, question, **head):
    return message(id, role="assistant", parent=question, reply_to=question, **head)


def regenerating(id, question, status="completed", output=None):
    request = RunRequest(message_id=question, trigger="regenerate", created_at=1)
    return Run(id=id, request=request, status=status, output=output)


def test_people_who_talk_at_once_all_are_in_the_conversation():
    everything = [message("q1"), message("q2"), answer("a2", "q2"), answer("a1", "q1"), message("q3")]
    assert ids(conversation(everything, [])) == ["q1", "q2", "a2", "a1", "q3"]
    assert ids(conversation(everything, [], "q2")) == ["q1", "q2"]


def test_another_version_takes_the_place_of_what_came_after_the_first():
    everything = [message("q1"), answer("a1", "q1"), message("q2"), message("q1b", replaces="q1"), answer("b", "q1b")]
    assert ids(conversation(everything, [])) == ["q1b", "b"]
    assert ids(conversation(everything, [], "q2")) == ["q1", "a1", "q2"], "as it was before"
    third = [*everything, message("q1c", replaces="q1b")]
    assert ids(conversation(third, [])) == ["q1c"]
    assert ids(conversation(third, [], "b")) == ["q1b", "b"]


def test_another_answer_takes_the_place_of_the_first_as_soon_as_it_is_asked_for():
    everything = [message("q"), answer("a", "q"), message("q2"), answer("a2", "q2")]
    for status in ("queued", "running"):
        assert ids(conversation(everything, [regenerating("r", "q", status, "b")])) == ["q"]
    assert ids(conversation(everything, [regenerating("r", "q", "cancelled")])) == ids(everything), "it never began"
    again = [*everything, answer("b", "q")]
    runs = [regenerating("r", "q", output="b")]
    assert ids(conversation(again, runs)) == ["q", "b"]
    assert ids(conversation(again, runs, "a2")) == ["q", "a", "q2", "a2"]
    assert ids(conversation(again, [])) == [*ids(everything), "b"], "two agents that were asked the same"


def test_history_that_was_brought_later_stands_in_front_of_what_it_precedes():
    everything = [
        message("q2"), answer("a2", "q2"),
        message("q1", precedes="q2"), answer("a1", "q1", precedes="q2"), message("q3"), message("q0", precedes="q1"),
    ]  # fmt: skip
    read = ["q0", "q1", "a1", "q2", "a2", "q3"]
    assert ids(conversation(everything, [])) == ids(arranged(everything)) == read
    assert ids(conversation(everything, [], "q2")) == read[:4]
    assert ids(Threads(everything).thread("q3")) == read
    assert ids(conversation([*everything, message("q2b", replaces="q2")], [])) == ["q0", "q1", "a1", "q2b"]
    careless = [message("a", precedes="b"), message("b", precedes="a"), message("c", precedes="c"), message("d")]
    assert sorted(ids(arranged(careless))) == ["a", "b", "c", "d"]


def test_a_long_history_is_arranged_without_recursion():
    chain = [message(f"m{n}", precedes=f"m{n - 1}" if n else None) for n in range(5000)]
    assert ids(arranged(chain)) == ids(reversed(chain))


@given(
    st.lists(st.tuples(st.integers(0, 5) | st.none(), st.integers(0, 5) | st.none(), st.booleans()), max_size=6),
    st.sets(st.integers(0, 5)),
)
def test_a_conversation_is_in_order_and_leads_to_its_last_message(links, regenerated):
    def name(number):
        return None if number is None else f"m{number}"

    everything = [
        message(
            f"m{n}", role="assistant" if answers else "user", parent=name(parent), replaces=name(replaces),
            reply_to=name(parent),
        )
        for n, (parent, replaces, answers) in enumerate(links)
    ]  # fmt: skip
    runs = [regenerating(f"r{n}", name(n), output="m5") for n in regenerated]
    for leaf in (None, *ids(everything)):
        found = ids(conversation(everything, runs, leaf))
        assert found == [id for id in ids(everything) if id in found]
        assert leaf is None or found[-1] == leaf


# -- shapes ------------------------------------------------------------------------------------------------------------


def tool(id="c", **more):
    return ToolPart(type="tool", tool_call_id=id, tool_name="weather", **more)


ANSWER = message(
    "a",
    "Cold.",
    "assistant",
    [
        TextPart(type="reasoning", text="hm"),
        TextPart(type="text", text="Let me see."),
        tool("c1", input_text='{"city":"Oslo"}', input={"city": "Oslo"}, state="output-available", output={"t": -3}),
        tool("c2", input={"city": "Rome"}, state="output-error", error_text="unreachable"),
        tool("c3", input={"city": "Bern"}, state="input-available"),
    ],
)


def test_openai_gets_calls_and_results_and_no_dangling_call():
    assert shaped([message("q", "Weather?"), ANSWER], "openai") == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
                {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"t":-3}'},
        {"role": "tool", "tool_call_id": "c2", "content": "error: unreachable"},
        {"role": "assistant", "content": "Cold."},
    ]


def test_anthropic_gets_blocks_and_no_system_message():
    messages = [message("s", "Be brief.", "system"), message("q", "Weather?"), ANSWER]
    spelled = shaped(messages, "anthropic")
    assert system_text(messages) == "Be brief."
    assert [each["role"] for each in spelled] == ["user", "assistant", "user", "assistant"]
    assert spelled[1]["content"] == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "c2", "name": "weather", "input": {"city": "Rome"}},
    ]
    assert spelled[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c1", "content": '{"t":-3}'},
        {"type": "tool_result", "tool_use_id": "c2", "content": "error: unreachable", "is_error": True},
    ]


def test_the_ai_sdk_gets_every_part_with_its_state():
    (spelled,) = shaped([ANSWER], "ai-sdk")
    kinds = ["step-start", "reasoning", "text", *["tool-weather"] * 3, "step-start", "text"]
    assert [part["type"] for part in spelled["parts"]] == kinds
    assert spelled["parts"][3] == {
        "type": "tool-weather", "toolCallId": "c1", "state": "output-available",
        "input": {"city": "Oslo"}, "output": {"t": -3},
    }  # fmt: skip


def test_numbers_are_written_as_javascript_writes_them():
    assert json_text({"a": [3.0, 0.5, -0.0, 1e300], "b": True}) == '{"a":[3,0.5,0,1e+300],"b":true}'


@pytest.mark.parametrize("text", ['{"city": "Os', "*** Begin Patch", "[1]"])
def test_an_input_that_is_not_an_object_is_still_valid_json(text):
    (said, _) = shaped([message("a", "", "assistant", [tool(input_text=text, state="output-error")])], "openai")
    assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == {"input": text}


def test_a_denied_call_says_so():
    approval = Approval(approved=False, by="ann", reason="too dear", at=1)
    denied = tool(input={}, state="approval-responded", approval=approval)
    (_, result) = shaped([message("a", "", "assistant", [denied])], "openai")
    assert result["content"] == "the user denied the call: too dear"


def test_split_buffers_are_one_part_and_files_and_speech_are_carried():
    parts = [
        TextPart(type="text", text="long "),
        TextPart(type="text", text="text", continues=True),
        ValuePart(type="file", value={"url": "https://x/y.png", "mediaType": "image/png"}),
        ValuePart(type="audio", transcript=" spoken"),
    ]
    (ui,) = shaped([message("q", parts=parts)], "ai-sdk")
    assert [part.get("text") or part["url"] for part in ui["parts"]] == ["long text", "https://x/y.png", " spoken"]
    (chat,) = shaped([message("q", parts=parts)], "openai")
    assert chat["content"] == [
        {"type": "text", "text": "long text spoken"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
    ]
    (block,) = shaped([message("q", parts=parts)], "anthropic")
    assert block["content"][1] == {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}


def test_an_empty_message_is_left_out():
    assert shaped([message("a", "", "assistant"), message("q", "?")], "openai") == [{"role": "user", "content": "?"}]


# -- writing at an offset ------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(st.sampled_from("ab 😀é"), max_size=5), st.integers(0, 3)), max_size=8))
def test_appending_at_an_offset_is_idempotent(pieces):
    """However often each request is repeated, also late, the text is what was meant."""
    document = SessionDoc(1)
    view = SessionView(document)
    head = MessageHead(id="m", role="assistant", author=Author(id="x"), created_at=1)
    added = document.edit(lambda _: view.messages.add(head))[0]
    text, sent = "", []
    for piece, repeats in pieces:
        sent.append((len(text), piece))
        text += piece
        for offset, again in sent[-1:] + sent[:repeats]:
            document.edit(lambda _, offset=offset, again=again: added.append_at(offset, again))
    assert view.messages.value("m").text == text
    with pytest.raises(WrongOffset):
        added.append_at(len(text) + 1, "x")
    document.close()


# -- whose structs -------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from([5, 6, 7]), st.booleans()), max_size=12), st.sets(st.sampled_from([5, 6, 7]))
)
def test_the_authors_of_an_update_are_those_whose_clocks_it_moves(edits, fenced):
    """Checked against the library: apply the update and see which clocks moved."""
    writers = {client: SessionDoc(client) for client in (5, 6, 7)}
    known, pending = SessionDoc(1), []
    for number, (client, deliver) in enumerate(edits):
        change = {f"k{client}": number}
        _, delta = writers[client].edit(lambda document, change=change: document.roots.state.update(change))
        pending.append(delta)
        if deliver:
            known.apply(delta)
    update = merge(pending)
    before = extent_of(known.doc).clocks
    found, held = set(authors(known, update, 10)), writes_as(known, update, fenced)
    known.apply(update)
    after = extent_of(known.doc).clocks
    moved = {client for client in after if after[client] > before.get(client, 0)}
    assert moved == found
    assert (held is not None) == bool(found & fenced)
    for document in (known, *writers.values()):
        document.close()


def test_what_steered_an_answer_is_told_where_it_was_heard():
    said = {"messageId": "s", "parts": [{"type": "text", "text": "faster"}]}
    steered = message(
        "a", "Done.", "assistant", [TextPart(type="text", text="Slowly. "), ValuePart(type="steering", value=said)]
    )
    history = [message("q", "go"), steered, message("s", "faster", steers="r")]
    assert [(each["role"], each["content"]) for each in shaped(history, "openai")] == [
        ("user", "go"), ("assistant", "Slowly. "), ("user", "faster"), ("assistant", "Done."),
    ]  # fmt: skip
    assert [each["role"] for each in shaped(history, "anthropic")] == ["user", "assistant", "user", "assistant"]
    (_, spelled) = shaped(history, "ai-sdk")
    assert [part["type"] for part in spelled["parts"]] == [
        "step-start", "text", "steering-message", "step-start", "text",
    ]  # fmt: skip
    assert spelled["parts"][2] == {
        "type": "steering-message", "id": "s", "parts": [{"type": "text", "text": "faster", "state": "done"}],
    }  # fmt: skip


@pytest.mark.parametrize("value", [None, 7, {}, {"messageId": 3}, {"messageId": "s", "parts": [{"type": "x"}]}])
def test_a_careless_steering_part_is_left_out(value):
    odd = message("a", "Done.", "assistant", [ValuePart(type="steering", value=value)])
    for shape in ("openai", "anthropic", "ai-sdk"):
        (spelled,) = shaped([odd], shape)
        assert "steering" not in str(spelled)


@pytest.mark.parametrize(
    ("status", "call", "after", "state"),
    [
        ("cancelled", {}, False, "output-error"),
        ("failed", {"state": "input-streaming"}, False, "output-error"),
        ("interrupted", {"state": "approval-requested"}, False, "output-error"),
        ("cancelled", {"state": "approval-responded", "approval": Approval(approved=False, by="a", at=1)}, True, "output-denied"),
        ("completed", {}, False, "input-available"),
        ("completed", {}, True, "output-error"),
        ("running", {}, True, "input-available"),
        ("suspended", {"state": "approval-requested"}, True, "approval-requested"),
        ("failed", {"state": "output-available", "output": 1}, True, "output-available"),
        (None, {}, True, "output-error"),
        (None, {}, False, "input-available"),
    ],
)  # fmt: skip
def test_calls_of_runs_that_have_ended_are_told_as_ended_whatever_an_old_document_says(status, call, after, state):
    part = ToolPart(type="tool", tool_call_id="c", tool_name="look", **{"state": "input-available", **call})
    answer = message("a", role="assistant", parts=[part], run_id="r")
    runs = [Run(id="r", status=status)] if status is not None else []
    thread = [message("q", "?"), answer, *([message("q2", "and?")] if after else [])]
    told = with_ended_calls(thread, runs)[1].parts[0]
    assert told.state == state
    assert (told.error_text is not None) == (state == "output-error")
    for shape in ("openai", "anthropic"):
        spelled = json.dumps(shaped(with_ended_calls(thread, runs), shape))
        assert spelled.count('"c"') in (0, 2), "a call with its result, or neither"

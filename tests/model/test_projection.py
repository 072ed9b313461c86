"""A reader who applies the events of a message, taken at any moments, has the message."""

from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.model import (
    SEGMENT_BYTES,
    Approval,
    ApprovalRequest,
    Author,
    Decision,
    MessageBegan,
    MessageCursor,
    MessageHead,
    MessagePlaced,
    MessageReplaced,
    PartBegan,
    PartChanged,
    SessionDoc,
    SessionView,
    TextAdded,
    TextPart,
    ToolPart,
    ValuePart,
    projection,
)

HEAD = MessageHead(id="m", role="assistant", author=Author(id="a"), created_at=1)


class Reader:
    """Applies events."""

    def __init__(self):
        self.value = None

    def take(self, events):
        for event in events:
            match event:
                case MessageBegan(_, head, run):
                    assert self.value is None
                    self.value = {**head.json_value(), "parts": []} | ({"runId": run} if run else {})
                case MessagePlaced(_, seq, run):
                    self.value |= ({"seq": seq} if seq else {}) | ({"runId": run} if run else {})
                case PartBegan(_, part, value):
                    assert part == len(self.value["parts"])
                    self.value["parts"].append(value.json_value())
                case PartChanged(_, part, value):
                    self.value["parts"][part] = value.json_value()
                case TextAdded(_, part, offset, text):
                    known = self.value["parts"][part]
                    key = next(key for key in ("text", "inputText", "transcript") if key in known)
                    assert len(known[key]) == offset
                    known[key] += text
                case MessageReplaced(_, value):
                    self.value = value.json_value()


ACTIONS = st.lists(
    st.sampled_from(
        ["text", "reasoning", "tool", "audio", "value", "write", "long", "close", "break", "resume", "ask", "approve",
         "decide", "output", "fail", "place", "run", "read", "restart", "cut"]
    ),
    max_size=30,
)  # fmt: skip


def act(view, action):
    message = view.messages["m"]
    stream = message.resume_text()
    tools = [tool for tool in message.tools() if not str(tool.state).startswith("output")]  # what has ended stays so
    match action:
        case "text" | "reasoning":
            message.open_text(action)
        case "tool":
            message.open_tool(f"c{len(message.tools())}", "look")
        case "audio":
            message.open_audio({"url": "x"})
        case "value":
            message.add_part(ValuePart(type="file", value={"url": "u"}))
        case "write" | "long" if stream is not None:
            stream.append("é😀x" * (1 if action == "write" else SEGMENT_BYTES // 3))
        case "write" if tools:
            tools[-1].append('{"a":')
        case "close":
            message.close_parts()
        case "break":
            message.close_parts("interrupted")
        case "ask" if tools:
            tools[-1].ask(ApprovalRequest(requested_at=1))
        case "decide" if tools:
            tools[-1].decide("ann", Decision(approved=len(message.parts) % 2 == 0, at=1))
        case "approve" if tools:
            tools[-1].settle(Approval(approved=True, by="ann", at=2), [])
        case "output" if tools:
            tools[-1].output({"t": 1})
        case "fail" if tools:
            tools[-1].fail("no")
        case "place":
            message.seq = 7
        case "run":
            message.run_id = "r2"
        case "restart":
            message.supersede()
        case "cut" if len(message.parts):
            del message.parts[0]


@given(ACTIONS)
def test_whenever_it_is_read_the_reader_has_the_message(actions):
    view = SessionView(SessionDoc(5))
    view.document.edit(lambda _: view.messages.add(HEAD, run_id="r1"))
    cursor, reader = MessageCursor(), Reader()
    for action in actions:
        if action == "read":
            reader.take(cursor.advance(view.messages["m"]))
        else:
            view.document.edit(lambda _, action=action: act(view, action))
    reader.take(cursor.advance(view.messages["m"]))
    assert cursor.advance(view.messages["m"]) == []
    if "cut" not in actions:  # deleting what was told, and adding as much, is not noticed; see the docstring
        assert reader.value == view.messages.value("m").json_value()
    view.document.close()


def test_a_buffer_that_goes_on_is_told_so():
    view = SessionView(SessionDoc(5))
    view.document.edit(lambda _: view.messages.add(HEAD))
    view.document.edit(lambda _: view.messages["m"].open_text().append("x" * (SEGMENT_BYTES + 10)))
    view.document.edit(lambda _: view.messages["m"].close_parts())
    events = MessageCursor().advance(view.messages["m"])
    changed = [(event.part, event.continued) for event in events if isinstance(event, PartChanged)]
    assert changed == [(0, True), (1, False)]
    assert [event.value.continues for event in events if isinstance(event, PartBegan)] == [None, True]


def test_the_cost_of_an_event_does_not_grow_with_the_message(monkeypatch):
    view = SessionView(SessionDoc(5))
    view.document.edit(lambda _: view.messages.add(HEAD))
    stream = view.document.edit(lambda _: view.messages["m"].open_text())[0]
    view.document.edit(lambda _: stream.append("x" * SEGMENT_BYTES * 50))
    cursor = MessageCursor()
    cursor.advance(view.messages["m"])
    looked = []
    state = projection._state
    monkeypatch.setattr(projection, "_state", lambda part: looked.append(part) or state(part))
    view.document.edit(lambda _: stream.append("more"))
    (*_, event) = cursor.advance(view.messages["m"])
    assert (event.text[-4:], len(looked) <= 3) == ("more", True)


def test_one_bad_entry_spoils_nothing():
    view = SessionView(SessionDoc(5))
    view.document.edit(lambda _: view.messages.add(HEAD, [TextPart(type="text", text="a")]))
    view.document.edit(lambda _: view.messages["m"].parts.extend([1, "x", {"type": ["text"]}, {"type": "tool"}]))
    view.document.edit(lambda _: view.messages["m"].open_tool("c", "look"))
    events = MessageCursor().advance(view.messages["m"])
    assert [event.part for event in events if isinstance(event, PartBegan)] == [0, 1]
    assert isinstance(events[-1], PartBegan)
    assert isinstance(events[-1].value, ToolPart)

"""An agent that begins its answer anew while a client of a gateway streams it: the client gets all of the new text."""

import pytest

from crdt_sessions.model import Author, MessageCursor, MessageHead, Run, SessionDoc, SessionView
from crdt_sessions_server.gateways.ag_ui.messages import MessageEncoder
from crdt_sessions_server.gateways.ai_sdk.chunks import Encoder as AiSdk
from crdt_sessions_server.gateways.completions import Encoder as Completions

RUN = Run(id="r", status="running", output="m")


@pytest.fixture
def taken():
    """Two batches of events: a tool call and half a sentence, and the new beginning with its first words."""
    view = SessionView(SessionDoc(5))
    head = MessageHead(id="m", role="assistant", author=Author(id="a", kind="agent"), created_at=1)
    cursor, batches = MessageCursor(), []

    def write(change):
        view.document.edit(lambda _: change(view.messages.add(head, run_id="r")))

    write(lambda message: message.open_tool("c", "look").close({}))
    write(lambda message: message.open_text().append("Once upon"))
    batches.append(cursor.advance(view.messages["m"]))
    write(lambda message: message.supersede())
    write(lambda message: message.open_text().append("Well"))
    batches.append(cursor.advance(view.messages["m"]))
    write(lambda message: message.resume_text().append(", then."))
    batches.append(cursor.advance(view.messages["m"]))
    yield view, batches
    view.document.close()


def test_ai_sdk(taken):
    encoder = AiSdk(RUN)
    chunks = [chunk for events in taken[1] for chunk in encoder.encode(events)]
    said = [(chunk["type"], chunk.get("delta")) for chunk in chunks if chunk["type"].startswith("text-")]
    assert said == [
        ("text-start", None), ("text-delta", "Once upon"),
        ("text-start", None), ("text-delta", "Well"), ("text-delta", ", then."),
    ]  # fmt: skip
    assert [chunk["type"] for chunk in chunks].count("reset-step") == 1


def test_openai(taken):
    view, batches = taken
    encoder = Completions(RUN, "writer")
    chunks = [chunk for events in batches for chunk in encoder.encode(view, events)]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["Once upon", "Well", ", then."]


def test_ag_ui(taken):
    first, *rest = taken[1]
    encoder = MessageEncoder(first[0])
    told = [event for each in first for event in encoder.encode(each)]
    for batch in rest:
        for each in batch:
            if type(each).__name__ == "MessageReplaced":
                told += encoder.close()
            else:
                told += encoder.encode(each)
    texts = [event for event in told if event["type"].startswith("TEXT_MESSAGE")]
    assert [event.get("delta") for event in texts if event["type"].endswith("CONTENT")] == [
        "Once upon", "Well", ", then.",
    ]  # fmt: skip
    started = [event["messageId"] for event in texts if event["type"].endswith("START")]
    assert len(set(started)) == len(started) == 2

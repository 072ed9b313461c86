"""A message that begins anew: what stood there stays in the document, and nobody is shown it."""

import pytest

from crdt_sessions.model import (
    ApprovalRequest,
    Author,
    MessageCursor,
    MessageHead,
    MessageReplaced,
    Run,
    RunResult,
    SessionDoc,
    SessionView,
    TextPart,
    shaped,
)

AUTHOR = Author(id="a", kind="agent")
HEAD = MessageHead(id="m", role="assistant", author=AUTHOR, created_at=1)


@pytest.fixture
def view():
    view = SessionView(SessionDoc(5))
    view.document.edit(lambda _: view.messages.add(HEAD, run_id="r"))
    yield view
    view.document.close()


def begin(view, text, *, close=False):
    def change(_):
        part = view.messages["m"].open_text()
        part.append(text)
        if close:
            part.close()

    view.document.edit(change)


def restart(view):
    view.document.edit(lambda _: view.messages["m"].supersede())


def test_readers_have_the_new_text_alone_and_the_document_has_both(view):
    begin(view, "Once upon", close=True)
    begin(view, " a ti")
    restart(view)
    begin(view, "Well.")
    message = view.messages.value("m")
    assert [part.text for part in message.parts] == ["Well."]
    assert (message.text, shaped([message], "openai")) == ("Well.", [{"role": "assistant", "content": "Well."}])
    assert "upon" not in shaped([message], "ai-sdk")[0]["parts"][-1]["text"]
    raw = [(str(part["text"]), part["state"]) for part in view.messages["m"].parts]
    assert raw == [("Once upon", "done"), (" a ti", "interrupted"), ("Well.", "streaming")]
    assert len(view.messages["m"].part_clients()) == 1


def test_superseded_parts_are_not_continued(view):
    begin(view, "Once upon")
    view.document.edit(lambda _: view.messages["m"].open_tool("c", "look"))
    restart(view)
    message = view.messages["m"]
    assert (message.resume_text(), message.tool("c")) == (None, None)
    assert view.document.edit(lambda _: message.append_at(0, "Well."))[0] == 5
    view.document.edit(lambda _: message.open_tool("c", "look").close({"at": "sea"}))
    assert message.tool("c").state == "input-available"


def test_a_call_that_people_were_asked_about_stays(view):
    begin(view, "I shall book.", close=True)
    view.document.edit(lambda _: view.messages["m"].open_tool("c", "book").ask(ApprovalRequest(requested_at=1)))
    restart(view)
    begin(view, "Anew.")
    message = view.messages.value("m")
    assert [part.type for part in message.parts] == ["tool", "text"]
    assert view.messages["m"].tool("c").waits


def test_beginning_anew_where_nothing_stands_changes_nothing(view):
    restart(view)
    assert view.messages["m"].value_of("superseded") is None
    begin(view, "Well.")
    restart(view)
    restart(view)
    assert view.messages["m"].superseded == 1


@pytest.mark.parametrize("odd", ["x", -3, 1.5, True, 10**9])
def test_what_somebody_else_wrote_there_harms_nobody(view, odd):
    begin(view, "Well.")
    view.document.edit(lambda _: view.document.roots.messages["m"].update({"superseded": odd}))
    assert view.messages["m"].superseded >= 0
    assert view.messages.value("m").text in ("Well.", "")
    MessageCursor().advance(view.messages["m"])


def test_a_streaming_reader_is_told_that_the_message_begins_anew(view):
    cursor = MessageCursor()
    begin(view, "Once upon")
    cursor.advance(view.messages["m"])
    restart(view)
    begin(view, "Well.")
    first, *rest = cursor.advance(view.messages["m"])
    assert isinstance(first, MessageReplaced)
    assert first.value.parts == []
    assert [type(event).__name__ for event in rest] == ["PartBegan", "TextAdded"]
    assert (rest[0].part, rest[1].text) == (0, "Well.")
    assert cursor.advance(view.messages["m"]) == []


@pytest.mark.parametrize(
    ("epoch", "result", "broke"),
    [
        (1, None, False),
        (2, None, True),
        (2, "released", True),
        (2, "suspended", False),
        (2, "handoff", False),
        (3, "suspended", True),
    ],
)
def test_an_answer_broke_off_unless_its_writer_left_it_as_it_meant_to(view, epoch, result, broke):
    run = Run(id="r", output="m", epoch=epoch)
    assert not view.broke_off(run), "nothing stands there"
    begin(view, "Once upon")
    if result is not None:
        view.document.edit(lambda _: view.runs.report("r", RunResult(status=result, epoch=1, at=1)))
    assert view.broke_off(run) is broke


@pytest.mark.parametrize(
    ("status", "broke"), [("completed", False), ("failed", True), ("cancelled", True), ("interrupted", True)]
)
def test_what_another_run_left_broke_off_unless_that_completed(view, status, broke):
    begin(view, "Once upon")
    outcome = {"reason": "?", "endedAt": 1}
    entry = {"output": "m", "status": status, "outcome": outcome}
    view.document.edit(lambda _: [view.runs.put_back("r", key, value) for key, value in entry.items()])
    assert view.broke_off(Run(id="again", output="m", epoch=1)) is broke


def test_a_message_of_today_reads_as_before(view):
    view.document.edit(lambda _: view.messages.add(HEAD.replace(id="old"), [TextPart(type="text", text="Well.")]))
    assert view.messages.value("old").text == "Well."

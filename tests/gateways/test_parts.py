"""Continued texts and alternatives, as the encoders of protocols without them get to see them."""

from crdt_sessions.model import MessagePlaced, PartBegan, PartChanged, TextAdded, TextPart, ToolPart
from crdt_sessions_server.gateways.parts import JoinedParts


def text(kind="text", **more):
    return TextPart(type=kind, text="", state="streaming", **more)


def seen(*events):
    parts = JoinedParts()
    return [taken for event in events if (taken := parts.take(event)) is not None]


def test_a_continued_text_is_one_part_and_ends_once():
    done = text().replace(state="done")
    first, second = PartBegan("m", 0, text()), PartBegan("m", 1, text(continues=True))
    assert seen(
        first, TextAdded("m", 0, 0, "a"), PartChanged("m", 0, done, continued=True),
        second, TextAdded("m", 1, 0, "b"), PartChanged("m", 1, done),
    ) == [first, TextAdded("m", 0, 0, "a"), TextAdded("m", 0, 0, "b"), PartChanged("m", 0, done)]  # fmt: skip


def test_a_text_continues_the_last_one_of_its_own_kind():
    thought, spoken = PartBegan("m", 0, text("reasoning")), PartBegan("m", 1, text())
    more = [PartBegan("m", 2, text("reasoning", continues=True)), TextAdded("m", 2, 0, "hm")]
    assert seen(thought, spoken, *more) == [thought, spoken, TextAdded("m", 0, 0, "hm")]


def test_a_continuation_of_nothing_is_a_part_of_its_own():
    alone = PartBegan("m", 0, text(continues=True))
    assert seen(alone, TextAdded("m", 0, 0, "b")) == [alone, TextAdded("m", 0, 0, "b")]


def test_an_alternative_is_left_out_with_all_its_text():
    first, other = PartBegan("m", 0, text()), PartBegan("m", 1, text(choice=1))
    assert seen(
        first, other, TextAdded("m", 1, 0, "b"), PartChanged("m", 1, text(choice=1).replace(state="done"))
    ) == [first]
    longer = PartBegan("m", 2, text(choice=1, continues=True))
    assert seen(first, other, longer, TextAdded("m", 2, 0, "b")) == [first]


def test_all_other_events_pass_unchanged():
    tool = ToolPart(type="tool", tool_call_id="c", tool_name="t", state="input-streaming")
    events = [PartBegan("m", 0, tool), PartChanged("m", 0, tool), MessagePlaced("m", 1, None)]
    assert seen(*events) == events

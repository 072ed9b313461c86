"""y-sweet's counts: none comes back before what it counts is here, and one that came back stays."""

from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.wire import Ack, AwarenessFrame, PermissionDenied, SyncStep1, SyncStep2, Update, encode
from crdt_sessions.wire.y_sweet import YSweet

CHANGE = Update(b"\x00\x00")
ANSWER = SyncStep2(b"\x00\x00")


def read(codec, *frames):
    return [read for frame in frames for read in codec.read(encode(frame))]


def test_a_count_waits_for_what_was_written_offline():
    codec = YSweet(1000)
    assert read(codec, SyncStep1(b"\x00"), Ack(b"\x05"), AwarenessFrame(b"\x00")) == [
        SyncStep1(b"\x00"),
        AwarenessFrame(b"\x00"),
    ]
    assert read(codec, CHANGE, Ack(b"\x06"), ANSWER) == [CHANGE, ANSWER, Ack(b"\x06")], "the last one is all of them"
    assert read(codec, CHANGE, Ack(b"\x07"), ANSWER) == [CHANGE, Ack(b"\x07"), ANSWER]


def test_an_answer_without_a_count_brings_none():
    codec = YSweet(1000)
    assert codec.read(encode(ANSWER) + encode(Ack(b"\x01"))) == [ANSWER, Ack(b"\x01")]


def test_what_was_refused_is_never_counted_and_the_client_is_not_left_alone():
    codec = YSweet(1000)
    assert codec.write([Ack(b"\x01")]) == [encode(Ack(b"\x01"))]
    denied = PermissionDenied("no")
    assert codec.write([denied, Ack(b"\x02")]) == [encode(denied), encode(Ack(b"\x01"))]
    assert codec.write([Ack(b"\x03"), CHANGE]) == [encode(CHANGE), encode(Ack(b"\x01"))]
    silent = YSweet(1000)
    assert silent.write([denied, Ack(b"\x01")]) == [encode(denied)], "there is none that says nothing new"


@given(st.lists(st.sampled_from([CHANGE, ANSWER, SyncStep1(b"\x00"), "count"]), max_size=30))
def test_counts_come_in_order_behind_all_they_count(said):
    codec, number, got = YSweet(1000), 0, []
    for frame in said:
        if frame == "count":
            number += 1
            frame = Ack(bytes([number]))
        got += codec.read(encode(frame))
    counts = [frame.payload[0] for frame in got if isinstance(frame, Ack)]
    assert counts == sorted(set(counts))
    if ANSWER in said:
        assert counts[-1:] == [number] * bool(number), "the last one always comes"
        first = next((at for at, frame in enumerate(got) if isinstance(frame, Ack)), len(got))
        assert ANSWER in got[:first] or not counts
    else:
        assert not counts

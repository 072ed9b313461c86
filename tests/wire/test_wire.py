"""The codec: what real Yjs writes is read and written the same; what is wrong raises one kind of error."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdt_sessions import errors
from crdt_sessions.errors import BadText, CrdtSessionsError, TruncatedFrame, UnknownFrame, VarintTooLong, WireError
from crdt_sessions.wire import (
    KEEPALIVE,
    Ack,
    AwarenessEntry,
    AwarenessFrame,
    Hold,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    closing_for,
    decode,
    decode_awareness,
    encode,
    encode_awareness,
)
from crdt_sessions.wire.awareness import MAX_DEPTH
from crdt_sessions.wire.closing import CLOSE_CODES, MAX_REASON_BYTES
from crdt_sessions.wire.varint import MAX_VARUINT, Reader, buffer, string, varuint
from tests.processes import ROOT


def vectors(name):
    return json.loads((ROOT / f"schemas/vectors/{name}.json").read_text("utf-8"))["vectors"]


@pytest.mark.parametrize("vector", vectors("varint"), ids=lambda v: str(v["value"]))
def test_integers_are_lib0s(vector):
    assert varuint(vector["value"]).hex() == vector["hex"]
    assert Reader(bytes.fromhex(vector["hex"])).varuint() == vector["value"]


@pytest.mark.parametrize("vector", vectors("string"), ids=lambda v: ascii(v["text"][:3]))
def test_strings_are_lib0s(vector):
    assert string(vector["text"]).hex() == vector["hex"]
    assert Reader(bytes.fromhex(vector["hex"])).string() == vector["text"]


KINDS = {kind.__name__: kind for kind in (SyncStep1, SyncStep2, Update, AwarenessFrame, Ack)}
TEXTS = {"PermissionDenied": PermissionDenied, "Hold": Hold}


def _value(vector):
    if vector["type"] in TEXTS:
        return TEXTS[vector["type"]](vector["payload"])
    if vector["type"] == "QueryAwareness":
        return QueryAwareness()
    return KINDS[vector["type"]](bytes.fromhex(vector["payload"]))


@pytest.mark.parametrize("vector", vectors("frames"), ids=lambda v: v["name"])
def test_frames_are_y_websockets(vector):
    data = bytes.fromhex(vector["hex"])
    assert list(decode(data)) == [_value(vector)]
    assert encode(_value(vector)) == data


@pytest.mark.parametrize("vector", vectors("awareness"), ids=lambda v: str(v["entries"][0]["clock"]))
def test_awareness_is_y_protocols(vector):
    data = bytes.fromhex(vector["hex"])
    entries = [AwarenessEntry(e["clientId"], e["clock"], e["state"]) for e in vector["entries"]]
    assert decode_awareness(data) == entries
    assert encode_awareness(entries) == data


PAYLOADS = st.binary(max_size=300)
FRAMES = st.one_of(
    PAYLOADS.map(SyncStep1),
    PAYLOADS.map(SyncStep2),
    PAYLOADS.map(Update),
    PAYLOADS.map(AwarenessFrame),
    PAYLOADS.map(Ack),
    st.text().map(PermissionDenied),
    st.text().map(Hold),
    st.just(QueryAwareness()),
)


@given(st.lists(FRAMES, min_size=1))
def test_frames_come_back_as_they_went_also_several_in_one_message(frames):
    assert list(decode(b"".join(map(encode, frames)))) == frames


@given(st.binary(max_size=200))
@example(b"\x00\x00\xff\xff\xff\xff\xff\xff\xff\x0f")
def test_arbitrary_bytes_are_frames_or_a_wire_error(data):
    try:
        frames = list(decode(data))
    except WireError:
        return
    assert frames
    assert list(decode(b"".join(map(encode, frames)))) == frames


@given(FRAMES, st.data())
def test_a_frame_cut_anywhere_is_an_error_never_a_short_value(frame, data):
    whole = encode(frame)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(TruncatedFrame):
        list(decode(whole[:cut]))


@given(st.integers(0, MAX_VARUINT))
def test_integers_come_back(value):
    reader = Reader(varuint(value))
    assert (reader.varuint(), reader.remaining) == (value, 0)


@pytest.mark.parametrize("value", [-1, MAX_VARUINT + 1])
def test_integers_out_of_range_are_not_written(value):
    with pytest.raises(ValueError, match="2\\*\\*53"):
        varuint(value)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", TruncatedFrame),
        (b"\x80" * 8 + b"\x01", VarintTooLong),
        (b"\xff" * 7 + b"\x7f", VarintTooLong),
        (b"\xff" * 30_000, VarintTooLong),
        (b"\x04", UnknownFrame),
        (b"\x00\x03", UnknownFrame),
        (b"\x02\x01\x00", UnknownFrame),
        (b"\x02\x00\x02\xc3\x28", BadText),
        (b"\x01\x05\x01", TruncatedFrame),
    ],
)
def test_what_is_wrong_is_said(data, error):
    with pytest.raises(error):
        list(decode(data))


@pytest.mark.parametrize(
    "payload",
    [b"\x01\x01\x01\x03NaN", b"\x01\x01\x01\x09-Infinity", b"\x01\x01\x01\x01{", b"\x01\x01\x01\x00", b"\x00\x00",
     b"\x01\x01\x01" + buffer(b"[" * 100_000)],
)  # fmt: skip
def test_states_that_javascript_cannot_parse_are_refused(payload):
    with pytest.raises(BadText):
        decode_awareness(payload)


def test_a_state_has_as_many_levels_as_whoever_reads_it_can_follow():
    """Python's own bound depends on how deep the stack is: what passed here raised where it was read again."""
    half = MAX_DEPTH // 2
    nested = [string('{"a":' * half + "[" * most + "]" * most + "}" * half) for most in (half, half + 1)]
    (entry,) = decode_awareness(b"\x01\x01\x01" + nested[0])
    assert entry.state.count("[") == half
    with pytest.raises(BadText, match="deeper than 64 levels"):
        decode_awareness(b"\x01\x01\x01" + nested[1])


def test_a_count_that_cannot_be_true_is_refused_before_anything_is_built():
    with pytest.raises(TruncatedFrame):
        decode_awareness(varuint(2**40) + b"\x01\x01\x01\x7b")


def test_null_is_gone_however_it_is_spelled():
    (entry,) = decode_awareness(b"\x01\x01\x05" + string(" null "))
    assert entry.gone


def test_the_keepalive_is_an_awareness_frame_without_entries():
    (frame,) = decode(b"\x01\x01\x00")
    assert encode(KEEPALIVE) == b"\x01\x01\x00"
    assert decode_awareness(frame.payload) == []


def _instances():
    made = {
        errors.TruncatedFrame: errors.TruncatedFrame(wanted=2, available=1),
        errors.TooLarge: errors.TooLarge(what="x", size=2, limit=1),
        errors.SessionDeleted: errors.SessionDeleted(session="s"),
        errors.DamagedLog: errors.DamagedLog(session="s", seq=1, why="x"),
        errors.PanickedUpdate: errors.PanickedUpdate(size=1),
    }
    return [(made[kind], code) for kind, code in (
        (errors.TruncatedFrame, 4400), (errors.TooLarge, 4413), (errors.SessionDeleted, 4404),
        (errors.DamagedLog, 4503), (errors.PanickedUpdate, 4400),
    )]  # fmt: skip


@pytest.mark.parametrize(("error", "code"), _instances(), ids=str)
def test_errors_close_with_their_own_code_or_their_parents(error, code):
    assert closing_for(error).code == code


def test_transient_codes_stay_out_of_the_permanent_range():
    transient = {
        errors.StorageError, errors.SessionFailed, errors.ShuttingDown, errors.TooSlow, errors.TooMany,
        errors.Overloaded, errors.TokenExpired, errors.Fenced, errors.HeldElsewhere,
        errors.NodeUnreachable,
    }  # fmt: skip
    for kind, code in CLOSE_CODES.items():
        assert (4400 <= code <= 4499) == (kind not in transient)


def test_reasons_fit_a_close_frame_and_are_not_cut_inside_a_character():
    closing = closing_for(errors.AccessDenied(what="é" * 200))
    assert len(closing.reason.encode()) <= MAX_REASON_BYTES
    assert closing.reason.endswith("é")


def test_an_error_that_says_nothing_to_peers_is_internal():
    assert closing_for(CrdtSessionsError()).code == 1011

"""The dialect of Hocuspocus: what unmodified providers send is read, and as much is acknowledged as they count."""

import contextlib
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import TooLarge, WireError
from crdt_sessions.wire import (
    EMPTY_UPDATE,
    KEEPALIVE,
    Ack,
    AwarenessFrame,
    PermissionDenied,
    QueryAwareness,
    Shared,
    SyncStep1,
    SyncStep2,
    Update,
    encode,
    hocuspocus,
)
from crdt_sessions.wire.hocuspocus import Content, Hocuspocus, Leave, Stateless, Token, document_of, unpack
from crdt_sessions.wire.varint import buffer, string
from tests.hostile.corpus import mutate
from tests.processes import ROOT
from tests.sync.test_plain import typed

VECTORS = json.loads((ROOT / "schemas/vectors/hocuspocus.json").read_text("utf-8"))["vectors"]
D = string("d")
UNCOUNTED = [Ack(b"")]
STORED, REFUSED = D + b"\x08\x01", D + b"\x08\x00"


def codec(address="d"):
    return Hocuspocus(2**20, address)


def said(body):
    return D + body


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['version']}-{len(vector['address'])}")
def test_what_providers_send_is_read(vector):
    document, kinds = codec(vector["address"]), []
    for message in vector["messages"]:
        address, what = unpack(bytes.fromhex(message["hex"]))
        assert address == vector["address"]
        assert document_of(address) == "Grüße"
        if isinstance(what, Content):
            kinds.append(type(document.read(what.body)[0]).__name__)
        else:
            kinds.append(type(what).__name__)
        if isinstance(what, Token):
            assert (what.token, what.version) == ("tok", "4.8.0" if vector["version"] == 4 else None)
        if isinstance(what, Stateless):
            assert what.payload == "hï"
    assert kinds == [message["kind"] for message in vector["messages"]]


def test_what_a_server_says_is_what_hocuspocus_says():
    """Bytes recorded from ``@hocuspocus/server`` 4.7."""
    assert hocuspocus.authenticated("d", writes=True).hex() == "016402020a726561642d7772697465"
    assert hocuspocus.authenticated("d", writes=False).hex() == "0164020208726561646f6e6c79"
    assert hocuspocus.denied("d", "nope").hex() == "01640201046e6f7065"
    assert hocuspocus.token_wanted("d").hex() == "01640200"
    assert hocuspocus.stateless("d", "echo:hi").hex() == "016405076563686f3a6869"
    assert hocuspocus.closed("d", "Reset Connection").hex() == "0164071052657365742043 6f6e6e656374696f6e".replace(
        " ", ""
    )
    assert codec().write([SyncStep1(b"\x00"), SyncStep2(EMPTY_UPDATE), Ack(b"\x01"), KEEPALIVE]) == [
        bytes.fromhex(each) for each in ("016400000100", "0164000102 0000".replace(" ", ""), "01640801", "0164010100")
    ]
    assert codec("d\0one").write([Ack(b"\x01")]) == [string("d\0one") + b"\x08\x01"]
    shared = Shared(Update(b"\x00\x00"))
    assert codec().write([shared]) == [said(encode(shared.frame))] == codec().write([shared])


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\x01", b"\x01d", b"\x02d", b"\xff" * 9, b"\x01\xff\x00", said(b"\x06\x01x"), said(b"\x08\x01"), said(b"\x63"),
        said(b"\x02\x01\x01x"), said(b"\x02\x02\x01x"), said(b"\x02\x00\x05x"), said(b"\x05\x02x"), said(b"\x09"), said(b"\x66\x00"),
    ],
)  # fmt: skip
def test_what_a_client_may_not_say_is_refused(message):
    with pytest.raises(WireError):
        unpack(message)


@pytest.mark.parametrize(
    "body", [b"", b"\x00", b"\x00\x03\x00", b"\x00\x02\x05x", b"\x01\x02x", b"\x67\x00", b"\x00\x00\x01\x05"]
)
def test_a_document_reads_nothing_broken(body):
    with pytest.raises(WireError):
        codec().read(body)
    with pytest.raises(TooLarge):
        Hocuspocus(10, "d").read(b"\x00" * 11)


def test_what_stands_behind_a_message_is_ignored():
    assert codec().read(b"\x00\x00\x01\x00more") == [SyncStep1(b"\x00")]
    assert unpack(said(b"\x02\x00\x01t\x05" + b"4.8.0" + b"more")) == ("d", Token("t", "4.8.0"))
    assert unpack(said(b"\x07more")) == ("d", Leave())


def test_presence_is_read_and_not_acknowledged():
    assert codec().read(b"\x01" + buffer(b"\x00")) == [AwarenessFrame(b"\x00")]
    assert codec().read(b"\x03") == [QueryAwareness()]


def test_each_change_has_one_acknowledgement():
    document = codec()
    document.write([SyncStep1(b"\x00")])
    assert document.read(encode(SyncStep1(b"\x00"))) == [SyncStep1(b"\x00")]
    assert document.read(encode(SyncStep2(EMPTY_UPDATE))) == [SyncStep2(EMPTY_UPDATE), Ack(b"\x01")]
    assert document.read(encode(Update(EMPTY_UPDATE))) == [Update(EMPTY_UPDATE), Ack(b"\x01")]
    reply = b"\x04" + encode(Update(EMPTY_UPDATE))[1:]
    assert document.read(reply) == [Update(EMPTY_UPDATE), Ack(b"\x01")]
    assert document.write([Ack(b"\x01"), Ack(b"\x01")]) == [STORED, STORED]


def test_what_is_refused_is_said_in_the_order_of_the_acknowledgements():
    document = codec()
    assert document.write([Ack(b"\x01"), PermissionDenied("no"), Ack(b"\x01"), Ack(b"\x01")]) == [
        STORED,
        REFUSED,
        STORED,
    ]
    assert document.write([PermissionDenied("no"), *UNCOUNTED, Ack(b"\x01")]) == [STORED], (
        "of that nobody waits to hear"
    )


def test_what_the_server_asked_for_by_itself_is_not_acknowledged():
    document = codec()
    document.read(encode(SyncStep1(b"\x00")))
    document.write([SyncStep1(b"\x00"), SyncStep2(EMPTY_UPDATE), SyncStep1(b"\x00")])
    assert document.read(encode(SyncStep2(EMPTY_UPDATE)))[1:] == [Ack(b"\x01")]
    assert document.read(encode(SyncStep2(EMPTY_UPDATE)))[1:] == UNCOUNTED, "the provider has not counted that one"
    assert document.read(encode(SyncStep1(b"\x00"))) == [SyncStep1(b"\x00", mutual=True)], "as it forces a sync"
    document.write([SyncStep1(b"\x00")])
    assert document.read(encode(SyncStep2(EMPTY_UPDATE)))[1:] == [Ack(b"\x01")]
    assert document.read(b"\x04" + encode(SyncStep1(b"\x00"))[1:]) == [SyncStep1(b"\x00")], "a reply wants none"


def test_what_was_written_offline_is_counted_with_the_answer_to_step_1_only():
    """A provider sends it as updates behind its SyncStep1, where its count has begun anew."""
    _, (first, second, *_) = typed("a", "b")
    document = codec()
    document.read(encode(SyncStep1(b"\x01\x07\x02")))  # client 7 has written two characters
    assert document.read(encode(Update(first)))[1:] == UNCOUNTED
    assert document.read(encode(Update(second)))[1:] == UNCOUNTED
    document.write([SyncStep1(b"\x00")])
    assert document.read(encode(SyncStep2(EMPTY_UPDATE)))[1:] == [Ack(b"\x01")]
    assert document.read(encode(Update(second)))[1:] == [Ack(b"\x01")], "whatever is sent later is counted"
    fresh = codec()
    fresh.read(encode(SyncStep1(b"\x01\x07\x01")))
    assert fresh.read(encode(Update(first)))[1:] == UNCOUNTED
    assert fresh.read(encode(Update(second)))[1:] == [Ack(b"\x01")], "written since"


def test_what_piled_up_is_one_update_with_as_many_answers():
    _, tokens = typed("a", "b", "c", "d")
    messages = [encode(Update(token)) for token in tokens]
    caret = b"\x01" + buffer(b"\x00")
    document = codec()
    first, presence, last = document.joined([*messages[:3], caret, messages[3]])
    assert presence == caret
    assert document.joined([first, last]) == [first, last], "what was left of a pile may come by again"
    (update, answers) = document.read(first)
    assert document.write([answers]) == [STORED] * 3
    assert document.write([PermissionDenied("no"), answers, Ack(b"\x01")]) == [REFUSED] * 3 + [STORED]
    assert len(update.update) < sum(map(len, tokens[:3]))
    assert document.read(last)[1:] == [Ack(b"\x01")]
    again = [encode(SyncStep1(b"\x01\x07\x02")), *messages]
    assert document.joined(again) == again, "which of them are counted depends on what stands before them"
    document.read(again[0])
    assert document.joined(messages) == messages


MESSAGES = [bytes.fromhex(message["hex"]) for vector in VECTORS for message in vector["messages"]]


@given(st.binary(max_size=60) | st.sampled_from(MESSAGES), st.randoms(use_true_random=False))
def test_whatever_comes_is_read_or_refused(message, rng):
    document = codec()
    for data in (message, mutate(rng, message, MESSAGES)):
        with contextlib.suppress(WireError):  # and nothing else is raised
            _, what = unpack(data)
            if isinstance(what, Content):
                document.read(what.body)


@given(st.lists(st.sampled_from(["edit", "force", "ask", "server", "client"]), max_size=40))
def test_a_providers_count_is_zero_when_all_is_acknowledged_and_not_before(actions):
    """A model of a provider and its two channels; the engine is one that acknowledges what it is asked to."""
    world = SimpleNamespace(count=1, up=[encode(SyncStep1(b"\x00"))], down=[], unacknowledged=0)
    document = codec()
    world.down += document.write([SyncStep1(b"\x00")])

    def client():
        if not world.down:
            return
        message = world.down.pop(0)[len(D) :]
        if message == b"\x08\x01":
            world.count -= 1
            assert world.count >= 0
        elif message[:2] == b"\x00\x00":
            world.up.append(encode(SyncStep2(EMPTY_UPDATE)))

    def server():
        if not world.up:
            return
        frames = document.read(world.up.pop(0))
        answers = []
        for frame in frames:
            if isinstance(frame, SyncStep1):
                answers += [SyncStep2(EMPTY_UPDATE), *([SyncStep1(b"\x00")] if frame.mutual else [])]
            elif isinstance(frame, Ack):
                answers.append(frame)
        world.down += document.write(answers)

    for action in [*actions, *["client", "server"] * 200]:
        match action:
            case "edit":
                world.count += 1
                world.up.append(encode(Update(EMPTY_UPDATE)))
            case "force" if not world.up and not world.down:  # else its own count is wrong, whoever answers
                world.count = 1
                world.up.append(encode(SyncStep1(b"\x00")))
            case "ask":
                world.down += document.write([SyncStep1(b"\x00")])
            case "server":
                server()
            case "client":
                client()
        if any(message[:2] == b"\x00\x02" for message in world.up):
            assert world.count > 0, "something is under way"
    assert world.count == 0

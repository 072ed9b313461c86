"""The dialect of y-websocket: what piled up from one peer says the same when it is joined."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Map, Text

from crdt_sessions.errors import TooLarge
from crdt_sessions.model import SessionDoc, extent_of
from crdt_sessions.wire import Ack, SyncStep1, Update, YWebSocket, decode, encode
from crdt_sessions.wire.hocuspocus import Hocuspocus
from crdt_sessions.wire.insertions import next_insertion
from crdt_sessions.wire.update_v1 import HAS_ORIGIN, MAX_CLOCK, STRING
from crdt_sessions.wire.varint import MAX_CLIENTS, MAX_VARUINT, buffer, encode_state_vector, varuint
from tests.hostile.corpus import mutate
from tests.sync.test_plain import typed

joined = YWebSocket(2**20).joined


def messages_of(*deltas):
    return [encode(Update(delta)) for delta in deltas]


def applied(messages, *, to):
    document = SessionDoc(3)
    for update in to:
        document.apply(update)
    for message in messages:
        for frame in decode(message):
            document.apply(frame.update)
    return document


def test_what_is_typed_in_a_row_is_one_insertion():
    _, (first, *rest) = typed(*"hello", " wörld", " 😀", "x" * 300, "end")
    whole = joined(messages_of(first, *rest))
    assert len(whole) == 2, "a text of 300 bytes begins a new one: its length is two bytes"
    assert len(b"".join(whole)) < len(first) + len("hello wörld 😀 end") + 300 + 70
    apart, together = applied(messages_of(first, *rest), to=()), applied(whole, to=())
    assert extent_of(apart.doc) == extent_of(together.doc)
    assert str(apart.doc.get("draft", type=Text)) == str(together.doc.get("draft", type=Text))
    assert apart.encode() == together.encode()


def test_what_is_typed_into_the_middle_is_joined_too():
    document, (first, *_) = typed()
    draft = document.doc.get("draft", type=Text)
    document.edit(lambda _: draft.__iadd__("yz"))
    begin = document.encode()
    deltas = [document.edit(lambda _, at=at, c=c: draft.insert(at, c))[1] for at, c in enumerate("abc", start=1)]
    whole = joined(messages_of(*deltas))
    assert len(whole) == 1
    assert (
        applied(whole, to=[begin]).encode() == applied(messages_of(*deltas), to=[begin]).encode() == document.encode()
    )
    assert first != begin


def inserted(clock, text, after):
    """Return the update by which client 300 inserts *text* at *clock*, after its character at *after*."""
    name = varuint(300)
    return b"\1\1" + name + varuint(clock) + b"\x84" + name + varuint(after) + buffer(text) + b"\0"


@pytest.mark.parametrize("size", [7, 14, 21, 28])
def test_a_row_goes_on_where_clocks_become_longer(size):
    begin = 2**size - 70
    texts = [b"a", "ö".encode(), "😀".encode(), b"token"] * 60
    clocks = [begin]
    for text in texts:
        clocks.append(clocks[-1] + len(text.decode().encode("utf-16-le")) // 2)
    deltas = [inserted(clock, text, clock - 1) for clock, text in zip(clocks, texts, strict=False)]
    whole = messages_of(inserted(begin, b"".join(texts), begin - 1))
    assert joined(messages_of(*deltas)) == whole
    for at in (1, 70, 130, 239):
        for wrong in (
            inserted(clocks[at] + 1, texts[at], clocks[at] - 1),
            inserted(clocks[at], texts[at], clocks[at]),
            inserted(clocks[at], b"\xff", clocks[at] - 1),
            inserted(clocks[at], texts[at], clocks[at] - 1) + b"\0",
        ):
            before = inserted(begin, b"".join(texts[:at]), begin - 1)
            assert joined(messages_of(*deltas[:at], wrong, *deltas[at + 1 :]))[0] == encode(Update(before))


def test_what_stands_between_ends_a_row():
    _, (first, *rest) = typed(*"abcd")
    ack = encode(Ack(b"1"))
    one, two = messages_of(first, rest[0]), messages_of(*rest[1:])
    assert joined([*one, ack, *two]) == [*joined(one), ack, *joined(two)]
    assert joined([]) == []
    assert joined([b"", b"\x03", *one[:1]]) == [b"", b"\x03", one[0]]


@given(
    st.randoms(use_true_random=False),
    st.lists(st.sampled_from(["typed", "back", "cut", "map", "other"]), max_size=30),
)
def test_joined_messages_say_the_same(rng, actions):
    """Two clients type, delete and set; one of them sends all it wrote in a batch, in which something may be broken."""
    document, other = SessionDoc(7), SessionDoc(300)
    draft, theirs = (each.doc.get("draft", type=Text) for each in (document, other))
    written, foreign = [], []
    for action in actions:
        text = rng.choice(["a", "ö", "😀", "token", "x" * 130])
        if action == "typed":
            change = lambda _, text=text: draft.__iadd__(text)  # noqa: E731
        elif action == "back":
            change = lambda _, text=text: draft.insert(0, text)  # noqa: E731
        elif action == "cut":
            change = lambda _: draft.clear()  # noqa: E731
        elif action == "map":
            change = lambda doc: doc.doc.get("state", type=Map).__setitem__("k", 1)  # noqa: E731
        else:
            _, delta = other.edit(lambda _, text=text: theirs.__iadd__(text))
            foreign.append(delta)
            document.apply(delta)
            continue
        _, delta = document.edit(change)
        if delta is not None:
            written.append(delta)
    apart, together = messages_of(*written), joined(messages_of(*written))
    assert applied(apart, to=foreign).encode() == applied(together, to=foreign).encode()
    broken = [mutate(rng, message, apart) if rng.random() < 0.2 else message for message in apart]
    for message in joined(broken):
        assert message in broken or len(list(decode(message))) == 1


@pytest.mark.parametrize("end", [MAX_CLOCK, 2**32, MAX_VARUINT + 1])
def test_what_is_inserted_at_the_end_of_clocks_is_left_as_it_is(end):
    """It is refused, one by one, where it is taken; until there nothing may fail."""
    for before in range(5):
        row = [
            next_insertion(varuint(5), clock, HAS_ORIGIN | STRING) + buffer(b"x") + b"\0"
            for clock in range(end - before, min(end + 3, MAX_VARUINT + 1))
        ]
        for messages in (messages_of(*row), messages_of(*row[:1], *row)):
            assert joined(messages) == messages


@pytest.mark.parametrize("room", [0, 1, 5, 128, 129, 1000])
def test_no_row_is_joined_beyond_the_end_of_clocks(room):
    row = [
        next_insertion(varuint(5), clock, HAS_ORIGIN | STRING) + buffer(b"x") + b"\0"
        for clock in range(MAX_CLOCK - room, MAX_CLOCK + 5)
    ]
    messages = messages_of(*row)
    kept = [message for message in joined(messages) if message in messages]
    assert kept[-5:] == messages[-5:], "only these are refused"


@pytest.mark.parametrize("read", [YWebSocket(2**24).read, Hocuspocus(2**24, "d").read])
def test_a_state_vector_of_very_many_clients_is_refused_before_it_is_read(read):
    """Else one frame of megabytes, each two bytes an entry, would have the loop for seconds."""
    most = SyncStep1(encode_state_vector(dict.fromkeys(range(MAX_CLIENTS), 1)))
    assert read(encode(most)) == [most]
    with pytest.raises(TooLarge, match="of 100001 exceeds the limit of 100000 clients"):
        read(encode(SyncStep1(encode_state_vector(dict.fromkeys(range(MAX_CLIENTS + 1), 1)))))
    with pytest.raises(TooLarge):
        read(encode(SyncStep1(varuint(2**40) + b"\x01" * 2**20)))


def test_state_vectors_of_one_message_are_counted_together():
    """Each by itself may have as many as there may be; a thousand of them in one message may not."""
    half = encode(SyncStep1(encode_state_vector(dict.fromkeys(range(MAX_CLIENTS // 2), 1))))
    read = YWebSocket(2**24).read
    assert len(read(half * 2)) == 2
    with pytest.raises(TooLarge, match="clients"):
        read(half * 2 + encode(SyncStep1(b"\x01\x01\x01")))

"""Fresh updates: what begins a message or a run is taken without being tried elsewhere, and nothing else is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlFragment

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.model import SessionDoc, SessionView, encode_verified, extent_of, merge, seed
from crdt_sessions.model.parts import TextPart, ValuePart
from crdt_sessions.model.run_values import RunRequest
from crdt_sessions.model.values import Author, MessageHead
from crdt_sessions.sync.fresh import fresh
from crdt_sessions.sync.plain import Inspector
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import decode_state_vector, string, varuint
from tests.hostile.corpus import mutate

SEED = seed(SessionId("room"), generation=1, created_at=Millis(1), client_id=3)
BY_YJS = bytes.fromhex(
    "01084d002701086d6573736167657301780128004d00046865616401760502696477017804726f6c65770475736572016e7d050166"
    "7c3fc00000017a7e27004d000570617274730007004d020128004d0304747970650177047465787427004d03047465787402"
    "04004d050568656c6c6f28004d03057374617465017704646f6e6500"
)
"""A message, written by Yjs 13 in one transaction."""


def head(id="m"):
    return MessageHead(id=id, role="user", author=Author(id="ann", name="Ann"), created_at=1_700_000_000_000)


def ask(view):
    parts = [
        TextPart(type="text", text="hei 😀"),
        TextPart(type="text", text="and more"),
        ValuePart(type="data", value=[1]),
    ]
    view.messages.add(head(), parts)
    view.runs.request("r", RunRequest(message_id="m", created_at=5))


def begin(view):
    message = view.messages.add(head("out"), run_id="r")
    message.open_text().append("first ")


def writer(client=5):
    document = SessionDoc(client)
    document.apply(SEED)
    document.take_delta()
    return document


def written(change, document=None):
    document = document or writer()
    view = SessionView(document)
    return document.edit(lambda _: change(view))[1]


def reader(*updates):
    document = SessionDoc(8)
    for update in (SEED, *updates):
        document.apply(update)
    return document


def is_fresh(update, document, arrays=None):
    clocks = decode_state_vector(document.state_vector())
    return fresh(update, clocks, lambda root, key: key in getattr(document.roots, root), arrays)


@pytest.mark.parametrize("update", [written(ask), written(begin), BY_YJS], ids=["question", "answer", "yjs"])
def test_a_question_and_the_beginning_of_an_answer_are_fresh(update):
    document = reader()
    found = is_fresh(update, document)
    document.append(update)
    assert decode_state_vector(document.state_vector())[found.client] == found.clock
    assert document.waiting == EMPTY_UPDATE
    (message,) = document.roots.messages.values()
    assert message["parts"][0]["text"].to_py() in ("hei 😀", "first ", "hello")


def test_two_transactions_in_one_update_are_fresh():
    document = writer()
    parts = [written(lambda view: view.messages.add(head("out"), run_id="r"), document)]
    parts.append(written(lambda view: view.messages["out"].open_text().append("first "), document))
    assert is_fresh(merge(parts), reader()) is not None
    assert is_fresh(parts[1], reader(parts[0])) is None, "nothing is known of the array it writes into"


def test_a_fresh_update_is_not_fresh_a_second_time():
    update = written(ask)
    assert is_fresh(update, reader(update)) is None


def test_an_existing_key_is_not_fresh():
    assert is_fresh(written(ask, writer(6)), reader(written(ask))) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda doc: doc["state"].__setitem__("k", Map({"a": 1})),
        lambda doc: doc["messages"].__setitem__("k", Text("a")),
        lambda doc: doc["messages"].__setitem__("k", 1),
        lambda doc: doc["messages"].__setitem__("k", Map({"x": XmlFragment()})),
        lambda doc: doc["messages"].__setitem__("k", Map({"x": b"bytes"})),
        lambda doc: doc["messages"].__setitem__("k", Map({"x": nested(12, lambda inner: [inner])})),
        lambda doc: doc["messages"].__setitem__("k", Map({"x": nested(12, lambda inner: Array([inner]))})),
        lambda doc: doc["messages"].__setitem__("k", Map({"x": Array(range(300))})) or doc["messages"].pop("k"),
        lambda doc: [doc["messages"].__setitem__("k", Map({"x": number})) for number in range(2)],
        lambda doc: doc["messages"].__setitem__("k", Map({f"x{number}": Map() for number in range(300)})),
        lambda doc: doc["messages"].__setitem__("k", Map({"x": "x" * 70_000})),
    ],
    ids=["root", "text", "json", "xml", "bytes", "deep json", "deep types", "deleted", "twice", "many", "long"],
)
def test_other_updates_are_not_fresh(change):
    doc = Doc(client_id=5)
    for name, kind in (("state", Map), ("messages", Map)):
        doc.get(name, type=kind)
    with doc.transaction():
        change(doc)
    assert is_fresh(doc.get_update(), reader()) is None


def nested(depth, wrap):
    value = 1
    for _ in range(depth):
        value = wrap(value)
    return value


def update(*structs, clock=0):
    return b"\x01" + varuint(len(structs)) + varuint(5) + varuint(clock) + b"".join(structs) + b"\0"


def rooted(info=0x27, named=1, content=b"\x01"):
    return bytes([info, named]) + string("messages") + string("k") + content


def entry(key, content, info=0x28, parent=0):
    return bytes([info, 0, 5, parent]) + string(key) + content


NUMBER = b"\x01\x7d\x05"
A_TEXT = (rooted(), entry("t", b"\x02", 0x27), b"\x04\x00\x05\x01" + string("ab"))


def test_handmade_bytes_of_this_shape_are_fresh():
    for structs in ([rooted(), entry("a", NUMBER)], A_TEXT, [*A_TEXT, b"\x84\x05\x03" + string("c")]):
        assert is_fresh(update(*structs), reader()) is not None


@pytest.mark.parametrize(
    "bad",
    [
        update(rooted(named=2)),
        update(rooted(info=0x21)),
        update(rooted(content=b"\x81\x00")),
        update(rooted(), entry("t", b"\x82\x00", 0x27)),
        update(rooted(), clock=1),
        update(rooted(), entry("a", NUMBER), entry("a", NUMBER)),
        update(rooted(), entry("a", b"\x01\x7f")),
        update(rooted(), entry("a", b"\x02\x7e\x7e")),
        update(rooted(), entry("a", b"\x00")),
        update(rooted(), entry("a", b"\x01\x7d" + b"\x81" * 8 + b"\x01")),
        update(*A_TEXT[:2], b"\x04\x00\x05\x01\x00"),
        update(*A_TEXT, b"\x04\x00\x05\x01" + string("c")),
        update(*A_TEXT, b"\x84\x06\x03" + string("c")),
        update(*A_TEXT, b"\x84\x05\x02" + string("c")),
        update(*A_TEXT, b"\xc4\x05\x03\x05\x02" + string("c")),
        update(*A_TEXT, b"\xa4\x05\x03" + string("c")),
        update(rooted(), b"\x00"),
    ],
    ids=[
        "neither named nor not", "deleted content", "long map", "long text", "gap", "key twice", "undefined", "two values", "no value",
        "long number", "empty text", "second beginning", "after somebody's", "in the middle", "before", "key and origin",
        "collected",
    ],
)  # fmt: skip
def test_handmade_bytes_of_another_shape_are_not_fresh(bad):
    assert is_fresh(bad, reader()) is None


def test_a_part_of_an_existing_message_is_not_fresh():
    document = writer()
    first = written(ask, document)
    more = written(lambda view: view.messages["m"].open_text(), document)
    assert is_fresh(more, reader(first)) is None


# -- what goes on with an array that was begun so -----------------------------------------------------------------------


def an_answer():
    """The updates that write an answer with two parts, each when the one before is there."""
    document = writer()
    return [
        written(change, document)
        for change in (
            lambda view: view.messages.add(head("out"), run_id="r"),
            lambda view: view.messages["out"].open_text().append("first "),
            lambda view: view.messages["out"].open_tool("c", "book"),
            lambda view: view.messages["out"].open_tool("d", "pay"),
        )
    ]


def test_parts_that_come_one_after_the_other_are_fresh():
    inspector, document = inspected()
    for update in an_answer():
        passed = inspector.passes(update)
        assert passed
        document.append(update)
        inspector.took(update, passed)
    parts = document.roots.messages["out"]["parts"].to_py()
    assert [part["type"] for part in parts] == ["text", "tool", "tool"]


def inspected(*updates):
    document = reader()
    inspector = Inspector(document)
    for update in updates:
        passed = inspector.passes(update)
        document.append(update)
        inspector.took(update, passed)
    return inspector, document


def test_a_part_is_fresh_only_after_parts_that_were_taken():
    begun, first, second, _ = an_answer()
    inspector, _ = inspected()
    assert inspector.passes(begun)
    assert not inspector.passes(first), "the message was looked at, not taken"
    inspector, _ = inspected(begun)
    assert not inspector.passes(second), "there is a gap"
    inspector, _ = inspected(begun, first)
    assert not inspector.passes(first), "an echo"


def test_a_part_before_another_or_by_another_client_is_not_fresh():
    begun, first, *_ = an_answer()
    document = writer()
    document.apply(begun)
    document.apply(first)
    document.take_delta()
    before = written(lambda view: view.messages["out"].parts.insert(0, Map({"type": "text"})), document)
    assert not inspected(begun, first)[0].passes(before)
    other = writer(6)
    other.apply(begun)
    other.take_delta()
    assert not inspected(begun)[0].passes(written(lambda view: view.messages["out"].open_text(), other))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_part_of_a_message_that_was_deleted_is_deleted_everywhere(replaced):
    begun, first, second, _ = an_answer()
    remover = writer(6)
    remover.apply(begun)
    remover.take_delta()
    roots = remover.roots
    removed = written(lambda _: roots.messages.__delitem__("out"), remover)
    if replaced:
        removed = merge([removed, written(lambda _: roots.messages.__setitem__("out", Map({"x": 1})), remover)])
    inspector, document = inspected(begun)
    document.apply(removed)
    inspector.took(removed)
    for update in (first, second):
        passed = inspector.passes(update)
        assert passed
        document.append(update)
        inspector.took(update, passed)
    assert document.roots.messages.to_py() == ({"out": {"x": 1}} if replaced else {})
    other = reader(begun, first, second, removed)
    assert extent_of(other.doc) == extent_of(document.doc)
    assert other.roots.messages.to_py() == document.roots.messages.to_py()
    encode_verified(document)


def test_the_number_of_remembered_arrays_is_bounded():
    document = writer()
    begun = [written(lambda view, n=n: view.messages.add(head(f"m{n}")), document) for n in range(40)]
    inspector, _ = inspected(*begun)
    assert inspector.passes(written(lambda view: view.messages["m39"].open_text(), document))
    document = writer()
    for update in begun:
        document.apply(update)
    inspector, _ = inspected(*begun)
    assert not inspector.passes(written(lambda view: view.messages["m0"].open_text(), document))


@given(st.integers(0, 2**32))
def test_every_fresh_update_only_adds(seed):
    """Mutated questions: what still passes moves one clock by what it says, and the document can be read and stored."""
    rng = random.Random(seed)
    answer = an_answer()
    taken = answer[: rng.randrange(len(answer))]
    others = [written(ask), written(begin), BY_YJS, answer[len(taken)]]
    candidate = mutate(rng, rng.choice([*others, answer[len(taken)]]), [*others, *answer])
    inspector, document = inspected(*taken)
    if found := inspector.passes(candidate):
        before = extent_of(document.doc)
        document.append(candidate)
        after = extent_of(document.doc)
        assert document.waiting == EMPTY_UPDATE
        assert after.clocks == before.clocks | {found.client: found.clock}
        assert after.deleted == before.deleted
        encode_verified(document)
        for root in (document.roots.messages, document.roots.runs):
            root.to_py()
    document.close()

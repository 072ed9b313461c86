"""Python clients that count bytes and insert within a character: nothing they write is lost, and every session loads."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycrdt import Doc, Text, merge_updates

from crdt_sessions.errors import MalformedUpdate
from crdt_sessions.model import SessionDoc, encode_verified, fold, split
from crdt_sessions.sync.plain import plain
from crdt_sessions.testing import SimNetwork, content
from crdt_sessions.wire.update_v1 import parse

BEHIND_ITSELF = "01010504c4050405040158" + "00"
BEFORE_ITSELF = "01010504c4050305040158" + "00"
BEFORE_NOTHING = "010105048405030158" + "00"
"""What pycrdt 0.14.13 writes for an insertion at byte 2 of ``a😀b``, and how it should read."""


def cut():
    """Return a text of the library, what it began with, and the changes since: it was written into a character."""
    doc, deltas = Doc(client_id=5), []
    text = doc.get("draft", type=Text)
    text += "a😀b"
    begun = doc.get_update()
    doc.observe(lambda event: deltas.append(event.update))
    text.insert(2, "X")
    return text, begun, deltas


def test_text_that_stands_before_itself_stands_at_the_end():
    text, begun, deltas = cut()
    assert deltas == [bytes.fromhex(BEFORE_ITSELF)], "the library has changed: is this still needed?"
    document = SessionDoc(9)
    document.apply(begun)
    now, clocks, later = split(deltas[0], {5: 4})
    assert (now.hex(), clocks, later) == (BEFORE_NOTHING, {5: 5}, None)
    document.apply(now)
    assert str(document.doc.get("draft", type=Text)) == str(text) == "a😀bX"
    encode_verified(document)


BETWEEN_ONE_THING = "01010505c40504050403e4b881" + "00"
BEHIND_IT = "01010505840504" + "03e4b881" + "00"
"""What it writes next, at the end of that text."""


@pytest.mark.parametrize("merged", [False, True])
def test_what_stands_behind_and_before_one_thing_stands_behind_it(merged):
    """The library cuts the text at the one and then at the other: the place depends on where its pieces end."""
    text, begun, deltas = cut()
    text.insert(len(str(text).encode()), "丁")
    assert deltas[1] == bytes.fromhex(BETWEEN_ONE_THING), "the library has changed: is this still needed?"
    document = SessionDoc(9)
    document.apply(begun)
    first, clocks, _ = split(deltas[0], {5: 4})
    second, _, _ = split(deltas[1], clocks)
    assert second.hex() == BEHIND_IT
    document.apply(merge_updates(first, second) if merged else first)
    document.apply(second)
    assert str(document.doc.get("draft", type=Text)) == str(text) == "a😀bX丁"


def test_typing_between_one_thing_needs_a_trial():
    assert plain(bytes.fromhex(BETWEEN_ONE_THING), {5: 5}, lambda *_: True) is None
    assert plain(bytes.fromhex(BEHIND_IT), {5: 5}, lambda *_: True) == (5, 6)


def test_what_stands_behind_itself_is_nothing():
    with pytest.raises(MalformedUpdate):
        parse(bytes.fromhex(BEHIND_ITSELF))
    only_right = "01010504440504015800"
    with pytest.raises(MalformedUpdate):
        split(bytes.fromhex(only_right), {5: 4})


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "insert", "drop", "connect", "quiet", "crash", "fold"]),
        st.integers(0, 40),
        st.sampled_from(["", "😀", "é", "a😀b"]),
    ),
    max_size=14,
)


@pytest.mark.parametrize("sandbox", [False, True])
@given(STEPS)
@example([("insert", 16, "é"), ("insert", 0, "é"), ("insert", 16, "")])  # was refused as forged for a while (0077)
def test_whatever_is_cut_all_that_was_inserted_is_there_and_every_session_loads(sandbox, steps):
    network = SimNetwork(sandbox=sandbox)
    for name in ("ann", "bob"):
        network.add(name)
        network.connect(name)
    network.run_until_quiet()
    written = ""
    network.edit("ann", lambda view: view.document.doc.get("draft", type=Text).insert(0, "a😀b"))
    for number, (step, at, more) in enumerate(steps):
        if step == "insert":
            written += chr(0x4E00 + number)
            text = written[-1] + more

            def change(view, at=at, text=text):
                draft = view.document.doc.get("draft", type=Text)
                draft.insert(at % (len(str(draft).encode()) + 1), text)

            network.edit("ann", change)
        elif step in ("drop", "connect"):
            getattr(network, step)("ann")
        elif step == "quiet":
            network.run_until_quiet()
        elif step == "crash":
            network.crash()
        else:
            network.compact()
    for name in ("ann", "bob"):
        network.connect(name)
    network.run_until_quiet()
    fold(row for _, row in network.rows)
    documents = network.documents()
    contents = {name: content(document) for name, document in documents.items()}
    assert contents["server"] == contents["disk"]
    assert all(each["clocks"] == contents["disk"]["clocks"] for each in contents.values())
    assert documents["server"].waiting == documents["disk"].waiting == b"\x00\x00"
    assert all(peer.closed_by is None for peer in network.peers.values())
    assert all(set(written) <= set(each["draft"]) for each in contents.values())
    network.close()

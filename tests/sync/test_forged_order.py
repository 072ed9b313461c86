"""Text whose neighbours no client would name together: where it passes without a trial, and all agree on its place.

What it is said to stand before may be nothing, or in another text, which is never met (decision 0077). A neighbour in
the same text that is not the next one is left: real Yjs, too, orders such text by what else a replica has.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Text

from crdt_sessions.model import extent_of
from crdt_sessions.sync.plain import plain
from crdt_sessions.wire.update_v1 import units
from tests.interop.node import needs_node
from tests.sync.forged import text_beside

AUTHOR, OTHER = 50, 40
_ROOTS = ("t", "u")


def begun():
    """Return a document in which two have written, and in which of the texts each character stands."""
    author, other = Doc(client_id=AUTHOR), Doc(client_id=OTHER)
    for root, text in zip(_ROOTS, ("abc", "xyz"), strict=True):
        author.get(root, type=Text).insert(0, text)
    other.apply_update(author.get_update())
    other.get("t", type=Text).insert(1, "DE")
    other.get("t", type=Text).insert(2, "F")
    author.apply_update(other.get_update())
    del author.get("t", type=Text)[3:5]
    roots = {(AUTHOR, at): _ROOTS[at // 3] for at in range(6)} | {(OTHER, at): "t" for at in range(3)}
    return author.get_update(), roots


_INSERTIONS = st.lists(
    st.tuples(st.sampled_from([10, 45, 55, 70]), st.floats(0, 1), st.floats(0, 1), st.booleans(), st.booleans()),
    min_size=2,
    max_size=6,
)


def forged(insertions):
    """Return updates, each with those that must come before it."""
    start, roots = begun()
    made, ends, last, updates = dict.fromkeys(roots), {}, {}, []
    for number, (client, at, before, goes_on, wanted) in enumerate(insertions):
        clock, ids = ends.get(client, 0), list(roots)
        origin = (client, clock - 1) if goes_on and clock else ids[round((len(ids) - 1) * at)]
        elsewhere = [each for each in ids if roots[each] != roots[origin]]
        right = elsewhere[round((len(elsewhere) - 1) * before)] if wanted else None
        text = "123456"[: 1 + number % 3]
        needs = {made[origin], made[right] if right else None, last.get(client)} - {None}
        updates.append((text_beside(origin, text, client=client, clock=clock, right=right), needs))
        ids = [(client, clock + offset) for offset in range(len(text))]
        roots |= dict.fromkeys(ids, roots[origin])
        made |= dict.fromkeys(ids, number)
        ends[client], last[client] = clock + units(text.encode()), number
    return start, updates


def ordered(draw, updates):
    """Return the updates in an order in which each one's neighbours are there."""
    done, left = [], list(range(len(updates)))
    while left:
        ready = [number for number in left if updates[number][1] <= set(done)]
        done.append(draw(st.sampled_from(ready)))
        left.remove(done[-1])
    return [updates[number][0] for number in done]


def _read(document):
    return [str(document.get(root, type=Text)) for root in _ROOTS]


@given(_INSERTIONS, st.data())
def test_all_agree_on_text_that_is_said_to_stand_before_something_elsewhere(insertions, data):
    """In whatever order they hear of it, and whether one by one or by loading what others have merged."""
    start, updates = forged(insertions)
    seen = []
    for _ in range(3):
        document = Doc()
        document.apply_update(start)
        for update in ordered(data.draw, updates):
            assert plain(update, extent_of(document).clocks), "it is taken without a trial"
            if data.draw(st.booleans()):
                whole, document = document.get_update(), Doc()
                document.apply_update(whole)
            document.apply_update(update)
        newcomer = Doc()
        newcomer.apply_update(document.get_update())
        seen += [(_read(document), extent_of(document)), (_read(newcomer), extent_of(newcomer))]
    assert all(each == seen[0] for each in seen)


@pytest.mark.interop
@needs_node
@given(_INSERTIONS, st.data())
def test_yjs_agrees(node, insertions, data):
    start, updates = forged(insertions)
    for _ in range(2):
        order = [start, *ordered(data.draw, updates)]
        document = Doc()
        for update in order:
            document.apply_update(update)
        found = node("applied", updates=[update.hex() for update in order], roots=_ROOTS)
        assert found == {"texts": _read(document), "again": _read(document), "pending": False}

"""Suggestions about rich text: each piece can be accepted alone, in any order, and all of them make what was suggested."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.model import ArtifactHead, Author, SessionDoc, SessionView
from crdt_sessions.model.dialects import Dialect
from crdt_sessions.model.revisions import read_content, revision
from crdt_sessions.model.rewriting import Scribe
from crdt_sessions.model.steps import content_in
from crdt_sessions.model.suggestions import PieceDecision, Settled, SuggestionHead, pieces_of
from crdt_sessions.testing import SimNetwork
from tests.sync.runs import World

DIALECTS = ["tiptap", "prosemirror", "blocknote", "lexical"]
START = """# Plan

We go by **car** to Oslo.

Then we eat fish.

- one
- two
  - below
- three

> said he

```py
x = 1
```

The end.
"""


def begun(text=START, dialect: Dialect = "tiptap", client=7):
    document = SessionDoc(client)
    view = SessionView(document)
    document.transact(lambda _: view.artifacts.begin(ArtifactHead(id="a", created_at=1), "xml", dialect))
    content = content_in(document.doc, "a")
    document.transact(lambda _: revision(content, text, None, dialect).make(content, Scribe()))
    return view


def suggest(view, new, of=None, dialect: Dialect = "tiptap"):
    pieces = pieces_of(content_in(view.document.doc, "a"), "a", new, of, dialect)
    head = SuggestionHead(artifact="a", author=Author(id="bot"), created_at=1, pieces=pieces)
    view.document.transact(lambda _: view.suggestions.add("s", head))
    return pieces


def accept(view, piece):
    settled = Settled(accepted=True, by="ann", at=1)
    return view.document.transact(lambda _: view.suggestions.settle("s", piece, settled))


def text_of(view):
    return read_content(content_in(view.document.doc, "a"))


CHANGED = {
    "a paragraph less": lambda text: text.replace("Then we eat fish.\n\n", ""),
    "a paragraph more": lambda text: text.replace("Then we", "In between.\n\nThen we"),
    "one in front": lambda text: "Before all.\n\n" + text,
    "one at the end": lambda text: text + "\nAfter all.\n",
    "a mark more": lambda text: text.replace("fish", "**fish**"),
    "a mark less": lambda text: text.replace("**car**", "car"),
    "another level": lambda text: text.replace("# Plan", "## Plan"),
    "an item less": lambda text: text.replace("- two\n  - below\n", ""),
    "an item more": lambda text: text.replace("- three", "- between\n- three"),
    "below less": lambda text: text.replace("\n  - below", ""),
    "other code": lambda text: text.replace("x = 1", "y = **2**"),
    "other words in many": lambda text: text.replace("We go", "They went").replace("eat fish", "ate meat").replace("said", "thought"),
    "a table more": lambda text: text.replace("The end", "| a | b |\n| --- | --- |\n| 1 | 2 |\n\nThe end"),
    "nothing left": lambda text: "",
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("what", CHANGED)
def test_what_is_accepted_makes_what_was_suggested(what, dialect):
    view = begun(dialect=dialect)
    before, wanted = text_of(view), CHANGED[what](START)
    pieces = suggest(view, wanted, dialect=dialect)
    assert text_of(view) == before, "nothing changes by itself"
    for piece in range(len(pieces)):
        assert accept(view, piece).outdated is None
    assert text_of(view) == wanted


def test_a_passage_of_several_paragraphs_is_as_many_pieces_as_it_changes():
    view = begun()
    pieces = suggest(view, "Bergen.\n\nIn between.\n\nThen we drink", of="Oslo.\n\nThen we eat")
    assert [(each.before, each.after, each.blocks) for each in pieces] == [
        ("Oslo", "Bergen", None),
        ("", "In between.\n", True),
        ("eat", "drink", None),
    ]
    assert accept(view, 1).outdated is None
    assert "Oslo.\n\nIn between.\n\nThen we eat" in text_of(view)


def test_what_people_have_changed_in_a_block_meanwhile_is_not_taken_away_with_it():
    view = begun()
    suggest(view, START.replace("Then we eat fish.\n\n", "").replace("# Plan", "# The plan"))
    content = content_in(view.document.doc, "a")
    view.document.transact(lambda _: revision(content, "boat", "fish", "tiptap").make(content, Scribe()))
    assert [accept(view, piece).outdated for piece in (0, 1)] == [None, True]
    assert text_of(view) == START.replace("fish", "boat").replace("# Plan", "# The plan")


def test_a_block_whose_neighbour_is_gone_has_no_place():
    view = begun()
    suggest(view, START.replace("The end.", "The end.\n\nMore."))
    content = content_in(view.document.doc, "a")
    view.document.transact(lambda _: content.children.__delitem__(len(content.children) - 1))
    assert accept(view, 0).outdated is True


BLOCKS = st.sampled_from(
    ["# Title", "## Other", "one two three", "one **two** three", "four *five* six 😀", "- a\n- b\n- c", "- a\n- b\n  - d\n- c",
     "1. x\n2. y", "> quoted", "```js\nlet a\n```", "---", "seven"]
)  # fmt: skip
TEXTS = st.lists(BLOCKS, min_size=1, max_size=5, unique=True).map(lambda blocks: "\n\n".join(blocks) + "\n")


@given(TEXTS, TEXTS, st.sampled_from(DIALECTS), st.randoms(use_true_random=False))
def test_pieces_are_accepted_in_any_order(old, new, dialect, random):
    view = begun(old, dialect)
    wanted = text_of(begun(new, dialect))
    if text_of(view) == wanted:
        return
    pieces = suggest(view, new, dialect=dialect)
    order = list(range(len(pieces)))
    random.shuffle(order)
    for piece in order:
        assert accept(view, piece).outdated is None, (piece, pieces)
    assert text_of(view) == wanted
    view.document.close()


@given(st.data())
def test_two_devices_decide_and_each_piece_is_decided_once(data):
    world = World(people=("ann", "bob"))
    network: SimNetwork = world.network

    def begin(view):
        view.artifacts.begin(ArtifactHead(id="a", created_at=1), "xml")
        content = content_in(view.document.doc, "a")
        revision(content, START, None, "tiptap").make(content, Scribe())

    network.edit("ann", begin)
    network.run_until_quiet()
    names = data.draw(st.lists(st.sampled_from(sorted(CHANGED)[:-3]), min_size=1, max_size=4, unique=True))
    new = START
    for name in names:
        new = CHANGED[name](new)
    if new == START:
        return
    pieces = []

    def propose(view):
        pieces.extend(pieces_of(content_in(view.document.doc, "a"), "a", new, None, "tiptap"))
        view.suggestions.add("s", SuggestionHead(artifact="a", author=Author(id="bot"), created_at=1, pieces=pieces))

    network.edit("ann", propose)
    network.run_until_quiet()
    for _ in range(data.draw(st.integers(1, 8))):
        who, piece = data.draw(st.sampled_from(["ann", "bob"])), data.draw(st.integers(0, len(pieces) - 1))
        said = PieceDecision(accepted=data.draw(st.booleans()), at=1)
        network.edit(
            who, lambda view, piece=piece, who=who, said=said: view.suggestions.decide("s", piece, who, said)
        )
        if data.draw(st.booleans()):
            network.deliver(who, up=True)
    network.run_until_quiet()
    views = [network.engine.view, *(peer.replica.view for peer in network.peers.values())]
    settled = views[0].suggestions["s"].settled
    assert all(each.suggestions["s"].settled == settled for each in views)
    assert all(each.outdated is None for each in settled.values())
    assert len({text_of(each) for each in views}) == 1
    accepted = {int(piece) for piece, each in settled.items() if each.accepted}
    if len(accepted) == len(pieces):
        assert text_of(views[0]) == text_of(begun(new, "tiptap"))  # without what Markdown does not mean
    elif not accepted:
        assert text_of(views[0]) == START
    network.close()

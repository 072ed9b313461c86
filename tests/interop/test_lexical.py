"""Lexical and an agent in one document: stock ``@lexical/yjs`` and its own nodes, without a screen."""

from __future__ import annotations

from random import Random

import pytest

from crdt_sessions.model import ArtifactHead, SessionDoc, SessionView
from crdt_sessions.model.positions import position_at
from crdt_sessions.model.revisions import find, read_content, revision, text_at
from crdt_sessions.model.steps import content_in
from tests.interop.node import JS, NodePeers, needs_node
from tests.model.test_markdown import WHOLE
from tests.profiles import sample

pytestmark = [pytest.mark.interop, needs_node]
BLOCKS = ["# Town", "We go by **car** to [Oslo](<http://oslo>) now.", "- one\n- two\n  - below\n- three", "> said he",
          "1. first\n2. second", "```py\nx = 1\ny = 2\n```", "A *last* line."]  # fmt: skip


@pytest.fixture(scope="module")
def lexical():
    peers = NodePeers(JS / "lexical.mjs")
    yield peers
    peers.close()


class Room:
    """A document with an agent, and an editor of Lexical that has it open."""

    def __init__(self, lexical, name, text=""):
        self._lexical, self.name = lexical, name
        self.doc = SessionDoc(7)
        self.view = SessionView(self.doc)
        self.doc.transact(lambda _: self.view.artifacts.begin(ArtifactHead(id="a", created_at=1), "xml", "lexical"))
        self.steps = []
        if text:
            wanted = revision(self.content, text, None, "lexical")
            self.doc.transact(lambda _: self.view.edits.begin("a", wanted.make, by="x", at=1, alike=wanted.alike))
        self.doc.take_delta()
        self.open(name)

    @property
    def content(self):
        return content_in(self.doc.doc, "a")

    @property
    def text(self):
        return read_content(self.content)

    def open(self, name):
        self._lexical("open", name=name, update=self.doc.encode().hex(), artifact="a", client=1000)

    def agent(self, new, of=None):
        """Change it as a step of a run; return what is to be told."""
        wanted = revision(self.content, new, of, "lexical")
        make = wanted.make
        step = self.doc.transact(
            lambda _: self.view.edits.begin("a", make, by="bot", at=1, run="run-1", alike=wanted.alike)
        )
        self.doc.transact(lambda _: self.view.edits.end(step))
        self.steps.append(step)
        return self.doc.take_delta()

    def undo(self):
        self.doc.transact(lambda _: self.view.edits.undo(self.steps, by="ann", at=2))
        return self.doc.take_delta()

    def does(self, act, **more):
        self._lexical("does", name=self.name, act=act, **more)

    def tell(self, update=None):
        """Tell the editor what is new, and the document what the editor wrote; a late comer sees the same."""
        if update is not None:
            self._lexical("apply", name=self.name, update=update.hex())
        while (written := self._lexical("take", name=self.name)) is not None:
            self.doc.apply(bytes.fromhex(written))
            self.doc.take_delta()
        late = f"{self.name} late"
        self.open(late)
        assert self._lexical("shown", name=late) == self.shown
        assert self._lexical("take", name=late) is None, "there is nothing to mend"
        self._lexical("close", name=late)

    @property
    def shown(self):
        return self._lexical("shown", name=self.name)

    def lines(self):
        """Return what the editor shows, short."""
        return [_short(block) for block in self.shown]


def _short(node):
    if "text" in node:
        return node["text"] + (f":{node['format']}" if node["format"] else "")
    return [node["type"], *(each for each in map(_short, node.get("children", ())))]


def test_what_the_agent_writes_is_shown_and_reads_as_markdown(lexical):
    room = Room(lexical, "writes")
    room.tell(room.agent(WHOLE))
    assert room.text == WHOLE
    kinds = [node["type"] for node in room.shown]
    assert kinds == ["heading", "paragraph", "list", "list", "quote", "code", "horizontalrule", "table", "paragraph"]
    assert room.lines()[1] == ["paragraph", "Some ", "bold:1", ", ", "slanted:2", ", ", "old:4", " and ", "code:16",
                               " words, and a ", ["link", "link"], "."]  # fmt: skip
    bullets, numbers = room.shown[2:4]
    assert [item["value"] for item in bullets["children"]] == [1, 2, 3]
    assert (numbers["listType"], numbers["start"]) == ("number", 3)
    assert [item["value"] for item in numbers["children"]] == [3, 4]


def test_small_edits_change_what_they_name_and_lexical_follows(lexical):
    room = Room(lexical, "small", WHOLE)
    room.tell(room.agent("**very** bold", "bold"))
    room.tell(room.agent("x **y** z", "words"))
    assert room.lines()[1][:7] == ["paragraph", "Some ", "very:1", " bold, ", "slanted:2", ", ", "old:4"]
    room.tell(room.agent("the *whole* link", "a link"))
    assert "whole:2" in room.lines()[1]
    room.tell(room.agent(room.text.replace("- two", "- new\n- two").replace("print", "show")))
    assert [item["value"] for item in room.shown[2]["children"]] == [1, 2, 3, 4]
    assert "show" in room.text


def test_what_people_do_is_read_as_markdown(lexical):
    room = Room(lexical, "people", "# Plan\n\nWe go by car.\n")
    room.does("type", text=0, at=4, letters=" B")
    room.does("format", text=1, **{"from": 9, "to": 12}, format="bold")
    room.does("append", letters="By people * all")
    room.tell()
    assert room.text == "# Plan B\n\nWe go by **car**.\n\nBy people \\* all\n"
    room.does("link", text=2, url="http://car/")
    room.does("split", text=1, at=2)
    room.tell()
    assert room.text == "# Plan B\n\nWe\n\n go by [**car**](<http://car/>).\n\nBy people \\* all\n"


def test_a_change_within_a_link_parts_it(lexical):
    room = Room(lexical, "links", "See [the old house](<http://x>) there.\n")
    room.tell(room.agent("*new*", "old"))
    assert "new" in room.text
    assert "http://x" in room.text
    room.tell(room.undo())
    assert room.text == "See [the old house](<http://x>) there.\n"


def test_the_agents_caret_is_where_it_works(lexical):
    room = Room(lexical, "caret", "# Plan\n\nWe go by **car** to Oslo.\n")
    found = find(room.content, "to Oslo")
    text = text_at(room.content, found.path)
    places = {
        name: position_at(text, at, side, lambda copy: text_at(content_in(copy, "a"), found.path)).json_value()
        for name, at, side in (("anchorPos", found.start, 0), ("focusPos", found.stop, -1))
    }
    assert lexical("caret", name="caret", presence=places) == [[" to Oslo.", 1], [" to Oslo.", 8]]


def test_what_the_agent_did_is_undone_and_what_people_wrote_stays(lexical):
    room = Room(lexical, "undone", "We go by **car** to [Oslo](<http://oslo>).\n\n- one\n- two\n")
    room.tell(room.agent("train", "car"))
    room.tell(room.agent(room.text.replace("- two\n", "") + "\n## Costs\n\n40\n"))
    room.does("type", text=0, at=0, letters="Ann: ")
    room.tell()
    room.tell(room.undo())
    assert room.text == "Ann: We go by **car** to [Oslo](<http://oslo>).\n\n- one\n- two\n"


def test_undoing_a_paragraph_leaves_what_somebody_else_wrote_in_it(lexical):
    room = Room(lexical, "ann", "# Plan\n")
    lexical("apart", name="ann")
    room.does("append", letters="By Ann alone")
    room.does("format", text=1, **{"from": 3, "to": 6}, format="bold")
    room.tell()
    room.tell(room.agent("**Ann** and Bob", "Ann"))
    lexical("undo", name="ann")
    room.tell()
    assert "and Bob" in room.text
    assert "alone" not in room.text
    room.tell(room.undo())
    assert room.text == "# Plan\n\n\n", "her paragraph is there, with nothing in it"


@pytest.mark.parametrize("seed", range(sample("lexical")))
def test_people_and_an_agent_write_at_once_and_all_see_the_same(lexical, seed):
    random = Random(seed)
    room = Room(lexical, f"random {seed}", "\n\n".join(random.sample(BLOCKS, 4)) + "\n")
    for _ in range(6):
        told = _agent_does(room, random) if random.random() < 0.6 else None
        for _ in range(random.randrange(3)):
            _person_does(room, random)
        room.tell(told)
    room.tell(room.agent(room.text))
    room.tell(room.undo())
    assert "AGENT" not in room.text
    lexical("close", name=room.name)


def _agent_does(room, random):
    text = room.text
    if random.random() < 0.5:
        blocks = text.strip().split("\n\n")
        blocks.insert(
            random.randrange(len(blocks) + 1), random.choice(["AGENT here", "## AGENT", "- AGENT\n- AGENT two"])
        )
        if random.random() < 0.4:
            blocks.pop(random.randrange(len(blocks)))
        return room.agent("\n\n".join(blocks) + "\n")
    words = [word for word in ("car", "one", "two", "said", "go", "last", "first", "line") if text.count(word) == 1]
    if not words:
        return None
    try:
        return room.agent(random.choice(["AGENT", "**AGENT** x", "*AGENT*"]), random.choice(words))
    except ValueError:
        return None


def _person_does(room, random):
    text, at = random.randrange(20), random.randrange(12)
    act = random.choice(["type", "type", "type", "remove", "format", "split", "append", "drop", "link"])
    room.does(act, text=text, at=at, letters=random.choice(["x", "yz ", "é😀"]), count=random.randrange(1, 4),
              **{"from": at, "to": at + random.randrange(1, 5)}, format=random.choice(["bold", "italic"]),
              url="http://p/", block=random.randrange(9))  # fmt: skip

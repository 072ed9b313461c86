"""What an agent did to an artifact is undone: the document is as if it had never written.

People write small letters, the agent writes capitals. People never write beside a capital, so nobody builds on the
agent's text; whatever else they do, before or after they have seen what the agent did, the undone document must be the
one that holds the people's updates alone.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from pycrdt import Map, Text, XmlElement, XmlFragment, XmlText

from crdt_sessions.model import ArtifactHead, SessionDoc, SessionView
from crdt_sessions.model import text as text_edits
from crdt_sessions.model.nodes import Element, Node, Words, element, read_children, read_words, words
from crdt_sessions.model.rewriting import Scribe
from crdt_sessions.model.steps import content_in
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.update_v1 import parse

AGENT, PEOPLE = 0, (1, 2)
START = "some 😀 words of people here"


class Room:
    """An agent and two people, each with a replica, and the updates that the people made."""

    def __init__(self, base: bytes, ids: tuple[int, int, int]) -> None:
        self.base = base
        self.docs = [SessionDoc(10 + each) for each in ids]
        for doc in self.docs:
            doc.apply(base)
        self.views = [SessionView(doc) for doc in self.docs]
        self.steps: list[str] = []
        self.by_people: list[bytes] = []
        self.deleted_by_people: set[tuple[int, int]] = set()

    def agent(self, change: Any) -> None:
        view = self.views[AGENT]
        step = self.docs[AGENT].transact(lambda _: view.edits.begin("a", change, by="bot", at=1, run="run-1"))
        self.docs[AGENT].transact(lambda _: view.edits.end(step))
        self.docs[AGENT].take_delta()
        self.steps.append(step)

    def person(self, who: int, change: Any) -> None:
        _, delta = self.docs[who].edit(lambda _: change(content_in(self.docs[who].doc, "a")))
        if delta is not None:
            self.by_people.append(delta)
            for client, ranges in parse(delta).deleted.items():
                self.deleted_by_people |= {(client, clock + at) for clock, n in ranges for at in range(n)}

    def tell(self, giver: int, taker: int) -> None:
        self.docs[taker].apply(self.docs[giver].encode(self.docs[taker].state_vector()))
        self.docs[taker].take_delta()

    def undone(self) -> list[Node]:
        """Have somebody else undo it, once everybody knows everything; return what the artifact is then."""
        service = SessionDoc(99)
        for doc in self.docs:
            service.apply(doc.encode())
        view = SessionView(service)
        mine = view.edits.all(run="run-1")
        assert set(mine) == set(self.steps)
        for step in mine.values():
            for each in step.deleted:  # what both have deleted nobody can tell apart
                assume((each.client, each.clock) not in self.deleted_by_people)
                if isinstance(each.content, list):
                    said = len("".join(str(v) for v, _ in each.content).encode("utf-16-le")) // 2
                    row = {(each.client, each.clock + at) for at in range(said)}
                    assume(not row & self.deleted_by_people)
        assert service.transact(lambda _: view.edits.undo(mine, by="ann", at=2)) == list(mine)
        assert service.transact(lambda _: view.edits.undo(mine, by="bob", at=3)) == []
        return content_of(service)

    def never(self) -> list[Node]:
        """Return what the artifact would be if the agent had never written."""
        doc = SessionDoc(98)
        doc.apply(self.base)
        for update in self.by_people:
            doc.apply(update)
        assume(doc.waiting == EMPTY_UPDATE)  # somebody wrote beside something that the agent had deleted of its own
        return content_of(doc)


def content_of(doc: SessionDoc) -> list[Node]:
    content = content_in(doc.doc, "a")
    return [read_words(content)] if isinstance(content, Text) else list(read_children(content))


def started(content: Any) -> bytes:
    doc = SessionDoc(5)
    head = ArtifactHead(id="a", created_at=0).json_value()

    def begin(_: SessionDoc) -> None:
        doc.roots.artifacts["a"] = Map({"head": head, "content": content})
        if isinstance(content, XmlFragment):
            for at in range(3):
                block = XmlElement("paragraph", {"n": at}, [XmlText(f"{START} {at}")])  # type: ignore[dict-item]
                content.children.append(block)

    doc.transact(begin)
    return doc.encode()


def places(text: str) -> list[int]:
    """Return where a person may write: not beside a capital."""
    edges = f" {text} "
    return [at for at in range(len(text) + 1) if not (edges[at].isupper() or edges[at + 1].isupper())]


def types(text: Any, where: float, letters: str, removes: bool) -> None:
    """Write *letters* in a shared text, or remove a character of people's there."""
    content = read_words(text).text
    free = places(content)
    if not free:
        return
    at = free[int(where * (len(free) - 1))]
    offset = text_edits.utf8_offset(content, at)
    if removes and at < len(content):
        del text[offset : offset + len(content[at].encode())]
    else:
        text.insert(offset, letters)


def capitals(text: str, where: float, much: float, letters: str) -> str:
    """Return *text* with a piece of it replaced by *letters*."""
    begin = int(where * len(text))
    end = begin + int(much * (len(text) - begin))
    return text[:begin] + letters + text[end:]


FRACTION = st.floats(0, 1)
CAPITALS = st.text("ABC", max_size=4)
SMALL = st.text("xyzé😀", min_size=1, max_size=3)
TELLING = st.tuples(st.just("tell"), st.integers(0, 2), st.integers(0, 2))
IDS = st.permutations([0, 1, 2]).map(tuple)


@given(
    IDS,
    st.lists(
        st.one_of(
            TELLING,
            st.tuples(st.just("agent"), FRACTION, FRACTION, CAPITALS),
            st.tuples(st.just("person"), st.sampled_from(PEOPLE), FRACTION, SMALL, st.booleans()),
        ),
        max_size=12,
    ),
)
def test_text_is_as_if_the_agent_had_never_written(ids: tuple[int, int, int], moves: list[tuple[Any, ...]]) -> None:
    room = Room(started(Text(START)), ids)
    for kind, *said in moves:
        if kind == "tell":
            room.tell(*said)
        elif kind == "agent":
            where, much, letters = said
            new = words(capitals(content_of(room.docs[AGENT])[0].text, where, much, letters))
            room.agent(lambda content, scribe, new=new: scribe.rewrite_text(content, new))
        else:
            who, where, letters, removes = said
            room.person(who, lambda content, said=(where, letters, removes): types(content, *said))
    assert room.undone() == room.never()


def assert_never_written(room: Room, moves: list[tuple[Any, ...]], types_in: Any) -> None:
    """Have an agent rewrite blocks, and people write by *types_in*; undone, the agent must never have written."""
    for kind, *said in moves:
        if kind == "tell":
            room.tell(*said)
        elif kind == "agent":
            what, where, letters = said
            new = rewritten(content_of(room.docs[AGENT]), what, where, letters)
            room.agent(lambda content, scribe, new=new: scribe.rewrite_children(content, new))
        else:
            who, where, letters, removes = said
            room.person(who, lambda content, said=(where, letters, removes): types_in(content, *said))
    assert room.undone() == room.never()


@given(
    IDS,
    st.lists(
        st.one_of(
            TELLING,
            st.tuples(
                st.just("agent"), st.sampled_from(["text", "level", "add", "drop", "bold"]), FRACTION, CAPITALS
            ),
            st.tuples(st.just("person"), st.sampled_from(PEOPLE), FRACTION, SMALL, st.booleans()),
        ),
        max_size=12,
    ),
)
def test_rich_text_is_as_if_the_agent_had_never_written(
    ids: tuple[int, int, int], moves: list[tuple[Any, ...]]
) -> None:
    assert_never_written(Room(started(XmlFragment()), ids), moves, types_in_block)


@given(
    IDS,
    st.lists(
        st.one_of(
            TELLING,
            st.tuples(st.just("agent"), st.sampled_from(["text", "add", "drop", "bold", "link"]), FRACTION, CAPITALS),
            st.tuples(st.just("person"), st.sampled_from(PEOPLE), FRACTION, SMALL, st.booleans()),
        ),
        max_size=12,
    ),
)
def test_lexical_is_as_if_the_agent_had_never_written(
    ids: tuple[int, int, int], moves: list[tuple[Any, ...]]
) -> None:
    assert_never_written(Room(started_lexical(), ids), moves, types_in_line)


def started_lexical() -> bytes:
    """Return a document of Lexical with bold words and a link in each of its paragraphs."""
    doc = SessionDoc(5)
    view = SessionView(doc)
    line = [*words("some 😀 ").atoms, *words("words of", {"bold": {}}).atoms, *words(" people ").atoms]
    line += words("here", {"link": {"href": "http://x"}}).atoms
    blocks = [element("paragraph", {"n": at}, [Words(tuple(line))]) for at in range(3)]
    doc.transact(lambda _: view.artifacts.begin(ArtifactHead(id="a", created_at=0), "xml", "lexical"))
    doc.transact(lambda _: Scribe().rewrite_children(content_in(doc.doc, "a"), blocks))  # type: ignore[arg-type]
    return doc.encode()


def types_in_line(content: Any, where: float, letters: str, removes: bool) -> None:
    """Write in the last paragraph as its editor does: within the text node that is there.

    Not in a link: what somebody writes there goes with the link, if that is taken away meanwhile.
    """
    text = content.children[len(content.children) - 1].children[0]
    said = read_words(text)
    free = [at for at in places(said.text) if at and "link" not in said.atoms[at - 1].marks]
    if not free:
        return
    at = free[int(where * (len(free) - 1))]
    offset = text_edits.utf8_offset(said.text, at)
    if removes and at < len(said.text):
        del text[offset : offset + len(said.text[at].encode())]
    else:
        text.insert(offset, letters, json.loads(said.atoms[at - 1].marks or "{}"))


def rewritten(blocks: list[Node], what: str, where: float, letters: str) -> list[Node]:
    """Return *blocks* with one of them changed. People write in the last one; only others are dropped."""
    at = int(where * (len(blocks) - 1))
    block = blocks[at]
    assert isinstance(block, Element)
    if what == "add":
        return [*blocks[:at], element("heading", {"level": 2}, [words(letters or "A")]), *blocks[at:]]
    if what == "drop":
        return [each for place, each in enumerate(blocks) if place != at or place == len(blocks) - 1]
    if what == "level":
        changed = element(block.name, {"level": len(letters), "n": 7}, block.children)
    else:
        marks = {"bold": {"bold": {}}, "link": {"link": {"href": "http://y"}}}.get(what, {})
        old = block.children[0] if block.children else Words(())
        assert isinstance(old, Words)
        middle = int(where * len(old.atoms))
        atoms = (*old.atoms[:middle], *words(letters, marks).atoms, *old.atoms[middle + 2 :])
        changed = element(block.name, block.values, [Words(atoms)])
    return [*blocks[:at], changed, *blocks[at + 1 :]]


def types_in_block(content: Any, where: float, letters: str, removes: bool) -> None:
    types(content.children[len(content.children) - 1].children[0], where, letters, removes)


def test_what_people_wrote_in_a_paragraph_of_the_agents_stays() -> None:
    room = Room(started(XmlFragment()), (0, 1, 2))
    new = [*content_of(room.docs[AGENT]), element("heading", {"level": 2}, [words("AGENT")])]
    room.agent(lambda content, scribe: scribe.rewrite_children(content, new))
    room.tell(AGENT, 1)
    room.person(1, lambda content: content.children[3].children[0].insert(2, "person"))
    left = room.undone()[3]
    assert left == element("heading", {"level": 2}, [words("person")])


def test_a_step_that_goes_on_is_undone_with_what_came_since() -> None:
    room = Room(started(Text(START)), (0, 1, 2))
    view, doc = room.views[AGENT], room.docs[AGENT]
    step = doc.transact(lambda _: view.edits.begin("a", lambda content, scribe: None, by="bot", at=1, run="run-1"))
    doc.transact(lambda _: view.artifacts.text("a").insert(0, "ABC"))
    room.steps.append(step)
    assert room.undone() == [words(START)]


def test_a_scribe_leaves_alone_what_stays() -> None:
    doc = SessionDoc(7)
    doc.apply(started(Text(START)))
    doc.take_delta()
    new = words(START.replace("people", "folk"))
    _, delta = doc.edit(lambda _: Scribe().rewrite_text(content_in(doc.doc, "a"), new))  # type: ignore[arg-type]
    assert delta is not None
    assert sum(length for _, length in parse(delta).deleted[5]) == len("people")

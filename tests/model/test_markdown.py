"""Markdown becomes rich text in the shape of each editor, and that becomes Markdown again; small edits stay small."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import XmlElement, XmlFragment, XmlText

from crdt_sessions.errors import BadValue
from crdt_sessions.model import ArtifactHead, SessionDoc
from crdt_sessions.model.artifacts import Artifacts
from crdt_sessions.model.dialects import Dialect, alike, dialect_in, dialect_of
from crdt_sessions.model.markdown import from_markdown, inline_from_markdown, to_markdown
from crdt_sessions.model.nodes import Element, element, read_children, words
from crdt_sessions.model.revisions import read_content
from crdt_sessions.model.rewriting import Scribe, same
from crdt_sessions.model.steps import content_in
from crdt_sessions.wire.update_v1 import parse

WHOLE = """# A walk

Some **bold**, *slanted*, ~~old~~ and `code` words, and a [link](<https://example.org/?a=b>).

- one
- two
  - below

3. three
4. four

> said

```python
print("*")
```

---

| town | km |
| --- | --- |
| Oslo | **3** |

The end\\
of it.
"""
DIALECTS: tuple[Dialect, ...] = ("tiptap", "prosemirror", "blocknote", "lexical")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_markdown_comes_back_as_it_was(dialect: Dialect) -> None:
    assert to_markdown(from_markdown(WHOLE, dialect), dialect) == WHOLE


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_document_tells_whose_shape_it_has(dialect: Dialect) -> None:
    assert dialect_in(fragment_of(SessionDoc(1), dialect), dialect) == dialect
    if dialect != "lexical":  # it has names that others have, too, and tells by what its root is
        assert dialect_of(from_markdown(WHOLE, dialect)) == dialect


def fragment_of(doc: SessionDoc, dialect: Dialect) -> Any:
    if dialect != "lexical":
        return doc.doc.get("x", type=XmlFragment)
    doc.transact(lambda _: Artifacts(doc).begin(ArtifactHead(id="x", created_at=1), "xml", dialect))
    doc.take_delta()
    return content_in(doc.doc, "x")


def test_shapes_are_those_of_the_editors() -> None:
    heading = element("heading", {"level": 2}, [words("Hi")])
    assert from_markdown("## Hi", "tiptap") == (heading,)
    item = element("list_item", {}, [element("paragraph", {}, [words("a", {"strong": {}})])])
    assert from_markdown("- **a**", "prosemirror") == (element("bullet_list", {}, [item]),)
    block = element("blockContainer", {}, [element("bulletListItem", {}, [words("a", {"bold": {}})])])
    assert from_markdown("- **a**", "blocknote") == (element("blockGroup", {}, [block]),)


def rewritten(doc: SessionDoc, fragment: Any, text: str, dialect: Dialect) -> tuple[int, int]:
    """Make *text* of a fragment; return how many ids that deleted and wrote."""
    new = from_markdown(text, dialect)
    _, delta = doc.edit(lambda _: Scribe(alike(dialect)).rewrite_children(fragment, new))
    parsed = parse(delta) if delta is not None else parse(b"\0\0")
    deleted = sum(n for ranges in parsed.deleted.values() for _, n in ranges)
    return deleted, sum(each.size for each in parsed.inserted.get(doc.doc.client_id, ()))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_small_edits_change_little(dialect: Dialect) -> None:
    doc = SessionDoc(1)
    fragment = fragment_of(doc, dialect)
    rewritten(doc, fragment, WHOLE, dialect)
    assert rewritten(doc, fragment, WHOLE, dialect) == (0, 0)
    assert rewritten(doc, fragment, WHOLE.replace("Some", "Few"), dialect) == (4, 3)
    assert read_content(fragment) == WHOLE.replace("Some", "Few")
    more = rewritten(doc, fragment, WHOLE.replace("Some", "Few").replace("- two\n", "- new\n- two\n"), dialect)
    assert more[0] == (2 if dialect == "lexical" else 0)  # there, what comes behind gets other numbers


def test_what_markdown_cannot_say_stays() -> None:
    doc = SessionDoc(1)
    fragment = doc.doc.get("x", type=XmlFragment)

    def begin(_: SessionDoc) -> None:
        aligned = {"textAlign": "right", "level": 2}
        fragment.children.append(XmlElement("heading", aligned, [XmlText("Hi")]))  # type: ignore[arg-type]
        fragment.children.append(XmlElement("mention", {"who": "ann"}, [XmlText("Ann")]))
        fragment.children.append(XmlElement("paragraph", {}, [XmlText("red")]))
        fragment.children[2].children[0].format(0, 3, {"textStyle": {"color": "red"}})  # type: ignore[union-attr]

    doc.edit(begin)
    text = to_markdown(read_children(fragment))
    assert text == "## Hi\n\n<!-- kept:mention -->\n\nred\n"
    assert rewritten(doc, fragment, text, "tiptap") == (0, 0)
    rewritten(doc, fragment, text.replace("Hi", "Ho") + "\nmore\n", "tiptap")
    heading, mention, red, more = read_children(fragment)
    assert isinstance(heading, Element)
    assert heading.values["textAlign"] == "right"
    assert (heading.text, mention.text, more.text) == ("Ho", "Ann", "more")
    assert red == element("paragraph", {}, [words("red", {"textStyle": {"color": "red"}})])
    rewritten(doc, fragment, "<!-- kept:other -->\n\nmore\n", "tiptap")
    assert [child.text for child in read_children(fragment)] == ["more"]


def test_what_stands_in_a_paragraph_is_one_paragraph() -> None:
    assert inline_from_markdown(" **a** b ", "tiptap")[0].text == " a b "
    with pytest.raises(BadValue, match="more than one paragraph"):
        inline_from_markdown("a\n\nb", "tiptap")
    with pytest.raises(BadValue, match="no plain paragraph"):
        inline_from_markdown("# a", "tiptap")


@given(st.text(alphabet="ab 1.#->*_`~|[]()\\<!\n=+", max_size=30), st.sampled_from(DIALECTS))
def test_whatever_people_write_comes_back(text: str, dialect: Dialect) -> None:
    paragraph = element("paragraph", {}, [words(line)] if (line := " ".join(text.split())) else [])
    whole = (element("blockGroup", {}, [element("blockContainer", {}, [paragraph])]),)
    nodes = whole if dialect == "blocknote" else (paragraph,)
    back = from_markdown(to_markdown(nodes, dialect), dialect)
    assert same(nodes, back, alike(dialect)) or not line


PIECES = [
    "a",
    "**b c**",
    "*d*",
    "***e***",
    "~~f~~",
    "`g`",
    "[h *i*](/j)",
    "\\\n",
    "\n\n",
    "\n- ",
    "\n2. ",
    "\n> ",
    "\n# ",
    "\n```\nk\n```\n",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join), st.sampled_from(DIALECTS))
def test_markdown_settles(text: str, dialect: Dialect) -> None:
    once = to_markdown(from_markdown(text, dialect), dialect)
    assert to_markdown(from_markdown(once, dialect), dialect) == once


@pytest.mark.parametrize("dialect", ["tiptap", "lexical"])
def test_what_stands_in_a_line_and_has_no_word_stays_there(dialect: Dialect) -> None:
    doc = SessionDoc(1)
    fragment = fragment_of(doc, dialect)
    rewritten(doc, fragment, "Hi , all.\n", dialect)
    mention = XmlElement("mention", {"__type": "mention", "who": "ann"})  # type: ignore[arg-type]
    block = fragment.children[0]
    if dialect == "lexical":
        doc.transact(lambda _: block.shared.insert_embed(4, mention))
    else:

        def put(_: SessionDoc) -> None:
            del block.children[0][3:]
            block.children.append(mention)
            block.children.append(XmlText(", all."))

        doc.transact(put)
    doc.take_delta()
    text = read_content(fragment)
    assert text == "Hi <kept:mention>, all.\n"
    assert rewritten(doc, fragment, text, dialect) == (0, 0)
    rewritten(doc, fragment, text.replace("all", "everybody"), dialect)
    assert read_content(fragment) == "Hi <kept:mention>, everybody.\n"
    rewritten(doc, fragment, "Hi, all.\n", dialect)
    assert read_content(fragment) == "Hi, all.\n"

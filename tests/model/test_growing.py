"""Markdown that comes in pieces: what is shown stays, and in the end it is what the whole says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.model.growing import GrowingMarkdown, common, grows
from crdt_sessions.model.markdown import blocks_of, to_markdown
from crdt_sessions.model.nodes import element, words

WHOLE = """# Plan for 😀

We go by **train**, *not* by `car`; see [the map](https://example.org/map).
Two * three is six, and 5*3 ~~is not~~ fifteen.

- one
- two with ***both***
  - below

1. first
2. second

> said **he**

```python
print("**not bold**")
```

| a | b |
| --- | --- |
| 1 | **2** |

---

End_of_it.
"""
DIALECTS = ["tiptap", "prosemirror", "blocknote"]
BLOCKS = st.sampled_from(
    ["# Title **x**", "plain *text* with `code` in it", "- one\n- two\n  - three", "1. one\n2. two", "> quoted\n> more",
     "```js\nlet a = `b`\n```", "| a | b |\n|---|---|\n| 1 | 2 |", "---", "a\nb", "- a\n\n- b", "1) x\n\n2) y", "**a *b***",
     "[x](y) and ![p](q)", "<!-- kept:x -->", "~~gone~~ *open", "\\*no\\* &amp; &copy;", "####### seven", "2 * 3 * 4", "😀 **😀**"]
)  # fmt: skip


def pieces(text, sizes):
    at = 0
    while at < len(text):
        size = next(sizes)
        yield text[at : at + size]
        at += size


def grown(text, dialect, sizes):
    """Feed *text* in pieces, see that what is shown only grows, and return what it is in the end."""
    growing, shown = GrowingMarkdown(dialect), ()
    for piece in pieces(text, sizes):
        now = growing.feed(piece)
        assert all_grow(shown, now), (shown, now)
        shown = now
    end = growing.end()
    assert all_grow(shown, end), (shown, end)
    return end


def all_grow(before, after):
    return grows(element("", {}, before), element("", {}, after))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_document_grows_to_what_the_whole_says(dialect):
    assert grown(WHOLE, dialect, iter([7] * len(WHOLE))) == blocks_of(WHOLE, dialect)


@given(st.lists(BLOCKS, min_size=1, max_size=4), st.sampled_from(DIALECTS), st.data())
def test_whatever_comes_what_is_shown_stays(blocks, dialect, data):
    text = "\n\n".join(blocks)
    sizes = iter(lambda: data.draw(st.integers(1, 9)), None)
    assert grown(text, dialect, sizes) == blocks_of(text, dialect)


def shown(text):
    return to_markdown(GrowingMarkdown("tiptap").feed(text), "tiptap")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Well **then", "Well \n"),
        ("Well **then** go", "Well **then** go\n"),
        ("2 * 3 ", "2 \\* 3\n"),
        ("# Tit", "# Tit\n"),
        ("#", ""),
        ("- on", "- on\n"),
        ("1", ""),
        ("```py", ""),
        ("```py\nx = 1", "```py\nx = 1\n```\n"),
        ("| a | b |\n|---|---|\n| 1", ""),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\nx", "| a | b |\n| --- | --- |\n| 1 | 2 |\n\nx\n"),
    ],
)
def test_what_is_clear_is_shown_at_once_and_the_rest_waits(text, expected):
    assert shown(text) == expected


def test_long_blocks_are_looked_at_now_and_then():
    looked = []
    growing = GrowingMarkdown("tiptap")
    look = growing._look
    growing._look = lambda: looked.append(1) or look()
    for _ in range(300):
        growing.feed("word ")
    assert len(looked) < 200
    assert growing.end() == (element("paragraph", {}, [words(("word " * 300).strip())]),)


def test_what_two_have_in_common_ends_where_they_differ():
    one = [element("paragraph", {}, [words("abc")]), element("paragraph", {}, [words("x")])]
    other = [element("paragraph", {}, [words("abd")]), element("paragraph", {}, [words("x")])]
    assert common(one, other) == (element("paragraph", {}, [words("ab")]),)
    assert common(one, one) == tuple(one)
    assert common([element("listItem", {}, [words("a")])], [element("listItem", {}, [words("b")])]) == ()

"""An agent edits artifacts beside people: small edits, carets that stock bindings draw, streaming, undo."""

from __future__ import annotations

import asyncio

import pytest

from crdt_sessions import connect
from crdt_sessions.client.artifact_editor import ArtifactEditor
from crdt_sessions.errors import BadValue, NotFound
from crdt_sessions.model import ArtifactHead, RelativePosition
from crdt_sessions.model.artifacts import ContentKind
from crdt_sessions.model.dialects import Dialect
from tests.processes import PATIENCE, Server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("editors") / "s.db", "--default-agent", "")
    yield process
    process.close()


@pytest.fixture
def room(request, service):
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)[-60:].strip("-")
    return name


def editor(peer, kind: ContentKind = "text", content: str = "", dialect: Dialect = "tiptap") -> ArtifactEditor:
    peer.edit(lambda view: view.artifacts.begin(ArtifactHead(id="draft", created_at=1), kind))
    draft = ArtifactEditor(peer, "draft", run="run-1", dialect=dialect)
    if content:
        draft.edit(content)
    return draft


def text_of(peer) -> str:
    found = peer.view.artifacts.value("draft")
    return found.content if found is not None else ""


def caret(ann, key="cursor"):
    """Return where the other one's caret is, as anchor and head."""
    (presence,) = ann.present().values()
    said = presence.cursor if key == "cursor" else presence.model_extra[key]
    places = (RelativePosition.model_validate(said[end]) for end in ("anchor", "head"))
    return tuple(ann.view.artifacts.index_of("draft", place) for place in places)


async def test_a_text_is_edited_by_passages_and_the_caret_stays_where_it_is_while_others_type(service, room):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bot") as bot:
        draft = editor(bot, content="We go by 🚗 car to Oslo.")
        draft.edit("train", of="🚗 car")
        assert draft.content == "We go by train to Oslo."
        await bot.durable()
        await ann.until(lambda: "train" in text_of(ann) and any(each.cursor for each in ann.present().values()))
        end = len("We go by train")
        await asyncio.wait_for(ann.until(lambda: caret(ann) == (end, end)), PATIENCE)
        assert caret(ann, "selection") == (end, end)
        ann.edit(lambda view: view.artifacts.splice("draft", 0, 0, "Tomorrow. "))
        assert caret(ann) == (end + 10, end + 10)
        draft.select("Oslo")
        at = text_of(ann).index("Oslo")
        await asyncio.wait_for(ann.until(lambda: caret(ann) == (at, at + 4)), PATIENCE)
        for wrong, why in (("Bergen", "not there"), ("o", "times"), ("", "empty")):
            with pytest.raises(BadValue, match=why):
                draft.edit("x", of=wrong)
        with pytest.raises(IndexError):
            draft.insert(99, "x")


@pytest.mark.parametrize("dialect", ["tiptap", "prosemirror", "blocknote"])
async def test_rich_text_is_edited_in_markdown_and_what_people_wrote_stays(service, room, dialect):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bot") as bot:
        draft = editor(bot, "xml", "# Plan\n\nWe go by **car** now.\n\n- one\n", dialect)
        assert (draft.kind, draft.dialect) == ("xml", dialect)
        draft.edit("train", of="car")
        assert draft.content == "# Plan\n\nWe go by **train** now.\n\n- one\n"
        draft.select("one")
        with pytest.raises(NotFound):
            draft.append("x")
        with pytest.raises(BadValue, match="picture or a new line"):
            draft.edit("![a](b)", of="train")
        draft.edit(draft.content.replace("- one", "- one\n- two"))
        assert draft.content.endswith("- one\n- two\n")
        await bot.durable()
        await ann.until(lambda: "two" in text_of(ann))
        assert "train" in text_of(ann)


async def test_words_stream_to_a_place_while_people_type_around_it(service, room):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bot") as bot:
        draft = editor(bot, content="Summary: END")
        async with draft.stream(after="Summary: ") as out:
            for word in ("all ", "went 😀 ", "well. "):
                await out.write(word)
                await bot.durable()
                await ann.until(lambda word=word: word in text_of(ann))
                ann.edit(lambda view: view.artifacts.splice("draft", 0, 0, "é"))
                await ann.durable()
                length = len(draft.content)
                await bot.until(lambda length=length: len(draft.content) >= length)
        await bot.until(lambda: draft.content.startswith("ééé"))
        assert draft.content == "éééSummary: all went 😀 well. END"


@pytest.mark.parametrize("dialect", ["tiptap", "blocknote"])
async def test_blank_lines_begin_paragraphs_in_rich_text(service, room, dialect):
    async with connect(service.url, room, id="bot") as bot:
        draft = editor(bot, "xml", "# Plan\n", dialect)
        async with draft.stream() as out:
            for token in ("One ", "two\nthree.", "\n", "\nFour", " five.\n\n"):
                await out.write(token)
        assert draft.content == "# Plan\n\nOne two three.\n\nFour five.\n"
        async with draft.stream(after="One") as out:
            await out.write(" and a half")
        assert draft.content == "# Plan\n\nOne and a half two three.\n\nFour five.\n"


async def test_what_a_run_did_is_undone_from_another_device_after_it_is_gone(service, room):
    async with connect(service.url, room, id="ann") as ann:
        asked = await ann.post("write", agent="writer")
        run = f"run-{asked.id}"
        ann.edit(lambda view: view.artifacts.add(ArtifactHead(id="draft", created_at=1), "Ours, of people."))
        await ann.durable()
        async with connect(service.url, room, id="bot") as bot:
            draft = ArtifactEditor(bot, "draft", run=run)
            draft.edit("Theirs", of="Ours")
            draft.append(" And more.")
            async with draft.stream(after="people") as out:
                await out.write(" and robots")
            await bot.durable()
        await ann.until(lambda: "robots" in text_of(ann))
        at = text_of(ann).index("robots")
        ann.edit(lambda view: view.artifacts.splice("draft", at, 0, "(Ann) "))
        await ann.durable()
    async with connect(service.url, room, id="bob") as bob:
        assert len(await bob.undo(run, artifact="draft")) == 1
        await bob.until(lambda: text_of(bob) == "Ours, of people(Ann) .")
        assert await bob.undo(run) == []
